"""Kafka as the owner of a partition sees it: a thin seam over aiokafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from decisioning.effects import Outgoing
from streams.producer import REQUEST_TIMEOUT_S, RETRY_BACKOFF_MS, Producer, Publisher, batches_of, send_all, settled
from streams.seams import INPUTS, Committed, Entry, UnknownOutcomeError

SINGLE: Final = frozenset({"examples", "catalog"})  # topics that need not have as many partitions as `events`
CHUNK_RECORDS: Final = 2000
POLL_MS: Final = 100


CommitOffsets = Callable[[Mapping[TopicPartition, OffsetAndMetadata]], Awaitable[None]]


class Cluster:
    """Connections that all partitions of a worker share: reading offsets of the group and of topics.

    Parameters
    ----------
    options
        Arguments of every aiokafka client: addresses and security.
    prefix, group
        Of topics; of consumers.
    """

    def __init__(self, options: Mapping[str, Any], prefix: str, group: str) -> None:
        self.options = dict(options)
        self.prefix = prefix
        self.group = group
        self._admin: AIOKafkaAdminClient | None = None
        self._reader: AIOKafkaConsumer | None = None
        self._open = AsyncExitStack()

    async def start(self) -> None:
        """Connect."""
        timeout_ms = int(REQUEST_TIMEOUT_S * 1000)
        self._admin = AIOKafkaAdminClient(**self.options, request_timeout_ms=timeout_ms)
        self._open.push_async_callback(self._admin.close)
        await settled(self._admin.start())
        self._reader = await self._open.enter_async_context(self.reading())

    async def stop(self) -> None:
        """Disconnect."""
        await self._open.aclose()

    def topic(self, name: str) -> str:
        """Full name of one of our topics."""
        return self.prefix + name

    @asynccontextmanager
    async def reading(self, place: TopicPartition | None = None, start: int = 0) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer outside of any group that sees what is committed, and nothing in the place of what is gone.

        Parameters
        ----------
        place, start
            What it is to read, and from where.
        """
        reader = AIOKafkaConsumer(
            **self.options,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
            fetch_max_wait_ms=POLL_MS,
            retry_backoff_ms=RETRY_BACKOFF_MS,
        )
        try:
            await settled(reader.start())
            if place is not None:
                reader.assign([place])
                reader.seek(place, start)
            yield reader
        finally:
            await asyncio.sleep(0)  # stopping it before its tasks have run raises CancelledError
            await reader.stop()

    async def records(self, place: TopicPartition, start: int, end: int) -> AsyncGenerator[tuple[list[Any], int], None]:
        """What was committed to a partition from start on, in chunks with the position after each, until past end."""
        async with self.reading(place, start) as reader:
            position, idle = start, 0
            while position < end:
                request = reader.getmany(place, timeout_ms=POLL_MS, max_records=CHUNK_RECORDS)
                records = (await settled(request)).get(place, [])
                after = await settled(reader.position(place))
                idle = 0 if after > position else idle + 1
                if idle * POLL_MS > REQUEST_TIMEOUT_S * 1000:
                    raise UnknownOutcomeError(f"{place.topic} does not go on at {position}, expected up to {end}")
                if after > position:
                    position = after
                    yield records, position

    async def partitions(self) -> dict[str, int]:
        """All topics there are and their numbers of partitions; naming one could create it."""
        assert self._admin is not None
        topics = await settled(self._admin.describe_topics())
        return {topic["topic"]: len(topic["partitions"]) for topic in topics}

    async def committed(self, partition: int) -> Committed:
        """The group's offsets of all inputs of one partition."""
        assert self._admin is not None
        inputs = {TopicPartition(self.topic(name), partition): name for name in INPUTS}
        found = await settled(self._admin.list_consumer_group_offsets(self.group, partitions=list(inputs)))
        known = {inputs[place]: offset for place, offset in found.items() if offset.offset >= 0}
        metadata = {offset.metadata for offset in known.values()}
        return Committed(
            {name: offset.offset for name, offset in known.items()}, metadata.pop() if len(metadata) == 1 else ""
        )

    async def first_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where topics begin."""
        assert self._reader is not None
        return dict(await settled(self._reader.beginning_offsets(list(places))))

    async def stable_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Up to where everything is committed or aborted (the last stable offset)."""
        assert self._reader is not None
        return dict(await settled(self._reader.end_offsets(list(places))))

    async def offset_at(self, place: TopicPartition, at_ms: int) -> int:
        """The first record of that time or later, else the end."""
        assert self._reader is not None
        found = (await settled(self._reader.offsets_for_times({place: at_ms})))[place]
        return (await self.stable_offsets([place]))[place] if found is None else int(found.offset)

    async def ends_of(self, names: Sequence[str]) -> dict[str, int]:
        """Topics of one partition -> where they end."""
        places = {name: TopicPartition(self.topic(name), 0) for name in names}
        ends = await self.stable_offsets(list(places.values()))
        return {name: ends[place] for name, place in places.items()}

    async def follow(self, offsets: Mapping[str, int]) -> AsyncGenerator[tuple[str, list[Entry], int], None]:
        """Read topics of one partition on and on: topic, records, and the position after them.

        Parameters
        ----------
        offsets
            Topic -> where to begin, or the topic's first offset if that is later.
        """
        places = {TopicPartition(self.topic(name), 0): name for name in offsets}
        first = await self.first_offsets(list(places))
        async with self.reading() as reader:
            reader.assign(list(places))
            positions = {place: max(offsets[name], first[place]) for place, name in places.items()}
            for place, position in positions.items():
                reader.seek(place, position)
            while True:
                fetched = await settled(reader.getmany(timeout_ms=POLL_MS, max_records=CHUNK_RECORDS))
                for place, name in places.items():
                    position = await settled(reader.position(place))
                    if position > positions[place]:  # ends of transactions move it without any record
                        positions[place] = position
                        records = fetched.get(place, [])
                        yield name, [Entry(r.offset, r.key or b"", r.value or b"") for r in records], position


class KafkaLog(Publisher):
    """The topics of one partition.

    Parameters
    ----------
    cluster
        Shared connections.
    partition
        Its number.
    commit_offsets
        None: steps are transactions. Otherwise everything is sent at least once, and this commits offsets.
    """

    def __init__(
        self,
        cluster: Cluster,
        partition: int,
        commit_offsets: CommitOffsets | None = None,
    ) -> None:
        transactional_id = None if commit_offsets is not None else f"{cluster.prefix}{cluster.group}-{partition}"
        super().__init__(cluster.options, transactional_id)
        self._cluster = cluster
        self._partition = partition
        self._commit_offsets = commit_offsets
        self._inputs = {name: TopicPartition(cluster.topic(name), partition) for name in INPUTS}
        self._changelog = TopicPartition(cluster.topic("changelog"), partition)

    async def committed(self) -> Committed:
        """See `seams.Log`."""
        return await self._cluster.committed(self._partition)

    async def earliest(self) -> dict[str, int]:
        """See `seams.Log`."""
        first = await self._cluster.first_offsets(list(self._inputs.values()))
        return {name: first[place] for name, place in self._inputs.items()}

    async def bounds(self) -> tuple[int, int]:
        """See `seams.Log`."""
        first = await self._cluster.first_offsets([self._changelog])
        end = await self._cluster.stable_offsets([self._changelog])
        return first[self._changelog], end[self._changelog]

    async def changelog(self, start: int, end: int) -> AsyncGenerator[tuple[list[Entry], int], None]:
        """See `seams.Log`."""
        async with aclosing(self._cluster.records(self._changelog, start, end)) as chunks:
            async for records, position in chunks:
                yield [Entry(record.offset, record.key, record.value) for record in records], position

    async def append(self, changelog: Sequence[tuple[bytes, bytes]], outputs: Mapping[str, Sequence[Outgoing]]) -> int:
        """See `seams.Log`."""
        producer = self._live()
        now_ms = int(time.time() * 1000)
        none: list[Any] = []
        rows = [(key, value, none) for key, value in changelog]
        queues = [(self._changelog, batches_of(producer, rows, now_ms))]
        for name, records in outputs.items():
            for place, some in (await self._placed(producer, name, records)).items():
                parts = [(record.key, record.value, list(record.headers)) for record in some]
                queues.append((place, batches_of(producer, parts, now_ms)))
        last_records: int = queues[0][1][-1].record_count()
        if not self.transactional:  # the marker says that all of its step is there, so it goes last
            await settled(send_all(producer, queues[1:]))
            queues = queues[:1]
        acks = await settled(send_all(producer, queues))
        last_offset: int = acks[0][-1].offset
        if last_offset < 0:
            raise UnknownOutcomeError("the broker took the changelog for a repetition")
        return last_offset + last_records

    async def _placed(
        self, producer: Producer, name: str, records: Sequence[Outgoing]
    ) -> dict[TopicPartition, list[Outgoing]]:
        """Records of a topic by where they go."""
        topic = self._cluster.topic(name)
        partitions = len(await settled(producer.partitions_for(topic)))
        own = 0 if name in SINGLE else self._partition % partitions
        placed: dict[TopicPartition, list[Outgoing]] = {}
        for record in records:
            number = own if record.partition is None else record.partition
            placed.setdefault(TopicPartition(topic, number), []).append(record)
        return placed

    async def offsets(self, offsets: Mapping[str, int], metadata: str) -> None:
        """See `seams.Log`."""
        places = {self._inputs[name]: OffsetAndMetadata(offset, metadata) for name, offset in offsets.items()}
        if self._commit_offsets is not None:
            await self._commit_offsets(places)
            return
        await settled(self._live().send_offsets_to_transaction(places, self._cluster.group))
