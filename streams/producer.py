"""Producers that a lost request ends.

aiokafka repeats requests to the transaction coordinator after a timeout or a broken connection, with the same
producer epoch. A repeated EndTxn that was only late commits the *next* transaction, a repeated TxnOffsetCommit
overwrites the next one's offsets. So here such an error ends the producer; the next one has a higher epoch, and
the broker refuses what is late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    TxnOffsetCommitRequest,
)

from decisioning.effects import Outgoing
from streams.seams import FencedError, UnknownOutcomeError

TRANSACTION_TIMEOUT_MS: Final = 10_000
# A request that takes longer is given up: below the transaction's own timeout, so that we notice first.
REQUEST_TIMEOUT_S: Final = 8.0
RETRY_BACKOFF_MS: Final = 20
# Brokers and our topics take batches of 1 MiB; what one record needs beyond is allowed for by the topic.
BATCH_BYTES: Final = 900_000

T = TypeVar("T")

_FINAL = (AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, TxnOffsetCommitRequest)


class _LostRequestError(Exception):
    """Not a KafkaError, which aiokafka would catch and answer with a repetition."""


async def settled(request: Awaitable[T]) -> T:
    """Await a request, for a bounded time; errors are ours."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            return await request
    except (ProducerFenced, InvalidProducerEpoch) as error:
        raise FencedError(str(error)) from error
    except (KafkaError, TimeoutError, OSError, _LostRequestError, AssertionError) as error:
        kind, text = type(error).__name__, str(error)  # aiokafka's errors begin with their name, others do not
        raise UnknownOutcomeError(text if text.startswith(kind) else f"{kind}: {text}") from error


class Producer(AIOKafkaProducer):  # type: ignore[misc]
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


class Publisher:
    """One producer at a time, of transactions or without any.

    Parameters
    ----------
    options
        Arguments of every aiokafka client.
    transactional_id
        Whoever acquired it last is the only one who can write. None: no transactions, records are acknowledged only.
    """

    def __init__(self, options: Mapping[str, Any], transactional_id: str | None) -> None:
        self._options = options
        self._id = transactional_id
        self._producer: Producer | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def transactional(self) -> bool:
        """Whether what is written is a transaction."""
        return self._id is not None

    async def acquire(self) -> None:
        """Take a new producer: fences the one before it, wherever it is, and settles what it left open."""
        await self.release()
        options: dict[str, Any] = {"acks": "all"}
        if self._id is not None:
            options = {"transactional_id": self._id, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}
        self._producer = Producer(
            **self._options,
            **options,
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
            retry_backoff_ms=RETRY_BACKOFF_MS,
        )
        await settled(self._producer.start())

    async def begin(self) -> None:
        """Open a transaction, if there are any."""
        if self.transactional:
            await settled(self._live().begin_transaction())

    async def send(self, place: TopicPartition, records: Sequence[Outgoing]) -> None:
        """Append records to one place and await the acks."""
        producer = self._live()
        await settled(producer.partitions_for(place.topic))  # else a topic that was not named yet is unknown
        parts = [(record.key, record.value or None, list(record.headers)) for record in records]
        batches = batches_of(producer, parts, time.time_ns() // 1_000_000)
        await settled(send_all(producer, [(place, batches)]))

    async def commit(self) -> None:
        """Commit the transaction, if there is one."""
        if self.transactional:
            await settled(self._live().commit_transaction())

    async def release(self) -> None:
        """Discard the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            closing = producer.discard()
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Discard the producer and wait until its connections are closed."""
        await self.release()
        if self._closing:
            await asyncio.wait(self._closing)

    def _live(self) -> Producer:
        if self._producer is None:
            raise UnknownOutcomeError("the producer was discarded")
        return self._producer


def batches_of(
    producer: Producer, records: Iterable[tuple[bytes | None, bytes | None, list[Any]]], now_ms: int
) -> list[Any]:
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


async def send_all(producer: Producer, queues: Sequence[tuple[TopicPartition, Sequence[Any]]]) -> list[list[Any]]:
    """Send the batches of all places, those of one place in order; returns the acks."""

    async def send(place: TopicPartition, batches: Sequence[Any]) -> list[Any]:
        acks = [await producer.send_batch(batch, place.topic, partition=place.partition) for batch in batches]
        return [await ack for ack in acks]

    return list(await asyncio.gather(*(send(place, batches) for place, batches in queues)))
