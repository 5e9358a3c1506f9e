"""Looks through the views of the owned partitions, slowly and for ever, for people who have been idle for too long.

What it reads in Redis is read beside the protocol and only ever a hint: the step that is given somebody looks again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from decisioning import profile as profiles
from decisioning.profile import CorruptProfile
from decisioning.retention import is_idle
from features.rows import MOVED, CorruptRow, decode_many
from streams.owner import Owner
from streams.seams import Clock, UnavailableError
from streams.store import RedisStore

# People looked at in a turn: a millisecond of Redis's time. A million take half an hour.
AT_ONCE: Final = 500
INTERVAL_S: Final = 1.0


class Sweep:
    """Proposes idle people to the owners of their partitions.

    Parameters
    ----------
    owners
        Gives the owners there are now, by partition.
    store
        Gives the view of a partition.
    keep_ms
        How long an idle person is kept.
    """

    def __init__(
        self,
        owners: Callable[[], Mapping[int, Owner]],
        store: Callable[[int], RedisStore],
        clock: Clock,
        keep_ms: int,
    ) -> None:
        self._owners = owners
        self._store = store
        self._clock = clock
        self._keep_ms = keep_ms
        self._number = -1
        self._cursor = 0

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL_S)
            await self.turn()

    async def turn(self) -> None:
        """Look at some people of one partition: on with the last one, or the next after its end."""
        owners = self._owners()
        owned = sorted(number for number, owner in owners.items() if owner.ready)
        if not owned:
            return
        if self._cursor == 0 or self._number not in owned:
            self._number, self._cursor = next((n for n in owned if n > self._number), owned[0]), 0
        store = self._store(self._number)
        try:
            self._cursor, rows = await store.some_rows(self._cursor, AT_ONCE)
            silent = self._silent(rows)
            kept = await store.their_profiles(list(silent))
        except UnavailableError:
            return  # it will be asked again; that it is away is said elsewhere
        before_ms = self._clock.now_ms() - self._keep_ms
        people = [
            key.decode()
            for (key, row), profile in zip(silent.items(), kept, strict=True)
            if _is_idle(row, profile, before_ms)
        ]
        if people:
            owners[self._number].expire(people)

    def _silent(self, rows: Mapping[bytes, bytes]) -> dict[bytes, Any]:
        """Rows of those whose row has not heard of them lately."""
        try:
            decoded = decode_many(list(rows.values()))
        except CorruptRow:
            return {}  # for the owner to notice, when it needs it
        before_ms = self._clock.now_ms() - self._keep_ms
        silent = (decoded["at_ms"] < before_ms) & (decoded["flags"] & MOVED == 0)
        return {key: row for key, row, is_silent in zip(rows, decoded, silent.tolist(), strict=True) if is_silent}


def _is_idle(row: Any, profile: bytes | None, before_ms: int) -> bool:
    try:
        return is_idle(row, profiles.decode(profile), before_ms)
    except CorruptProfile:
        return False
