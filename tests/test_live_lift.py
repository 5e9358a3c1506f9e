"""The live lift beside the learner: whatever happens on the way, it is that of an undisturbed fold, and is shown."""

from __future__ import annotations

import asyncio
import itertools
import random

import orjson
import pytest

from bandits.lift_fold import LiftFold
from streams.learner import Learning
from streams.live_lift import INTERVAL_S, LIFT
from streams.seams import FencedError, UnknownOutcomeError
from tests.learning_world import School, Topics, example, history
from tests.shell_world import Crash, Faults


def records(count: int, seed: int) -> list[bytes]:
    """Treatment and holdout of two campaigns, outcomes, and records about other choices or about nothing."""
    chance, found = random.Random(seed), list(history(count // 3, seed))
    for number in range(count):
        arm = chance.choice(("treatment", "holdout"))
        for policy in ("cart/holdout", "gone/holdout"):
            found.append(example(number, policy, arm))
            if chance.random() < 0.4:
                found.append(example(number, policy, arm, 1.0 + chance.random(), late=True))
    chance.shuffle(found)
    return [*found, b'{"policy": "cart/holdout"}', b'["cart/holdout"]', b'x"cart/holdout"']


RECORDS = records(18, 3)


def lift(learning: Learning) -> bytes:
    """All it knows."""
    return learning._lift._fold.to_bytes()


def undisturbed(some: list[bytes]) -> bytes:
    """What is known without any interruption."""
    fold = LiftFold()
    for offset, value in enumerate(some):
        try:
            record = orjson.loads(value)
        except orjson.JSONDecodeError:
            continue
        if isinstance(record, dict):
            fold.take(record, offset)
    return fold.to_bytes()


async def slowly(school: School, faults: Faults | None = None) -> Learning:
    """Learn everything, so slowly that the lift is published on the way."""
    learning = school.learning(faults)
    while True:
        try:
            await learning.start()
            while await school.read(learning):
                school.clock.ms += round(400 * INTERVAL_S)
        except (UnknownOutcomeError, FencedError):
            continue
        return learning


@pytest.mark.parametrize("transactional", [True, False])
@pytest.mark.parametrize("kind", ["before", "after", "unanswered"])
def test_a_failure_at_any_point_counts_nothing_twice_and_loses_nothing(kind: str, *, transactional: bool) -> None:
    """Killed before or after any request, or left without its answer: in the end the same lift, to the byte."""

    async def story() -> None:
        for at in itertools.count():
            school = School(Topics(RECORDS), transactional=transactional)
            faults = Faults(at, kind)
            try:
                learning = await slowly(school, faults)
            except Crash:
                learning = await slowly(school)
            assert lift(learning) == undisturbed(RECORDS)
            assert any(key.startswith(LIFT) for key in school.topics.models)
            assert lift(await slowly(school)) == undisturbed(RECORDS)
            if faults.count <= at:
                return

    asyncio.run(story())


def test_a_damaged_lift_is_counted_again() -> None:
    """From the beginning of the log; models pass over what they have seen."""

    async def story() -> None:
        school = School(Topics(RECORDS))
        await slowly(school)
        school.topics.models[f"{LIFT}cart"] = b"no"
        right = {name: value for name, value in school.snapshots().items() if not name.startswith(LIFT)}
        learning = await slowly(school)
        assert lift(learning) == undisturbed(RECORDS)
        assert {name: value for name, value in school.snapshots().items() if not name.startswith(LIFT)} == right
        assert school.metrics.snapshots_refused.labels("learner")._value.get() == 1

    asyncio.run(story())


def test_it_is_shown_while_one_learns_and_no_longer() -> None:
    """Low, mid and high of each campaign, also after a take-over that finds nothing new."""

    async def story() -> None:
        school = School(Topics(RECORDS))
        await slowly(school)
        fold = LiftFold.from_bytes(undisturbed(RECORDS))
        school.metrics.lift.clear()
        second = await slowly(school)
        shown = {
            (sample.labels["campaign"], sample.labels["bound"]): sample.value
            for family in school.metrics.lift.collect()
            for sample in family.samples
        }
        bounds = fold.bounds("cart")
        assert shown["cart", "low"] == bounds.low
        assert shown["cart", "mid"] == bounds.mid
        assert shown["cart", "high"] == bounds.high
        assert school.metrics.lift_mismatch.labels("cart")._value.get() == fold.mismatch("cart")
        await second.release()
        assert not [sample for family in school.metrics.lift.collect() for sample in family.samples]

    asyncio.run(story())
