"""`models` and `model-history` as they are read and written: snapshots of what was learned, by model and version."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import TopicPartition

from bandits.snapshot import SnapshotError, decode
from decisioning.effects import Outgoing
from streams.kafka import Cluster
from streams.producer import Publisher

EXAMPLES: Final = "examples"
EXAMPLES_PARTITION: Final = 0  # workers write to this one, however many there are
KEPT_VERSIONS: Final = 16  # looked at for one that can be read
RECENT_MS: Final = 3_600_000  # most snapshots that are used were published just before
INTERNAL: Final = "@"  # begins the keys of `models` that are no model's
PINNED: Final = "@pin:"  # and of the copies that pins keep, so that `model-history` may forget them


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot as it was published; `version` is 0 where only the snapshot itself knows it."""

    version: int
    at_ms: int
    value: bytes


def history_key(model: str, version: int) -> bytes:
    """Key of a snapshot in `model-history`."""
    return f"{model}@{version}".encode()


class SnapshotLog(Publisher):
    """See `seams.LearnerLog`.

    Parameters
    ----------
    transactional
        Without it everything is acknowledged, topic by topic.
    """

    def __init__(self, cluster: Cluster, *, transactional: bool) -> None:
        super().__init__(cluster.options, f"{cluster.prefix}{cluster.group}-learner" if transactional else None)
        self._cluster = cluster

    async def bounds(self) -> tuple[int, int]:
        """See `seams.LearnerLog`."""
        place = TopicPartition(self._cluster.topic(EXAMPLES), EXAMPLES_PARTITION)
        first = await self._cluster.first_offsets([place])
        return first[place], (await self._cluster.stable_offsets([place]))[place]

    async def models(self) -> Mapping[str, bytes]:
        """See `seams.LearnerLog`."""
        return {key: one.value for key, one in (await latest_of(self._cluster)).items()}

    async def history(self, model: str) -> Sequence[bytes]:
        """See `seams.LearnerLog`."""
        last: deque[bytes] = deque(maxlen=KEPT_VERSIONS)
        async with aclosing(kept_versions(self._cluster, model)) as versions:
            async for one in versions:
                last.append(one.value)
        return list(last)

    async def append(self, topic: str, records: Sequence[Outgoing]) -> None:
        """See `seams.LearnerLog`."""
        await self.send(TopicPartition(self._cluster.topic(topic), 0), records)


async def latest_of(cluster: Cluster) -> dict[str, Kept]:
    """Key -> what `models` says of it now; the latest snapshot where the key is a model's."""
    latest: dict[str, Kept] = {}
    async with aclosing(_whole(cluster, "models")) as records:
        async for record in records:
            key = (record.key or b"").decode(errors="replace")
            if record.value:
                latest[key] = Kept(0, record.timestamp, record.value)
            else:
                latest.pop(key, None)
    return latest


async def kept_versions(cluster: Cluster, model: str, since_ms: int = 0) -> AsyncGenerator[Kept, None]:
    """The snapshots of a model that `model-history` keeps, in the order in which they were published since a time."""
    async with aclosing(_whole(cluster, "model-history", since_ms)) as records:
        async for record in records:
            name, _, version = (record.key or b"").decode(errors="replace").rpartition("@")
            if name == model and version.isascii() and version.isdigit() and record.value:
                yield Kept(int(version), record.timestamp, record.value)


async def version_of(cluster: Cluster, model: str, version: int, used_ms: int) -> bytes | None:
    """A snapshot that was in use at a time; None where it is kept no more."""
    if (found := await _kept(cluster, model, version, used_ms - RECENT_MS)) is not None:
        return found
    copy = (await latest_of(cluster)).get(f"{PINNED}{model}")
    if copy is not None:
        with contextlib.suppress(SnapshotError):
            if decode(copy.value).version == version:
                return copy.value
    return await _kept(cluster, model, version, 0)


async def _kept(cluster: Cluster, model: str, version: int, since_ms: int) -> bytes | None:
    async with aclosing(kept_versions(cluster, model, since_ms)) as versions:
        async for one in versions:
            if one.version == version:
                return one.value
    return None


async def _whole(cluster: Cluster, name: str, since_ms: int = 0) -> AsyncGenerator[Any, None]:
    """Every record of a topic of one partition that is committed now."""
    place = TopicPartition(cluster.topic(name), 0)
    first = await cluster.offset_at(place, since_ms) if since_ms else (await cluster.first_offsets([place]))[place]
    end = (await cluster.stable_offsets([place]))[place]
    async with aclosing(cluster.records(place, first, end)) as chunks:
        async for records, _ in chunks:
            for record in records:
                yield record
