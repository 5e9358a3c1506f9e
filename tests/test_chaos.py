"""The short chaos: every kind of fault once, on a real Kafka and Redis under load; `make chaos` goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.chaos.faults import CRASHES, FAULTS, Fault, sequence
from tests.chaos.people import Population
from tests.chaos.report import Run, draw, table, words
from tests.chaos.run import run
from tests.chaos.verdict import Topics, compare
from tests.services import UnavailableError

SEED = 7
SKIPPED = {"SIGTERM, another started", "restarted"}  # scaling stops workers too, and the broker is killed
CRASHED = {"crash: EndTxn sent, no answer", "crash: amid the replay"}  # the others are in the simulation as well
TIMEOUT_S = 480


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str, UnavailableError], NoReturn]) -> Run:
    """One run that all tests look at."""
    folder = tmp_path_factory.mktemp("chaos")
    faults = [fault for fault in FAULTS if fault.name not in SKIPPED]
    faults += [fault for fault in CRASHES if fault.name in CRASHED]
    print(f"SEED={SEED}, evidence in {folder}")
    try:
        return run(SEED, TIMEOUT_S, folder, faults, overlapping=0.0)
    except UnavailableError as error:
        missing("Kafka or Redis", error)


def test_a_seed_is_the_same_faults_and_people() -> None:
    """What happens depends on the seed alone; another one gives something else."""

    def told(seed: int) -> tuple[list[Fault], list[tuple[float, bytes]]]:
        faults, people = sequence([*FAULTS, *CRASHES], seed), Population(f"people {seed}").records(500)
        return list(islice(faults, 100)), [(planned.at_s, planned.value) for planned in islice(people, 5000)]

    assert told(1) == told(1)
    assert told(1)[0] != told(2)[0]
    assert told(1)[1] != told(2)[1]


@pytest.mark.timeout(TIMEOUT_S)
def test_nothing_is_lost_doubled_or_wrong(chaos: Run) -> None:
    """Under 500 events a second and one fault of each kind, each trigger has its one decision, and the right one."""
    print(words(chaos), table(chaos), sep="\n\n")
    assert [f"{finding.kind}: {finding.text}" for finding in chaos.verdict.findings] == []
    assert len(chaos.verdict.topics.log) > 1000


Tampering = Callable[[Topics], Topics]


def changed(topic: str, change: Callable[[list[Any]], list[Any]]) -> Tampering:
    """Topics of which one is not as it was read."""
    return lambda got: replace(got, **{topic: change(getattr(got, topic))})


def rewritten(topic: str, old: bytes, new: bytes) -> Tampering:
    """The first record that says one thing says another."""

    def change(records: list[Any]) -> list[Any]:
        number = next(i for i, record in enumerate(records) if old in (record.value or b""))
        return [
            replace(record, value=record.value.replace(old, new)) if i == number else record
            for i, record in enumerate(records)
        ]

    return changed(topic, change)


@pytest.mark.parametrize(
    ("kind", "tampering"),
    [
        ("lost", changed("log", lambda records: records[1:])),
        ("lost", changed("decisions", lambda records: records[1:])),
        ("lost", changed("letters", lambda records: records[1:])),
        ("doubled", changed("log", lambda records: [*records, records[-1]])),
        ("doubled", changed("decisions", lambda records: [*records, records[-1]])),
        ("doubled", changed("letters", lambda records: [*records, records[-1]])),
        ("wrong", changed("events", lambda records: records[:-1])),
        ("wrong", changed("changelog", lambda records: records[: len(records) // 2])),
        ("wrong", rewritten("log", b'"action":"holdout"', b'"action":"suppress"')),
        ("wrong", rewritten("log", b'"cancelled_by":"m', b'"cancelled_by":"n')),
        ("wrong", rewritten("log", b'"no_consent"', b'"no_address"')),
        ("wrong", rewritten("log", b'"due_at":"2', b'"due_at":"3')),
        ("wrong", rewritten("decisions", b"boots", b"books")),
        ("wrong", rewritten("decisions", b"@example.com", b"@example.org")),
        ("wrong", rewritten("letters", b"{", b"[")),
    ],
)
def test_the_oracle_sees_what_is_lost_doubled_or_wrong(chaos: Run, kind: str, tampering: Tampering) -> None:
    """One record of the same run taken away, repeated or changed is found, and called what it is."""
    verdict = chaos.verdict
    found = compare(tampering(verdict.topics), verdict.stories, verdict.acked)
    assert kind in {finding.kind for finding in found}


def test_a_run_is_drawn(chaos: Run, tmp_path: Path) -> None:
    """The picture of a run is a PNG, small enough to be kept."""
    draw(chaos, tmp_path / "delay.png")
    data = (tmp_path / "delay.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 200_000
