"""Propensity models in the shell: learned beside policies by the same protocol, and used by workers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bandits.snapshot import decode
from decisioning.effects import Pin
from decisioning.learning import learner_of
from streams.learner import Learning
from streams.metrics import Metrics
from streams.model_table import ModelTable
from streams.seams import Entry
from tests.learning_world import PLANS, FakeLearnerLog, School, Topics, history
from tests.shell_world import Crash, Faults
from tests.test_propensity_fold import log_of

LABELS = ("open", "click")
MODEL = "propensity/open"


class Academy(School):
    """Learners of policies and of propensity models."""

    def learning(self, faults: Faults | None = None) -> Learning:
        """One more."""
        log = FakeLearnerLog(self.topics, faults or Faults(), transactional=self.transactional)
        return Learning(log, lambda: learner_of(PLANS, LABELS), self.clock, self.metrics)


@pytest.fixture(scope="module")
def records() -> list[bytes]:
    """Sends, their outcomes, and between them examples of policies."""
    mixed = log_of(5, 450)
    for place, record in enumerate(history(60, seed=8)):
        mixed.insert(20 * place, record)
    return mixed


@pytest.fixture(scope="module")
def right(records: list[bytes]) -> Academy:
    """What comes of it undisturbed."""
    school = Academy(Topics(records))
    asyncio.run(school.live())
    return school


@pytest.mark.parametrize("deaths", [(3, 9, 14), (25, 30), (44, 6)])
def test_deaths_anywhere_change_no_byte(records: list[bytes], right: Academy, deaths: tuple[int, ...]) -> None:
    """Policies and propensity models alike, though what waits is in no snapshot."""

    async def story() -> None:
        school = Academy(Topics(records))
        for death in deaths:
            try:
                await school.live(Faults(death, "after"))
            except Crash:
                continue
        await school.live()
        assert school.snapshots() == right.snapshots()
        assert {MODEL, "propensity/click"} < set(school.snapshots())

    asyncio.run(story())


def test_log_loss_and_drift_are_measured(right: Academy) -> None:
    """As of the latest snapshot."""
    said = decode(right.snapshots()[MODEL]).meta
    assert right.metrics.model_logloss.labels(MODEL)._value.get() == pytest.approx(said["log_loss"], abs=1e-6)
    assert right.metrics.drift.labels(MODEL)._value.get() == said["drifts"] == 0


def test_workers_score_with_the_latest_good_snapshot_or_the_pinned_one(right: Academy) -> None:
    """A damaged one is counted and passed over; a model that is not learned here is passed over in silence."""
    kept = [value for key, value in right.topics.kept if key.startswith(MODEL + "@")]
    first, last = decode(kept[0]).version, decode(kept[-1]).version
    metrics = Metrics()
    table = ModelTable(PLANS, metrics, ("open",))

    def told(*entries: tuple[str, bytes], pins: Any = None) -> int | None:
        found = table.load([Entry(offset, key.encode(), value) for offset, (key, value) in enumerate(entries)])
        table.adopt(found, pins or {})
        scored = table.in_use.scored("open")
        return None if scored is None else scored.version

    assert told() is None
    assert told((MODEL, kept[0]), ("propensity/click", right.snapshots()["propensity/click"])) == first
    assert table.in_use.scored("click") is None
    assert told((MODEL, kept[-1]), (MODEL, b"damaged")) == last
    assert told((MODEL, kept[-1].replace(b'"kind":"propensity"', b'"kind":"arms"'))) == last
    assert metrics.snapshots_refused.labels("worker")._value.get() == 2
    assert metrics.model_version.labels(MODEL)._value.get() == last
    pin = Pin(version=first, at="2026-03-01T00:00:00Z", by="ann")
    assert told((f"@pin:{MODEL}", kept[0]), pins={MODEL: pin}) == first
    assert told() == last
    assert told((MODEL, b"")) is None
