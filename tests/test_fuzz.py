"""The short fuzzing: every input that once was a finding, then seeded mutations; `make fuzz` goes on from there."""

from __future__ import annotations

import random

import orjson
import pytest

from decisioning import messages
from decisioning.reading import MAX_ID_CHARACTERS
from tests.fuzz.seeds import CORPUS, committed, mutated, seeds
from tests.fuzz.targets import TARGETS

RUNS = {
    "events": 4_000,
    "messages": 4_000,
    "profile": 600,
    "rows": 400,
    "changelog": 4_000,
    "config": 300,
    "engine": 600,
}


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_once_stays_mended(name: str) -> None:
    """Every seed and every kept finding passes its target."""
    for data in seeds(name):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutation_gets_through(name: str) -> None:
    """Thousands of damaged inputs, the same in each run: refused or taken, never an exception."""
    chance = random.Random(7)
    known = seeds(name)
    for number in range(RUNS[name]):
        data = mutated(chance, known)
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"mutation {number}: {type(error).__name__}: {error}: {data!r}") from error


def test_every_kept_finding_has_a_target() -> None:
    """No file of the corpus is read by nobody."""
    assert {path.stem for path in CORPUS.iterdir()} <= TARGETS.keys()
    assert all(committed(path.stem) for path in CORPUS.iterdir())


@pytest.mark.parametrize("name", ["person", "into", "source"])
def test_a_message_about_an_id_that_no_event_can_have_is_refused(name: str) -> None:
    """Ids come to rest in profiles, so what bounds them in events bounds them here."""
    good = {"kind": "move", "id": "m", "person": "u1", "at_ms": 1, "into": "u2", "source": "x", "by": "alias"}
    assert messages.decode(orjson.dumps(good | {name: "x" * MAX_ID_CHARACTERS})) is not None
    assert messages.decode(orjson.dumps(good | {name: "x" * (MAX_ID_CHARACTERS + 1)})) is None
