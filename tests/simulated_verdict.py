"""Runs a seed and says what is wrong with how it ended; nothing, if all is well."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Iterator

import orjson
import structlog

from decisioning.localtime import iso
from features.rows import decode
from streams.seams import INPUTS
from tests.simulated_loop import Jumping
from tests.simulated_replay import differences
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
    troubles = world.troubles + [wrong for check in CHECKS for wrong in check(world)]
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


def _outputs(world: World, topic: str) -> list[bytes]:
    return [record.value for commit in world.kafka.commits for name, record in commit.published if name == topic]


def _each_trigger_once(world: World) -> Iterator[str]:
    """Exactly one line in the log for each trigger, and an outcome that it may have."""
    found: dict[str, list[dict[str, object]]] = {}
    for value in _outputs(world, "decision-log"):
        line = orjson.loads(value)
        if line["campaign"] is not None:
            found.setdefault(line["trigger"]["message_id"], []).append(line)
    for message_id, expected in world.work.triggers.items():
        lines = found.pop(message_id, [])
        if len(lines) != 1:
            yield f"trigger {message_id}: {len(lines)} lines in the log"
            continue
        line = lines[0]
        reasons = line["reasons"]
        assert isinstance(reasons, list)
        outcome = "send" if line["action"] == "send" else reasons[0]
        if outcome not in expected.outcomes and expected.outcomes.isdisjoint(_by_channel(line)):
            yield f"trigger {message_id}: {outcome}, expected {sorted(expected.outcomes)}"
        if outcome != "cancelled" and line["due_at"] not in {iso(due_ms) for due_ms in expected.due_ms}:
            yield f"trigger {message_id}: due {line['due_at']}, expected {[iso(ms) for ms in expected.due_ms]}"
        if outcome == "send" and str(line["decided_at"]) < str(line["due_at"]):
            yield f"trigger {message_id}: due {line['due_at']}, decided {line['decided_at']}"
    yield from (f"{message_id} was no trigger and has {len(lines)} lines" for message_id, lines in found.items())


def _each_erasure_proven_once(world: World) -> Iterator[str]:
    """Exactly one line in the log for each person who was erased."""
    logged = [orjson.loads(value) for value in _outputs(world, "decision-log")]
    proven = Counter(line["user_id"] for line in logged if line["campaign"] is None)
    if proven != Counter(world.work.erased):
        yield f"erasures proven {dict(proven)}, asked for {sorted(world.work.erased)}"


def _by_channel(line: dict[str, object]) -> set[str]:
    refused = line["channel_reasons"]
    assert isinstance(refused, dict)
    return {reason for reasons in refused.values() for reason in reasons}


def _each_decision_once(world: World) -> Iterator[str]:
    """No decision twice, and each that the log calls sent, and no other, is on `decisions`."""
    sent = Counter(orjson.loads(value)["decision_id"] for value in _outputs(world, "decisions"))
    yield from (f"decision {decision} published {times} times" for decision, times in sent.items() if times > 1)
    logged = [orjson.loads(value) for value in _outputs(world, "decision-log")]
    if set(sent) != {line["decision_id"] for line in logged if line["action"] == "send"}:
        yield "decisions and decision-log differ"


def _each_damaged_record_once(world: World) -> Iterator[str]:
    """Exactly one dead letter for each record that is no event."""
    letters: Counter[tuple[str, int, int]] = Counter()
    for commit in world.kafka.commits:
        for name, record in commit.published:
            if name == "dead-letters":
                said = {key.rpartition(".")[2]: value.decode() for key, value in record.headers}
                letters[said["topic"], int(said["partition"]), int(said["offset"])] += 1
    if letters != Counter(world.damaged):
        yield f"dead letters {dict(letters)}, damaged records {world.damaged}"


def _steps_follow_each_other(world: World) -> Iterator[str]:
    """Step numbers are contiguous, offsets never go back and end where the inputs end."""
    for number in range(world.partitions):
        n, offsets = 0, dict.fromkeys(INPUTS, 0)
        for commit in world.kafka.commits:
            if commit.partition != number:
                continue
            marker = commit.marker
            if marker is None or commit.offsets is None:
                yield f"partition {number}: a transaction without marker or offsets was committed"
                continue
            if marker.n != n + 1:
                yield f"partition {number}: step {marker.n} after {n}"
            if marker.offsets != commit.offsets.offsets or any(marker.offsets[name] < offsets[name] for name in INPUTS):
                yield f"partition {number}: step {marker.n}: {commit.offsets.offsets} after {offsets}"
            n, offsets = marker.n, dict(marker.offsets)
        if any(world.unread(name, number) for name in INPUTS):
            yield f"partition {number}: not read to the end, {offsets}"


def _redis_is_the_fold(world: World) -> Iterator[str]:
    """The view is what the committed changelog says, and the rows know every message once."""
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
            if count != len(world.work.sent[person]):
                yield f"{person}: {count} messages taken in, {len(world.work.sent[person])} were sent"


def _steps_are_their_replay(world: World) -> Iterator[str]:
    """The engine alone, given the same inputs and the steps that the markers name, comes to the same bytes."""
    if world.seed % REPLAYED:
        return
    for number in range(world.partitions):
        yield from differences(world.kafka, world.engine, number)


CHECKS = (
    _each_trigger_once,
    _each_erasure_proven_once,
    _each_decision_once,
    _each_damaged_record_once,
    _steps_follow_each_other,
    _redis_is_the_fold,
    _steps_are_their_replay,
)
