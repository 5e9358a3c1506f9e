"""Runs a seed and says what is wrong with how it ended; nothing, if all is well."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
import structlog

from decisioning.localtime import to_ms
from features.rows import decode
from streams.seams import INPUTS
from tests import simulated_leniently
from tests.simulated_expected import unexpected
from tests.simulated_forgotten import nothing_is_left_of_the_erased, the_idle_are_forgotten
from tests.simulated_loop import Jumping
from tests.simulated_replay import differences
from tests.simulated_taken import message_of, repeated_stories, skipped_stories, taken_in
from tests.simulated_work import AGAIN_MS
from tests.simulation import World

REPLAYED = 4  # every so many seeds: a replay costs a third of what a run costs


def simulate(seed: int) -> tuple[list[str], str]:
    """Run a seed.

    Returns
    -------
    (list, str)
        What is wrong, and a digest of everything that happened.
    """
    loop = Jumping()
    world = World(seed, loop)
    with _quiet():
        loop.run(world.run())
    troubles = world.troubles + [
        wrong for check in (CHECKS if world.transactional else simulated_leniently.CHECKS) for wrong in check(world)
    ]
    world.note(sorted(_outputs(world, "decision-log")), troubles)
    return troubles, world.digest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Owners log what happens to them; here that is what the run is for."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    collecting = gc.isenabled()
    gc.disable()  # the moment of a collection is not the seed's to say
    try:
        yield
    finally:
        structlog.configure(**before)
        if collecting:
            gc.enable()


def at_ms(when: str) -> int:
    """Milliseconds since the epoch of a time in a record."""
    return to_ms(datetime.fromisoformat(when))


def _outputs(world: World, topic: str) -> list[bytes]:
    return [record.value for commit in world.kafka.commits for name, record in commit.published if name == topic]


def _each_trigger_once(world: World) -> Iterator[str]:
    """Exactly one line in the log for each trigger, and an outcome that it may have."""
    found: dict[str, list[dict[str, Any]]] = {}
    for value in _outputs(world, "decision-log"):
        line = orjson.loads(value)
        if line["campaign"] not in {None, "hello-again"}:
            found.setdefault(line["trigger"]["message_id"], []).append(line)
    skipped, repeated = skipped_stories(world), repeated_stories(world)
    for message_id, expected in world.work.triggers.items():
        lines, story = found.pop(message_id, []), world.work.stories[message_id]
        if not lines and "unheard" in expected.outcomes:
            continue
        if len(lines) != 1 and not (lines and story in repeated) and (lines or story not in skipped):
            yield f"trigger {message_id}: {len(lines)} lines in the log"
        if story not in skipped:
            yield from (f"trigger {message_id}: {wrong}" for line in lines for wrong in unexpected(line, expected))
    yield from (f"{message_id} was no trigger and has {len(lines)} lines" for message_id, lines in found.items())


def _each_hello_followed_up_once(world: World) -> Iterator[str]:
    """Exactly one follow-up of each message sent, due after it; as often as it, where a story was repeated."""
    logged = [orjson.loads(value) for value in _outputs(world, "decision-log")]
    again: dict[str, list[dict[str, Any]]] = {}
    for line in logged:
        if line["campaign"] == "hello-again":
            again.setdefault(line["trigger"]["message_id"], []).append(line)
    sent = Counter(line["decision_id"] for line in logged if line["campaign"] == "hello" and line["action"] == "send")
    for decision_id, times in sent.items():
        lines = again.pop(f"sent:{decision_id}", [])
        if not 1 <= len(lines) <= times:
            yield f"decision {decision_id}: sent {times} times, followed up {len(lines)} times"
        for line in lines:
            if at_ms(line["due_at"]) != at_ms(line["trigger"]["at"]) + AGAIN_MS or (
                line["action"] == "send" and line["decided_at"] < line["due_at"]
            ):
                yield f"decision {decision_id}: followed up at {line['decided_at']}, due {line['due_at']}"
    yield from (f"{message_id} is no message that was sent" for message_id in again)


def _each_erasure_proven_once(world: World) -> Iterator[str]:
    """Exactly one line in the log for each person who was erased."""
    logged = [orjson.loads(value) for value in _outputs(world, "decision-log")]
    proven = Counter(line["user_id"] for line in logged if line["campaign"] is None)
    skipped = skipped_stories(world)
    for person, story in world.work.erased.items():
        if story in skipped:
            proven.setdefault(person, 1)
    if proven != Counter(world.work.erased.keys()):
        yield f"erasures proven {dict(proven)}, asked for {sorted(world.work.erased)}"


def _each_decision_once(world: World) -> Iterator[str]:
    """Each that the log calls sent, and no other, is on `decisions`, as often as there: once, see above."""
    sent = Counter(orjson.loads(value)["decision_id"] for value in _outputs(world, "decisions"))
    logged = [orjson.loads(value) for value in _outputs(world, "decision-log")]
    if sent != Counter(line["decision_id"] for line in logged if line["action"] == "send"):
        yield "decisions and decision-log differ"


def _each_damaged_record_once(world: World) -> Iterator[str]:
    """Exactly one dead letter for each time that a step took in a record that is no event."""
    damaged = set(world.damaged)
    read = Counter(place for place in taken_in(world) if place in damaged)
    letters: Counter[tuple[str, int, int]] = Counter()
    for commit in world.kafka.commits:
        for name, record in commit.published:
            if name == "dead-letters":
                said = {key.rpartition(".")[2]: value.decode() for key, value in record.headers}
                letters[said["topic"], int(said["partition"]), int(said["offset"])] += 1
    if letters != read:
        yield f"dead letters {dict(letters)}, damaged records read {dict(read)}"


def _steps_follow_each_other(world: World) -> Iterator[str]:
    """Step numbers are contiguous, offsets never go back and end where the inputs end."""
    for number in range(world.partitions):
        if any(
            commit.marker is None or commit.offsets is None or commit.marker.offsets != commit.offsets.offsets
            for commit in world.kafka.commits
            if commit.partition == number
        ):
            yield f"partition {number}: a transaction without marker or offsets was committed, or they differ"
        n = 0
        for start, commit in world.kafka.steps(number):
            marker = commit.marker
            assert marker is not None
            if marker.n != n + 1:
                yield f"partition {number}: step {marker.n} after {n}"
            if any(marker.offsets[name] < start[name] for name in INPUTS):
                yield f"partition {number}: step {marker.n}: {marker.offsets} after {start}"
            n = marker.n
        if any(world.unread(name, number) for name in INPUTS):
            yield f"partition {number}: not read to the end, {world.kafka.position(number)}"


def _redis_is_the_fold(world: World) -> Iterator[str]:
    """The view is what the committed changelog says, and the rows know every message once."""
    read = {message_of(world, place) for place in taken_in(world)}
    for number, redis in enumerate(world.redis):
        images = world.kafka.images(number)
        if redis.meta is None or redis.meta.state:
            yield f"partition {number}: the view is {redis.meta}"
        if (
            redis.rows != {person: image.row for person, image in images.items()}
            or redis.profiles != {person: image.profile for person, image in images.items() if image.profile}
            or redis.due != {person: image.due_ms for person, image in images.items() if image.due_ms is not None}
        ):
            yield f"partition {number}: the view is not the fold of the changelog"
        if redis.due:
            yield f"partition {number}: timers left, {redis.due}"
        for person in redis.rows.keys() & (world.work.sent.keys() - world.work.merged):
            count = int(decode(redis.rows[person])["count"])
            if count != len(world.work.sent[person] & read):
                yield f"{person}: {count} messages taken in, {sorted(world.work.sent[person] & read)} were read"


def _rebuilds_are_not_undone(world: World) -> Iterator[str]:
    """What was lost is rebuilt once for each loss: no late request undoes what another rebuilt."""
    for number, redis in enumerate(world.redis):
        if redis.wipes > 1 + world.lost[number]:
            yield f"partition {number}: emptied {redis.wipes} times, Redis lost something {world.lost[number]} times"


def _steps_are_their_replay(world: World) -> Iterator[str]:
    """The engine alone, given the same inputs and the steps that the markers name, comes to the same bytes."""
    if world.seed % REPLAYED:
        return
    for number in range(world.partitions):
        yield from differences(world.kafka, world.engine, number)


CHECKS = (
    _each_trigger_once,
    _each_hello_followed_up_once,
    _each_erasure_proven_once,
    nothing_is_left_of_the_erased,
    the_idle_are_forgotten,
    _each_decision_once,
    _each_damaged_record_once,
    _steps_follow_each_other,
    _redis_is_the_fold,
    _rebuilds_are_not_undone,
    _steps_are_their_replay,
)
