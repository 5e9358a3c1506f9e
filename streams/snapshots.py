"""`models` and `model-history` as they are read and written: snapshots of what was learned, by model and version."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from aiokafka import TopicPartition

from decisioning.effects import Outgoing
from streams.kafka import Cluster
from streams.producer import Publisher

EXAMPLES: Final = "examples"
EXAMPLES_PARTITION: Final = 0  # workers write to this one, however many there are
KEPT_VERSIONS: Final = 16  # looked at for one that can be read


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
        latest: dict[str, bytes] = {}
        async with aclosing(whole(self._cluster, "models")) as records:
            async for record in records:
                key = (record.key or b"").decode(errors="replace")
                if record.value:
                    latest[key] = record.value
                else:
                    latest.pop(key, None)
        return latest

    async def history(self, model: str) -> Sequence[bytes]:
        """See `seams.LearnerLog`."""
        found: dict[bytes, bytes] = {}
        async with aclosing(whole(self._cluster, "model-history")) as records:
            async for record in records:
                if (record.key or b"").rpartition(b"@")[0] == model.encode() and record.value:
                    found[record.key] = record.value
                    if len(found) > KEPT_VERSIONS:
                        del found[next(iter(found))]
        return list(found.values())

    async def append(self, topic: str, records: Sequence[Outgoing]) -> None:
        """See `seams.LearnerLog`."""
        await self.send(TopicPartition(self._cluster.topic(topic), 0), records)


async def whole(cluster: Cluster, name: str) -> AsyncGenerator[Any, None]:
    """Every record of a topic of one partition that is committed now."""
    place = TopicPartition(cluster.topic(name), 0)
    first = (await cluster.first_offsets([place]))[place]
    end = (await cluster.stable_offsets([place]))[place]
    async with aclosing(cluster.records(place, first, end)) as chunks:
        async for records, _ in chunks:
            for record in records:
                yield record
