"""The learner's protocol on fakes: whatever happens on the way, its snapshots are those of an undisturbed fold."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits.snapshot import decode
from streams.learner import POSITION_KEY
from streams.seams import FencedError, RefusedError
from tests.learning_world import POLICIES, School, Topics, example, folded, history
from tests.shell_world import Crash, Faults

RECORDS = history(60, seed=7)


def told(story: Callable[[], Awaitable[None]]) -> None:
    """Run a story."""
    asyncio.run(story())  # type: ignore[arg-type]


def check(school: School, records: list[bytes]) -> None:
    """The latest snapshots are those of a fold of all records; each kept one that of a fold up to its version.

    In transactions each version is published once.
    """
    assert school.snapshots() == folded(records).snapshots()
    assert not school.transactional or len({key for key, _ in school.topics.kept}) == len(school.topics.kept)
    for key, value in school.topics.kept:
        model, _, version = key.rpartition("@")
        assert value == folded(records[: int(version)]).snapshots()[model]


@pytest.mark.parametrize("transactional", [True, False])
@pytest.mark.parametrize("kind", ["before", "after", "lost", "unanswered", "late"])
def test_a_failure_at_any_point_leaves_no_trace(kind: str, *, transactional: bool) -> None:
    """Killed before or after any request, or left without its answer: in the end the same snapshots, to the byte."""

    async def story() -> None:
        for at in itertools.count():
            school = School(Topics(RECORDS), transactional=transactional)
            faults = Faults(at, kind)
            try:
                await school.live(faults)
            except Crash:
                await school.live()
            check(school, RECORDS)
            if faults.count <= at:
                assert {"acquire", "models", "bounds", "append"} <= set(faults.names)
                return

    told(story)


@given(st.integers(0, 2**32), st.lists(st.integers(1, 30), max_size=6))
def test_any_number_of_deaths_anywhere(seed: int, deaths: list[int]) -> None:
    """However often it dies, and wherever in any log: the same snapshots, to the byte."""
    records = history(50, seed)

    async def story() -> None:
        school = School(Topics(records))
        for death in deaths:
            try:
                await school.live(Faults(death, "before" if death % 2 else "after"))
            except Crash:
                continue
        await school.live()
        check(school, records)

    told(story)


def test_a_second_learner_fences_the_first() -> None:
    """Who was taken for dead and comes back can neither publish what it had begun nor begin anew."""

    async def story() -> None:
        school = School(Topics(RECORDS))
        first, second = school.learning(), school.learning()
        await first.start()
        first.fold(school.topics.examples[:30], 30)
        await second.start()
        with pytest.raises(FencedError):
            await first.publish()
        assert school.snapshots() == {}
        while await school.read(second):
            pass
        check(school, RECORDS)

    told(story)


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"schema":99}', b"\xff\xfe", b"x" * 5_000_000])
def test_a_damaged_snapshot_is_learned_again(damage: bytes) -> None:
    """The last kept one that can be read counts, and what it had not seen is learned again: the same bytes as ever."""

    async def story() -> None:
        school = School(Topics(RECORDS))
        await school.live()
        right = school.snapshots()
        school.topics.models[POLICIES[0]] = damage or b"no"
        last = [key for key, _ in school.topics.kept if key.startswith(POLICIES[0])][-1]
        school.topics.kept = [(key, damage if key == last else value) for key, value in school.topics.kept]
        await school.live()
        assert school.snapshots() == right
        assert school.metrics.snapshots_refused.labels("learner")._value.get() == 1

    told(story)


def test_a_damaged_snapshot_is_mended() -> None:
    """Also where nothing has to be learned again: whoever reads `models` next finds a good one."""

    async def story() -> None:
        school = School(Topics(RECORDS))
        await school.live()
        right = school.snapshots()
        school.topics.models[POLICIES[0]] = b"no"
        await school.live()
        assert school.snapshots() == right

    told(story)


def test_a_damaged_snapshot_without_history_is_learned_from_the_beginning() -> None:
    """Nothing is kept of it that can be read: all examples are folded again, and no other model sees one twice."""

    async def story() -> None:
        school = School(Topics(RECORDS))
        await school.live()
        right = school.snapshots()
        school.topics.models[POLICIES[0]] = b"no"
        school.topics.kept.clear()
        await school.live()
        assert school.snapshots() == right

    told(story)


def test_publishing_is_rare_and_only_of_news() -> None:
    """At most once a second while examples come; nothing without them; only the models that changed."""

    async def story() -> None:
        school = School(Topics([example(n, "cart/subject", "plain") for n in range(50)]))
        learning = school.learning()
        await learning.start()
        assert learning.wait_s() is None
        times = []
        for start in range(0, 50, 5):
            learning.fold(school.topics.examples[start : start + 5], start + 5)
            if learning.wait_s() == 0.0:
                await learning.publish()
                times.append(school.clock.ms)
            school.clock.ms += 300
        assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 1000
        assert len(times) == 3
        assert set(school.snapshots()) == {"cart/subject"}
        await learning.publish()
        assert decode(school.snapshots()["cart/subject"]).version == 50
        assert learning.wait_s() is None

    told(story)


def test_examples_are_counted() -> None:
    """Learned ones, and refused ones by reason, each once."""

    async def story() -> None:
        few = [*[example(n, "cart/subject", "plain") for n in range(4)], b"no", example(5, "x/y", "z")]
        school = School(Topics([*few, *[example(n, "cart/subject", "plain") for n in range(6, 20)]]))
        await school.live()
        assert school.metrics.examples_learned._value.get() == 18
        assert school.metrics.examples_refused.labels("unknown_policy")._value.get() == 1

    told(story)


def test_examples_made_anew_are_refused() -> None:
    """Models that have seen more than there is belong to another topic: one line with the remedy."""

    async def story() -> None:
        school = School(Topics(RECORDS))
        await school.live()
        school.topics.examples = school.topics.examples[:5]
        with pytest.raises(RefusedError, match="made anew"):
            await school.learning().start()
        school.topics.models[POSITION_KEY.decode()] = b"?"
        with pytest.raises(RefusedError, match="position"):
            await school.learning().start()

    told(story)
