"""Kafka as the owner of a partition sees it: a thin seam over aiokafka.

aiokafka repeats requests to the transaction coordinator after a timeout or a broken connection, with the same
producer epoch. A repeated EndTxn that was only late commits the *next* transaction, a repeated TxnOffsetCommit
overwrites the next one's offsets. So here such an error ends the producer; the next one has a higher epoch, and
the broker refuses what is late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    TxnOffsetCommitRequest,
)
from aiokafka.structs import OffsetAndMetadata

from decisioning.effects import Outgoing
from streams.seams import INPUTS, Committed, Entry, FencedError, UnknownOutcomeError

TRANSACTION_TIMEOUT_MS: Final = 10_000
# A request that takes longer is given up: below the transaction's own timeout, so that we notice first.
REQUEST_TIMEOUT_S: Final = 8.0
RETRY_BACKOFF_MS: Final = 20
# Brokers and our topics take batches of 1 MiB; what one record needs beyond is allowed for by the topic.
BATCH_BYTES: Final = 900_000
SINGLE: Final = frozenset({"examples", "catalog"})  # topics that need not have as many partitions as `events`
CHUNK_RECORDS: Final = 2000
POLL_MS: Final = 100

T = TypeVar("T")

_FINAL = (AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, TxnOffsetCommitRequest)


CommitOffsets = Callable[[Mapping[TopicPartition, OffsetAndMetadata]], Awaitable[None]]


class _LostRequestError(Exception):
    """Not a KafkaError, which aiokafka would catch and answer with a repetition."""


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
        await _settled(self._admin.start())
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
            await _settled(reader.start())
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
                records = (await _settled(request)).get(place, [])
                after = await _settled(reader.position(place))
                idle = 0 if after > position else idle + 1
                if idle * POLL_MS > REQUEST_TIMEOUT_S * 1000:
                    raise UnknownOutcomeError(f"{place.topic} does not go on at {position}, expected up to {end}")
                if after > position:
                    position = after
                    yield records, position

    async def partitions(self) -> dict[str, int]:
        """All topics there are and their numbers of partitions; naming one could create it."""
        assert self._admin is not None
        topics = await _settled(self._admin.describe_topics())
        return {topic["topic"]: len(topic["partitions"]) for topic in topics}

    async def committed(self, partition: int) -> Committed:
        """The group's offsets of all inputs of one partition."""
        assert self._admin is not None
        inputs = {TopicPartition(self.topic(name), partition): name for name in INPUTS}
        found = await _settled(self._admin.list_consumer_group_offsets(self.group, partitions=list(inputs)))
        known = {inputs[place]: offset for place, offset in found.items() if offset.offset >= 0}
        metadata = {offset.metadata for offset in known.values()}
        return Committed(
            {name: offset.offset for name, offset in known.items()}, metadata.pop() if len(metadata) == 1 else ""
        )

    async def first_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where topics begin."""
        assert self._reader is not None
        return dict(await _settled(self._reader.beginning_offsets(list(places))))

    async def stable_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Up to where everything is committed or aborted (the last stable offset)."""
        assert self._reader is not None
        return dict(await _settled(self._reader.end_offsets(list(places))))

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
                fetched = await _settled(reader.getmany(timeout_ms=POLL_MS, max_records=CHUNK_RECORDS))
                for place, name in places.items():
                    position = await _settled(reader.position(place))
                    if position > positions[place]:  # ends of transactions move it without any record
                        positions[place] = position
                        records = fetched.get(place, [])
                        yield name, [Entry(r.offset, r.key or b"", r.value or b"") for r in records], position


async def _settled(request: Awaitable[T]) -> T:
    """Await a request, for a bounded time; errors are ours."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            return await request
    except (ProducerFenced, InvalidProducerEpoch) as error:
        raise FencedError(str(error)) from error
    except (KafkaError, TimeoutError, OSError, _LostRequestError, AssertionError) as error:
        kind, text = type(error).__name__, str(error)  # aiokafka's errors begin with their name, others do not
        raise UnknownOutcomeError(text if text.startswith(kind) else f"{kind}: {text}") from error


class _Producer(AIOKafkaProducer):  # type: ignore[misc]
    """A transactional producer that a lost request to the coordinator ends, and that can be thrown away."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._send_request = self.client.send
        self.client.send = self._send_once

    async def _send_once(self, node_id: int, request: Any, **options: Any) -> Any:
        try:
            return await self._send_request(node_id, request, **options)
        except KafkaError as error:
            if isinstance(request, _FINAL):
                raise _LostRequestError(f"{type(request).__name__}: {error!r}") from error
            raise

    def discard(self) -> asyncio.Task[None]:
        """Let it send nothing more, from now on; closing its connections takes a moment longer."""
        self._closed = True
        self.client.send = self.client.coordinator_lookup = _refuse
        if self._sender.sender_task is not None:
            self._sender.sender_task.cancel()
        return asyncio.create_task(self._close())

    async def _close(self) -> None:
        await self.client.close()
        if self._sender.sender_task is not None:
            await asyncio.wait([self._sender.sender_task], timeout=REQUEST_TIMEOUT_S)
        waiter = self._txn_manager._transaction_waiter if self._txn_manager is not None else None  # noqa: SLF001
        if waiter is not None and waiter.done():
            waiter.exception()  # asyncio complains of an error that nobody looks at


async def _refuse(*_: Any, **__: Any) -> Any:
    raise _LostRequestError("the producer was discarded")


class KafkaLog:
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
        self._cluster = cluster
        self._partition = partition
        self._commit_offsets = commit_offsets
        self._inputs = {name: TopicPartition(cluster.topic(name), partition) for name in INPUTS}
        self._changelog = TopicPartition(cluster.topic("changelog"), partition)
        self._producer: _Producer | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def transactional(self) -> bool:
        """Whether steps are transactions."""
        return self._commit_offsets is None

    async def acquire(self) -> None:
        """See `seams.Log`."""
        await self.release()
        options: dict[str, Any] = {"acks": "all"}
        if self.transactional:
            options = {
                "transactional_id": f"{self._cluster.prefix}{self._cluster.group}-{self._partition}",
                "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS,
            }
        self._producer = _Producer(
            **self._cluster.options,
            **options,
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
            retry_backoff_ms=RETRY_BACKOFF_MS,
        )
        await _settled(self._producer.start())

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

    async def begin(self) -> None:
        """See `seams.Log`."""
        await _settled(self._live().begin_transaction())

    async def append(self, changelog: Sequence[tuple[bytes, bytes]], outputs: Mapping[str, Sequence[Outgoing]]) -> int:
        """See `seams.Log`."""
        producer = self._live()
        now_ms = int(time.time() * 1000)
        none: list[Any] = []
        rows = [(key, value, none) for key, value in changelog]
        queues = [(self._changelog, _batches(producer, rows, now_ms))]
        for name, records in outputs.items():
            for place, some in (await self._placed(producer, name, records)).items():
                parts = [(record.key, record.value, list(record.headers)) for record in some]
                queues.append((place, _batches(producer, parts, now_ms)))
        last_records: int = queues[0][1][-1].record_count()
        if not self.transactional:  # the marker says that all of its step is there, so it goes last
            await _settled(_send_all(producer, queues[1:]))
            queues = queues[:1]
        acks = await _settled(_send_all(producer, queues))
        last_offset: int = acks[0][-1].offset
        if last_offset < 0:
            raise UnknownOutcomeError("the broker took the changelog for a repetition")
        return last_offset + last_records

    async def _placed(
        self, producer: _Producer, name: str, records: Sequence[Outgoing]
    ) -> dict[TopicPartition, list[Outgoing]]:
        """Records of a topic by where they go."""
        topic = self._cluster.topic(name)
        partitions = len(await _settled(producer.partitions_for(topic)))
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
        await _settled(self._live().send_offsets_to_transaction(places, self._cluster.group))

    async def commit(self) -> None:
        """See `seams.Log`."""
        await _settled(self._live().commit_transaction())

    async def release(self) -> None:
        """See `seams.Log`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            closing = producer.discard()
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _live(self) -> _Producer:
        if self._producer is None:
            raise UnknownOutcomeError("the producer was discarded")
        return self._producer


def _batches(producer: _Producer, records: Iterable[tuple[bytes | None, bytes, list[Any]]], now_ms: int) -> list[Any]:
    """Records of one place, in as few batches as hold them."""
    batch = producer.create_batch()
    batches = [batch]
    for key, value, headers in records:
        if batch.append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
            batch = producer.create_batch()  # an empty one takes any record, whatever its size
            batches.append(batch)
            batch.append(timestamp=now_ms, key=key, value=value, headers=headers)
    batch.close()
    return batches


async def _send_all(producer: _Producer, queues: Sequence[tuple[TopicPartition, Sequence[Any]]]) -> list[list[Any]]:
    """Send the batches of all places, those of one place in order; returns the acks."""

    async def send(place: TopicPartition, batches: Sequence[Any]) -> list[Any]:
        acks = [await producer.send_batch(batch, place.topic, partition=place.partition) for batch in batches]
        return [await ack for ack in acks]

    return list(await asyncio.gather(*(send(place, batches) for place, batches in queues)))
