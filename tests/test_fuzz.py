"""The short fuzzing: every input that once was a finding, then seeded mutations; `make fuzz` goes on from there."""

from __future__ import annotations

import itertools
import random

import orjson
import pytest

from decisioning import messages
from decisioning.partitioner import partition_of
from decisioning.profile import MAX_TIMERS_BYTES
from decisioning.reading import MAX_ID_CHARACTERS
from tests.fuzz.seeds import CORPUS, committed, mutated, seeds
from tests.fuzz.targets import TARGETS, Line, World, usual_engine
from tests.play import identify, track

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


def test_a_person_made_as_large_as_events_can_fits_into_a_record() -> None:
    """Ids of 2 KB, all traits, timers, marks and aliases there may be: the image and the merge stay below 1 MB."""
    wide = "\U0001f600" * 500
    ids = (f"{wide}{number}" for number in itertools.count())
    home = {0: next(i for i in ids if partition_of(i, 2) == 0), 1: next(i for i in ids if partition_of(i, 2) == 1)}
    traits = {f"{wide[:120]}{number}": "x" * 1_000 for number in range(128)}
    bought = {**track("+1d 10:04", f"{wide}!", "Order Completed", home[0]), "timestamp": "2026-03-03T10:04:00Z"}
    history = [
        identify("10:00", "traits", home[0], traits=traits),
        *(identify("10:00", f"i{n}", home[0], traits={}, anonymousId=f"{wide}a{n}") for n in range(80)),
        *(track("22:00", f"t{n}", user=home[0], properties={"cart_id": n, "price": 5}) for n in range(200)),
        bought,
        *({**bought, "messageId": f"{wide}{n}", "properties": {"cart_id": wide[:250]}} for n in range(64)),
        {**track("22:10", "alias", user=home[1]), "type": "alias", "previousId": home[0]},
    ]
    world = World(usual_engine())
    for event in history:
        world.step(partition_of(event["userId"], 2), [Line(orjson.dumps(event))])
        world.settle()
    assert max(map(len, world.memories[1].profiles.values())) > MAX_TIMERS_BYTES
