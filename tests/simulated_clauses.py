"""The clauses of the protocol, each to be taken out alone, and how many seeds it takes until that shows.

`python -m tests.simulated_clauses` (`make simulate CLAUSES=1`) prints the table of docs/simulation.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from streams.cache import Cache
from streams.owner import Owner
from streams.partition import Partition
from streams.seams import NOTHING, Committed, ConflictError, FencedError, Meta
from streams.transport import Fetched
from streams.view import View
from tests.shell_world import FakeStore
from tests.simulated_kafka import Cluster, Journal, SimulatedLog
from tests.simulated_verdict import simulate
from tests.simulation import AT_LEAST_ONCE
from tests.test_shell_clauses import apply_anyway, no_repair, read_anyway


def no_fencing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers that do not fence each other."""
    monkeypatch.setattr(Cluster, "_check", lambda self, partition, epoch: None)


def fetch_before_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """Committed offsets fetched before the producer is initialised."""
    acquire, committed = SimulatedLog.acquire, SimulatedLog.committed

    async def acquire_late(self: SimulatedLog) -> None:
        self.__dict__["fetched"] = await committed(self)
        await acquire(self)

    async def fetched(self: SimulatedLog) -> Any:
        return self.__dict__["fetched"]

    monkeypatch.setattr(SimulatedLog, "acquire", acquire_late)
    monkeypatch.setattr(SimulatedLog, "committed", fetched)


def reuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer kept after an unknown outcome."""
    acquire = SimulatedLog.acquire

    async def once(self: SimulatedLog) -> None:
        if self._epoch < 0:
            await acquire(self)

    monkeypatch.setattr(SimulatedLog, "acquire", once)


def offsets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets committed outside the transaction, before it ends."""
    add = Cluster.add_offsets

    def at_once(self: Cluster, partition: int, epoch: int, committed: Committed) -> None:
        add(self, partition, epoch, committed)
        self.visible[partition] = committed

    monkeypatch.setattr(Cluster, "add_offsets", at_once)


def no_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired offsets not looked for in the changelog."""
    monkeypatch.setattr(Partition, "_last_marker", lambda self: asyncio.sleep(0))


def any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of the changelog replayed without compare-and-set."""

    def replayed(self: FakeStore, d: int) -> Meta:
        return self.redis.meta or Meta(NOTHING, d, {}, 0, "replay", 0)

    monkeypatch.setattr(FakeStore, "_replayed", replayed)


def any_wipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view emptied whatever has become of it since it was looked at."""
    monkeypatch.setattr(FakeStore, "_as_seen", lambda self, seen: None)


def torn_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that stopped in the middle not noticed at START."""
    meta = FakeStore.meta

    async def whole(self: FakeStore) -> Meta | None:
        seen = await meta(self)
        return replace(seen, state="") if seen is not None and seen.state == "torn" else seen

    monkeypatch.setattr(FakeStore, "meta", whole)


def uncommitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs read past the last stable offset."""
    monkeypatch.setattr(Journal, "stable", lambda self: len(self.slots))


def any_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records taken in that were read for an earlier assignment."""
    put = Owner.put

    def take(self: Owner, name: str, fetched: Fetched) -> None:
        put(self, name, replace(fetched, epoch=self._epoch))

    monkeypatch.setattr(Owner, "put", take)


def never_reopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input whose inbox was full not read on."""
    monkeypatch.setattr(Owner, "_reopen", lambda self: asyncio.sleep(0))


def by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers fired when they are due, whatever lies unread before them."""

    def at_once(self: Owner, offsets: Mapping[str, int]) -> None:
        self._horizon_ms = max(self._horizon_ms, self._clock.now_ms())

    monkeypatch.setattr(Owner, "_advance_horizon", at_once)


def cache_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the owner remembers kept when it starts again."""
    monkeypatch.setattr(Cache, "clear", lambda self: None)


def ahead_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that is ahead taken for a damaged one, not for somebody else's."""

    async def mend(self: View, conflict: ConflictError, target: Meta) -> None:
        await self.bring(target, settled=True)

    monkeypatch.setattr(View, "_mend", mend)


def two_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that somebody else has moved brought to the own step, with nobody fenced."""

    async def mend(self: View, conflict: ConflictError, target: Meta) -> None:
        if conflict.found > target.n:
            raise FencedError
        await self.bring(target, settled=False)

    monkeypatch.setattr(View, "_mend", mend)


def marker_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transactions: the marker sent before what its step publishes."""
    monkeypatch.setattr(Cluster, "last", lambda self, order: order)


def any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view rebuilt to a step that is not the changelog's last, with nobody fenced."""
    check = View._check_end

    def anywhere(self: View, target: Meta, end: int, *, settled: bool) -> None:
        with contextlib.suppress(FencedError):
            check(self, target, end, settled=settled)

    monkeypatch.setattr(View, "_check_end", anywhere)


def gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transactions: a step applied whose records do not follow the last one's."""

    async def append(self: Partition, d: int, *what: Any) -> int:
        return await self._log.append(*what)

    monkeypatch.setattr(Partition, "_append", append)


def any_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transactions: what somebody else has done to the view or the changelog gone on from."""
    two_histories(monkeypatch)
    any_step(monkeypatch)
    gaps(monkeypatch)


def mixed_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transactions: a changelog that goes on behind the view left as it is, by START and between two steps."""
    gaps(monkeypatch)
    monkeypatch.setattr(Partition, "_restate", lambda self: asyncio.sleep(0))


@dataclass(frozen=True)
class Clause:
    """Something the protocol does.

    Attributes
    ----------
    remove
        Takes it out; its docstring says what is left.
    transactional
        Whether it is of use with transactions; else seeds without them are tried.
    """

    remove: Callable[[pytest.MonkeyPatch], None]
    transactional: bool = True

    @property
    def text(self) -> str:
        """What is left without it."""
        return (self.remove.__doc__ or "").rstrip(".")

    def needed(self, most: int) -> int | None:
        """How many seeds it takes until one ends wrong without the clause; None: so many are not enough."""
        seeds = range(most) if self.transactional else range(AT_LEAST_ONCE - 1, most * AT_LEAST_ONCE, AT_LEAST_ONCE)
        with pytest.MonkeyPatch.context() as monkeypatch:
            self.remove(monkeypatch)
            return next((tried for tried, seed in enumerate(seeds, 1) if simulate(seed)[0]), None)


CLAUSES = (
    Clause(no_fencing),
    Clause(fetch_before_init),
    Clause(reuse),
    Clause(offsets_alone),
    Clause(no_marker),
    Clause(no_repair),
    Clause(apply_anyway),
    Clause(read_anyway),
    Clause(any_chunk),
    Clause(any_wipe),
    Clause(torn_is_whole),
    Clause(uncommitted),
    Clause(any_epoch),
    Clause(never_reopened),
    Clause(by_the_clock),
    Clause(cache_kept),
    Clause(ahead_is_mended),
    Clause(marker_first, transactional=False),
    Clause(any_history, transactional=False),
    Clause(mixed_histories, transactional=False),
)
HEAD = ("| what is left without the clause | seeds needed |", "|---|---|")


def main(most: int) -> int:
    """Print the table; returns the exit code."""
    table = [(clause, clause.needed(most)) for clause in CLAUSES]
    rows = [f"| {clause.text} | {tried or f'more than {most}'} |" for clause, tried in table]
    sys.stdout.write("\n".join((*HEAD, *rows, "")))
    return 0 if all(tried for _, tried in table) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
