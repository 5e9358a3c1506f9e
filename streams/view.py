"""The view of one partition, kept at the owner's step whatever Redis does.

Redis may be away, have forgotten everything, or have fallen back to an older copy; somebody else may have moved the
view. What it lacks is in the changelog, and nothing is ever concluded from its not being there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeVar

from streams import changelog
from streams.metrics import Metrics
from streams.seams import (
    Changes,
    Clock,
    ConflictError,
    FencedError,
    Log,
    Meta,
    RefusedError,
    Store,
    UnavailableError,
    UnknownOutcomeError,
)

FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 1.0
# Half of the changelog's `delete.retention.ms`: what was taken out of it longer ago may be missing from a replay.
REPLAYABLE_MS: Final = 84 * 3_600_000

T = TypeVar("T")


class View:
    """READ, APPLY and what mends the view, for the owner of one partition.

    Every method waits for Redis as long as it takes, and may raise `FencedError` (the view is ahead of us, so we are
    not the owner any more) and `UnknownOutcomeError` (the changelog could not be read).

    Parameters
    ----------
    partition
        Its number.
    replayed_people
        How many people a rebuild collects from the changelog before it writes them: whoever comes often in it is then
        written once rather than in each chunk.
    """

    def __init__(
        self, partition: int, log: Log, store: Store, clock: Clock, metrics: Metrics, replayed_people: int
    ) -> None:
        self._partition = partition
        self._replayed_people = replayed_people
        self._log = log
        self._store = store
        self._clock = clock
        self._behind = metrics.view_behind_steps.labels(str(partition))

    async def meta(self) -> Meta | None:
        """Where it is."""
        return await self._answered(self._store.meta)

    async def read(self, at: Meta, people: Sequence[str]) -> tuple[list[bytes | None], list[bytes | None]]:
        """READ: rows and profiles of people at a step; None: that step knows nothing of them."""
        return await self._at(at, lambda: self._store.read(at.n, people))

    async def due(self, at: Meta) -> dict[str, int]:
        """All timers pending at a step."""
        return await self._at(at, lambda: self._store.due(at.n))

    async def apply(self, before: Meta, after: Meta, changes: Changes) -> None:
        """APPLY one step."""
        try:
            await self._answered(lambda: self._store.apply(before, after, changes))
        except ConflictError as conflict:
            await self._mend(conflict, after)  # to the step itself, so that nothing is left to apply
        self._behind.set(0)

    async def bring(self, target: Meta, *, settled: bool) -> None:
        """Bring it to a committed step: replay the changelog from where it is, or wipe and rebuild it.

        Parameters
        ----------
        settled
            We have just become the owner: a view ahead of us is wrong, and the changelog's end is final.

        Raises
        ------
        RefusedError
            The changelog is not the one the step belongs to.
        """
        retry_s = FIRST_RETRY_S
        while True:
            seen = await self.meta()
            if seen is not None and not seen.state and (seen.n, seen.d) == (target.n, target.d):
                break
            if seen is not None and seen.n > target.n and not settled:
                raise FencedError(f"the view is at step {seen.n}, we are at {target.n}")
            self._behind.set(target.n - max(0, min(seen.n, target.n)) if seen is not None else target.n)
            try:
                await self._rebuild(seen, target, settled=settled)
            except ConflictError:
                # Somebody else is at it. If that is a newer owner, our next transaction fails; if an older one, it
                # stops at its own next write.
                await self._clock.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
        self._behind.set(0)

    async def _rebuild(self, seen: Meta | None, target: Meta, *, settled: bool) -> None:
        """Once, from what was seen; a request that is repeated after a lost answer conflicts with itself."""
        first, end = await self._log.bounds()
        self._check_end(target, end, settled=settled)
        if seen is not None and self._continuable(seen, target, first):
            d = seen.d
        else:
            d = first
            await self._answered(lambda: self._store.wipe(seen, first))
        async with aclosing(self._log.changelog(d, target.d)) as chunks:
            images: dict[str, changelog.Image] = {}
            async for entries, position in chunks:
                images |= changelog.latest(entry for entry in entries if entry.offset < target.d)
                if len(images) >= self._replayed_people or position >= target.d:
                    after = min(position, target.d)
                    await self._replay(d, after, changelog.changes(images))
                    d, images = after, {}
        await self._answered(lambda: self._store.seal(d, target))

    def _check_end(self, target: Meta, end: int, *, settled: bool) -> None:
        if target.d > end:
            if settled:
                raise RefusedError(
                    f"partition {self._partition}: the changelog ends at {end}, but step {target.n} was committed at"
                    f" {target.d}; it was truncated or created anew. Restore the topic, or start anew with another"
                    " DECISIONING_TOPIC_PREFIX and DECISIONING_GROUP"
                )
            # Right after a commit its end mark may be missing for some milliseconds: START waits for it.
            raise UnknownOutcomeError(f"the changelog ends at {end}, step {target.n} at {target.d}")
        if target.d < end and not self._log.transactional:
            # Compaction may have taken what somebody was then. What a fenced owner leaves like that, the next one
            # completes; here somebody else has gone on, and nobody is fenced.
            raise FencedError(f"the changelog ends at {end}, so it cannot be replayed up to {target.d} only")

    async def _replay(self, d: int, after: int, changes: Changes) -> None:
        at_ms = self._clock.now_ms()
        await self._answered(lambda: self._store.replay(d, after, changes, at_ms))

    def _continuable(self, seen: Meta, target: Meta, first: int) -> bool:
        """Whether replaying from where the view is gives what a rebuild gives."""
        if seen.state == "torn" or seen.n > target.n or not first <= seen.d <= target.d:
            return False
        return seen.state == "replay" or self._clock.now_ms() - seen.at_ms < REPLAYABLE_MS

    async def _mend(self, conflict: ConflictError, target: Meta) -> None:
        """It is not where it should be: behind, it is brought forward; ahead, somebody else owns it.

        Without transactions somebody else may own it all the same, and have taken the same step with other records:
        only START, which goes on from the view, makes one history of the two.
        """
        if conflict.found > target.n or not self._log.transactional:
            raise FencedError(f"the view is at step {conflict.found}, we are at {target.n}")
        await self.bring(target, settled=False)

    async def _at(self, at: Meta, request: Callable[[], Awaitable[T]]) -> T:
        """What Redis answers at a step, brought there if need be."""
        while True:
            try:
                return await self._answered(request)
            except ConflictError as conflict:
                await self._mend(conflict, at)

    async def _answered(self, request: Callable[[], Awaitable[T]]) -> T:
        """Ask until Redis answers: nothing can be done without it, and all requests may be repeated."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                return await request()
            except UnavailableError:
                await self._clock.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
