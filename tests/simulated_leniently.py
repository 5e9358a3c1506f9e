"""What must hold without transactions: nothing is lost, and what comes twice comes around a failure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from features.rows import decode
from streams.seams import INPUTS
from tests.simulated_expected import unexpected
from tests.simulated_forgotten import nothing_is_left_of_the_erased, the_idle_are_forgotten
from tests.simulation import START_MS, World

BEHIND_S = 1.5  # the clock of a worker
AROUND_S = 30.0  # a process stands still for 15 s at most, a request arrives 12 s late at most


def _published(world: World, topic: str) -> list[tuple[float, dict[str, Any]]]:
    """(seconds, what it says) of each record."""
    return [
        ((commit.at_ms - START_MS) / 1e3, orjson.loads(record.value))
        for commit in world.kafka.commits
        for name, record in commit.published
        if name == topic
    ]


def each_trigger_has_its_outcome(world: World) -> Iterator[str]:
    """At least one line for each trigger, each with an outcome it may have; a decision, if it can only be sent."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for _, line in _published(world, "decision-log"):
        if line["campaign"] is not None:
            lines.setdefault(line["trigger"]["message_id"], []).append(line)
    sent = {decision["trigger"]["message_id"] for _, decision in _published(world, "decisions")}
    for message, expected in world.work.triggers.items():
        if message not in lines and "unheard" not in expected.outcomes:
            yield f"trigger {message}: no line in the log"
        yield from (
            f"trigger {message}: {wrong}" for line in lines.get(message, []) for wrong in unexpected(line, expected)
        )
        if expected.outcomes == {"send"} and message not in sent:
            yield f"trigger {message}: no decision"


def repeats_have_a_reason(world: World) -> Iterator[str]:
    """A decision that comes again does so after a failure."""
    first_s: dict[str, float] = {}
    for at_s, decision in _published(world, "decisions"):
        before_s = first_s.setdefault(decision["decision_id"], at_s)
        if before_s != at_s and not any(
            before_s - AROUND_S <= fault_s <= at_s + BEHIND_S for fault_s in world.faults_s
        ):
            yield f"decision {decision['decision_id']} came at {before_s} and {at_s}, and nothing had failed"


def each_damaged_record_is_kept(world: World) -> Iterator[str]:
    """A dead letter for each record that is no event."""
    letters = set()
    for commit in world.kafka.commits:
        for name, record in commit.published:
            if name == "dead-letters":
                said = {key.rpartition(".")[2]: value.decode() for key, value in record.headers}
                letters.add((said["topic"], int(said["partition"]), int(said["offset"])))
    if letters != set(world.damaged):
        yield f"dead letters {letters}, damaged records {world.damaged}"


def the_view_knows_everybody(world: World) -> Iterator[str]:
    """It is whole, at the inputs' ends, without timers, and took every message in once."""
    for number, redis in enumerate(world.redis):
        if redis.meta is None or redis.meta.state:
            yield f"partition {number}: the view is {redis.meta}"
        if any(world.unread(name, number) for name in INPUTS):
            yield f"partition {number}: not read to the end"
        if redis.due:
            yield f"partition {number}: timers left, {redis.due}"
        for person in redis.rows.keys() & (world.work.sent.keys() - world.work.merged):
            count = int(decode(redis.rows[person])["count"])
            if count != len(world.work.sent[person]):
                yield f"{person}: {count} messages taken in, {len(world.work.sent[person])} were sent"


CHECKS = (
    nothing_is_left_of_the_erased,
    the_idle_are_forgotten,
    each_trigger_has_its_outcome,
    repeats_have_a_reason,
    each_damaged_record_is_kept,
    the_view_knows_everybody,
)
