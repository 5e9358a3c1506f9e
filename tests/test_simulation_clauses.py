"""Every clause of the protocol is missed by some seed: without it, simulated runs end wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from streams.cache import Cache
from streams.owner import Owner
from streams.partition import Partition
from streams.seams import NOTHING, Changes, Committed, ConflictError, FencedError, Meta
from streams.transport import Fetched
from streams.view import View
from tests.shell_world import FakeStore
from tests.simulated_kafka import Cluster, Journal, SimulatedLog
from tests.simulated_verdict import simulate
from tests.test_shell_clauses import apply_anyway, no_repair, read_anyway

SEEDS = 200  # the clause seen least often needs 70


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


def apply_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """APPLY that looks at n alone: another step of the same number passes for this one."""

    async def apply(self: FakeStore, before: Meta, after: Meta, changes: Changes) -> None:
        def operation() -> None:
            meta = self.redis.meta
            found = meta.n if meta is not None and not meta.state else NOTHING
            if found == after.n:
                return
            if found != before.n:
                raise ConflictError(found)
            self._write(changes)
            self.redis.meta = after

        await self._do("apply", operation)

    monkeypatch.setattr(FakeStore, "apply", apply)


def two_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that somebody else has moved brought to the own step, with nobody fenced."""

    async def mend(self: View, conflict: ConflictError, target: Meta) -> None:
        if conflict.found > target.n:
            raise FencedError
        await self.bring(target, settled=False)

    monkeypatch.setattr(View, "_mend", mend)


def marker_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The marker sent before what its step publishes."""
    monkeypatch.setattr(Cluster, "last", lambda self, order: order)


def any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view rebuilt to a step that is not the changelog's last, with nobody fenced."""
    check = View._check_end

    def anywhere(self: View, target: Meta, end: int, *, settled: bool) -> None:
        with contextlib.suppress(FencedError):
            check(self, target, end, settled=settled)

    monkeypatch.setattr(View, "_check_end", anywhere)


@pytest.mark.parametrize(
    "remove",
    [
        no_fencing,
        fetch_before_init,
        reuse,
        offsets_alone,
        no_marker,
        no_repair,
        apply_anyway,
        read_anyway,
        any_chunk,
        any_wipe,
        torn_is_whole,
        uncommitted,
        any_epoch,
        never_reopened,
        by_the_clock,
        cache_kept,
        ahead_is_mended,
    ],
    ids=lambda remove: remove.__name__,
)
def test_a_clause_removed_is_noticed(
    remove: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some seed ends wrong as soon as one clause is missing; how many it takes is in docs/simulation.md."""
    remove(monkeypatch)
    assert any(simulate(seed)[0] for seed in range(SEEDS))
