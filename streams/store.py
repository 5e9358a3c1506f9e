"""Redis as the materialised view of a partition, advanced by compare-and-set.

Four keys per partition, all in one slot of a cluster: `<prefix><group>:{p}:meta | rows | profiles | due`.
Every change is one Lua script that first looks where the view is. So requests may be repeated or arrive late,
an owner that was paused cannot undo the work of the next one, and whatever Redis forgets is noticed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from streams.seams import NOTHING, Changes, ConflictError, Meta, UnavailableError

READ_AT_ONCE: Final = 2000  # people a request; Lua hands at most 8,000 values to a command
DUE_AT_ONCE: Final = 10_000
TIMEOUT_S: Final = 5

_offsets = msgspec.json.Decoder(dict[str, int])
_encode = msgspec.json.Encoder().encode


def connect(url: str) -> Redis:
    """Open a client whose errors surface at once: the owner of a partition decides what to do about them.

    Parameters
    ----------
    url
        `redis://`, `rediss://` or `unix://`.
    """
    client: Redis = Redis.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=30,
    )
    return client


class Scripts:
    """The Lua scripts, once per client."""

    def __init__(self, client: Redis) -> None:
        folder = files("streams") / "lua"
        shared = (folder / "view.lua").read_text()

        def script(name: str) -> Any:
            return client.register_script(shared + (folder / f"{name}.lua").read_text())

        self.client = client
        self.read = script("read")
        self.due = script("due")
        self.apply = script("apply")
        self.wipe = script("wipe")
        self.replay = script("replay")
        self.seal = script("seal")


class RedisStore:
    """The view of one partition.

    Parameters
    ----------
    scripts
        Shared by all partitions of a worker.
    namespace
        Topic prefix and group.
    partition
        Its number.
    """

    def __init__(self, scripts: Scripts, namespace: str, partition: int) -> None:
        self._scripts = scripts
        self.keys = [f"{namespace}:{{{partition}}}:{name}" for name in ("meta", "rows", "profiles", "due")]

    async def meta(self) -> Meta | None:
        """Where the view is; None: there is none."""
        fields: Mapping[bytes, bytes] = await _asked(lambda: self._scripts.client.hgetall(self.keys[0]))
        if not fields:
            return None
        return Meta(
            n=int(fields.get(b"n", NOTHING)),
            d=int(fields.get(b"d", NOTHING)),
            offsets=_offsets.decode(fields.get(b"offsets", b"{}")),
            partitions=int(fields.get(b"partitions", 0)),
            state=fields[b"state"].decode() if b"state" in fields else "torn",
            at_ms=int(fields.get(b"at_ms", 0)),
        )

    async def read(self, n: int, people: Sequence[str]) -> tuple[list[bytes | None], list[bytes | None]]:
        """See `seams.Store`."""
        rows: list[bytes | None] = []
        profiles: list[bytes | None] = []
        for start in range(0, len(people), READ_AT_ONCE):
            part = people[start : start + READ_AT_ONCE]
            some_rows, some_profiles = await self._run(
                self._scripts.read, [n, *_list([person.encode() for person in part])]
            )
            rows += some_rows
            profiles += some_profiles
        return rows, profiles

    async def some_rows(self, cursor: int, most: int) -> tuple[int, dict[bytes, bytes]]:
        """Go on through all rows from a cursor (0: the beginning, and the end); beside the protocol, at no step."""
        found: tuple[int, dict[bytes, bytes]]
        found = await _asked(lambda: self._scripts.client.hscan(self.keys[1], cursor, count=most))
        return found

    async def their_profiles(self, people: Sequence[bytes]) -> list[bytes | None]:
        """Profiles of people, likewise at no step."""
        if not people:
            return []
        found: list[bytes | None] = await _asked(lambda: self._scripts.client.hmget(self.keys[2], list(people)))
        return found

    async def due(self, n: int) -> dict[str, int]:
        """See `seams.Store`."""
        due: dict[str, int] = {}
        start = 0
        while True:
            (page,) = await self._run(self._scripts.due, [n, start, start + DUE_AT_ONCE - 1])
            due.update({page[i].decode(): int(float(page[i + 1])) for i in range(0, len(page), 2)})
            if len(page) < 2 * DUE_AT_ONCE:
                return due
            start += DUE_AT_ONCE

    async def apply(self, before: Meta, after: Meta, changes: Changes) -> None:
        """See `seams.Store`."""
        place = [before.n, before.d, after.n, after.d, _encode(after.offsets), after.partitions, after.at_ms]
        await self._run(self._scripts.apply, [*place, *_runs(changes)])

    async def wipe(self, seen: Meta | None, d: int) -> None:
        """See `seams.Store`."""
        expected = [seen.n, seen.d, seen.state] if seen else [NOTHING, NOTHING, "none"]
        await self._run(self._scripts.wipe, [*expected, d])

    async def replay(self, d: int, d_after: int, changes: Changes, at_ms: int) -> None:
        """See `seams.Store`."""
        await self._run(self._scripts.replay, [d, d_after, at_ms, *_runs(changes)])

    async def seal(self, d: int, meta: Meta) -> None:
        """See `seams.Store`."""
        place = [d, meta.n, meta.d, _encode(meta.offsets), meta.partitions, meta.at_ms]
        await self._run(self._scripts.seal, place)

    async def _run(self, script: Any, args: list[Any]) -> list[Any]:
        """Run a script on this partition's keys; returns what follows its verdict."""
        verdict: int
        rest: list[Any]
        verdict, *rest = await _asked(lambda: script(keys=self.keys, args=args))
        if verdict != 0:
            raise ConflictError(int(rest[0]))
        return rest


async def _asked(request: Callable[[], Any]) -> Any:
    """Await a request to Redis; all that waiting can mend is `UnavailableError`."""
    try:
        return await request()
    except (OutOfMemoryError, ReadOnlyError) as error:
        raise UnavailableError(str(error)) from error
    except ResponseError as error:
        # A write refused for want of memory inside a script comes as a plain error with the code in its text.
        if any(
            code in str(error)
            for code in ("OOM", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS")
        ):
            raise UnavailableError(str(error)) from error
        raise
    except (RedisError, OSError, TimeoutError) as error:
        raise UnavailableError(f"{type(error).__name__}: {error}") from error


def _runs(changes: Changes) -> list[bytes]:
    """What the scripts write; see `view.lua`."""
    rows = [part for person, row in zip(changes.people, changes.rows, strict=True) for part in (person.encode(), row)]
    kept = [part for person, profile in changes.profiles.items() if profile for part in (person.encode(), profile)]
    gone = [person.encode() for person, profile in changes.profiles.items() if not profile]
    due = [
        part
        for person, due_ms in changes.due.items()
        if due_ms is not None
        for part in (b"%d" % due_ms, person.encode())
    ]
    undue = [person.encode() for person, due_ms in changes.due.items() if due_ms is None]
    return [part for run in (rows, kept, gone, due, undue) for part in _list(run)]


def _list(items: Sequence[bytes]) -> tuple[bytes, bytes]:
    """A list as the scripts take it: the sizes, and the items."""
    return struct.pack(f"<{len(items)}I", *map(len, items)), b"".join(items)
