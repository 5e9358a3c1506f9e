"""The models a worker decides with: the latest good snapshot of each, unless another one is pinned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bandits import snapshot
from bandits.snapshot import Snapshot
from decisioning import broadcast
from decisioning.effects import Pin
from streams.metrics import Metrics
from streams.model_table import ModelTable
from streams.seams import Entry
from streams.snapshots import PINNED
from streams.tables import NAMES, Tables
from tests.learning_world import PLANS, School, Topics, example, folded

MODEL = "cart/subject"
RECORDS = [example(n, MODEL, ("plain", "offer")[n % 2], late=n % 3 == 0, reward=float(n % 2)) for n in range(40)]


def taken(version: int) -> bytes:
    """The snapshot of a version."""
    return folded(RECORDS[:version]).snapshots()[MODEL]


class Worker:
    """Tables of a worker, told things."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.tables = Tables(ModelTable(PLANS, self.metrics))

    def tell(self, name: str, *records: tuple[str, bytes]) -> None:
        """Records of a topic, in one fetch."""
        start = self.tables.offsets[name]
        entries = [Entry(start + i, key.encode(), value) for i, (key, value) in enumerate(records)]
        self.tables.take(name, entries, start + len(entries))

    def pin(self, version: int | None) -> None:
        record = broadcast.pin_record(MODEL, Pin(version=version, at="2026-03-02T10:00:00.000Z", by="ann"))
        assert record.key is not None
        self.tell("control", (record.key.decode(), record.value))

    def version(self) -> int | None:
        """Which one is decided with."""
        found = self.tables.in_use.of(MODEL)
        return None if found is None else found.version

    def refused(self) -> float:
        return float(self.metrics.snapshots_refused.labels("worker")._value.get())


def test_the_latest_snapshot_is_used() -> None:
    """Of several in one fetch the last; a tombstone takes the model away; gauges follow."""
    worker = Worker()
    assert worker.version() is None
    worker.tell("models", (MODEL, taken(10)), (MODEL, taken(20)), ("@position", b'{"position":20}'))
    assert worker.version() == 20
    assert worker.metrics.model_version.labels(MODEL)._value.get() == 20
    assert 0 < worker.metrics.policy_entropy.labels(MODEL)._value.get() <= 1
    assert worker.tables.versions() == {"catalog": "0", "control": "0", "models": "3"}
    worker.tell("models", (MODEL, b""))
    assert worker.version() is None
    assert "model_version{" not in str(list(worker.metrics.model_version.collect()))


def changed(value: bytes, **other: Any) -> bytes:
    """A snapshot with other fields."""
    read = snapshot.decode(value)
    fields = {name: getattr(read, name) for name in read.__struct_fields__}
    return snapshot.encode(Snapshot(**(fields | other)))


@pytest.mark.parametrize(
    "value",
    [
        b"no json",
        b'{"schema":2}',
        taken(20)[:-40] + b"}",
        changed(taken(20), context_version=999),
        changed(taken(20), model="cart/channel"),
        changed(taken(20), kind="propensity"),
        changed(taken(20), data=b"\0" * 900),
    ],
)
def test_what_cannot_be_used_changes_nothing(value: bytes) -> None:
    """Damaged, of another schema, context, model or kind: counted, and the last good one stays, whatever the order."""
    worker = Worker()
    worker.tell("models", (MODEL, taken(10)))
    worker.tell("models", (MODEL, value))
    assert (worker.version(), worker.refused()) == (10, 1)
    worker.tell("models", (MODEL, taken(20)), (MODEL, value))
    assert (worker.version(), worker.refused()) == (20, 2)


def test_a_model_of_no_campaign_is_passed_over() -> None:
    """Another configuration's policies are no error, and nothing is solved for them."""
    worker = Worker()
    worker.tell("models", ("gone/subject", changed(taken(10), model="gone/subject")))
    assert (worker.tables.in_use.of("gone/subject"), worker.refused()) == (None, 0)


@pytest.mark.parametrize("pin_first", [True, False])
def test_a_pin_holds_against_what_is_learned(*, pin_first: bool) -> None:
    """Whichever topic is heard first; a pin whose snapshot is not there yet changes nothing; unpinned, the latest."""
    worker = Worker()
    worker.tell("models", (MODEL, taken(20)))
    told: list[Callable[[], None]] = [
        lambda: worker.pin(10),
        lambda: worker.tell("models", (f"{PINNED}{MODEL}", taken(10))),
    ]
    for tell in told if pin_first else reversed(told):
        assert worker.version() == 20
        tell()
    assert worker.version() == 10
    worker.tell("models", (MODEL, taken(30)))
    assert worker.version() == 10
    worker.pin(None)
    assert worker.version() == 30


def test_what_is_given_to_a_step_does_not_change() -> None:
    """The models of a step under way are those it began with."""
    worker = Worker()
    worker.tell("models", (MODEL, taken(10)))
    models = worker.tables.in_use
    worker.tell("models", (MODEL, taken(20)))
    found = models.of(MODEL)
    assert found is not None
    assert found.version == 10


def test_what_a_learner_publishes_can_be_used() -> None:
    """Everything that is in `models` after learning is understood by those who follow it."""
    school = School(Topics(RECORDS))
    asyncio.run(school.live())
    worker = Worker()
    worker.tell("models", *school.topics.models.items())
    assert (worker.version(), worker.refused()) == (40, 0)
    assert "models" in NAMES
