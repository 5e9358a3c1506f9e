"""The world around the workers, in a thread of its own so that it goes on while a fault is made.

It publishes what people do at a steady rate, and watches when decisions come out.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from streams.settings import Settings
from tests.chaos.people import PARTITIONS, Planned, Population

TICK_S = 0.01
ON_TIME_MS = 1000.0  # after `fire_at`, as promised
SETTLED = 3  # decisions on time in a row, of each partition, before it counts as recovered
PATIENCE_S = 60.0
READ_TIMEOUT_MS = 500

T = TypeVar("T")


@dataclass(frozen=True)
class Seen:
    """A decision that came out: when it was due and when it was published, in milliseconds since the epoch."""

    partition: int
    fire_ms: float
    published_ms: float

    @property
    def delay_ms(self) -> float:
        """How late."""
        return self.published_ms - self.fire_ms


def seen(record: ConsumerRecord) -> Seen:
    """Read a record of `decisions`."""
    fire_at = datetime.fromisoformat(orjson.loads(record.value)["fire_at"])
    return Seen(record.partition, fire_at.timestamp() * 1e3, record.timestamp)


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="outside", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run in it and wait."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def close(self) -> None:
        """End the thread."""
        self.run(_all_cancelled())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _all_cancelled() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Traffic:
    """Publishes what a population does until stopped.

    Attributes
    ----------
    acked
        Partition -> offsets that the broker said it has.
    published
        Times (seconds since the epoch) of every hundredth record.
    """

    def __init__(self, settings: Settings, population: Population, rate_per_s: float) -> None:
        self._settings = settings
        self._population = population
        self._rate_per_s = rate_per_s
        self._stopping = False
        self.acked: dict[int, set[int]] = {number: set() for number in range(PARTITIONS)}
        self.published: list[float] = []
        self._count = 0

    async def run(self) -> None:
        """Publish; what the broker's absence has held up follows at once."""
        producer = AIOKafkaProducer(bootstrap_servers=self._settings.brokers, acks="all", linger_ms=5)
        await producer.start()
        begun_s = time.monotonic()
        for planned in self._population.records(self._rate_per_s):
            while planned.at_s > time.monotonic() - begun_s and not self._stopping:
                await asyncio.sleep(TICK_S)
            await self._publish(producer, planned)
            if self._stopping:
                break
        for planned in self._population.ends():
            while planned.at_s > time.monotonic() - begun_s:
                await asyncio.sleep(TICK_S)
            await self._publish(producer, planned)
        await producer.stop()

    def stop(self) -> None:
        """Begin no more stories."""
        self._stopping = True

    async def _publish(self, producer: AIOKafkaProducer, planned: Planned) -> None:
        topic = self._settings.topic("events")
        while True:
            with contextlib.suppress(KafkaError):
                ack = await producer.send(topic, planned.value, key=planned.key, partition=planned.partition)
                break
        ack.add_done_callback(self._note)
        self._count += 1
        if self._count % 100 == 0:
            self.published.append(time.time())

    def _note(self, ack: asyncio.Future[Any]) -> None:
        if not ack.cancelled() and ack.exception() is None:
            self.acked[ack.result().partition].add(ack.result().offset)


class Watcher:
    """Follows `decisions`, to know when all partitions work again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._latest: dict[int, list[Seen]] = {number: [] for number in range(PARTITIONS)}

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with contextlib.suppress(KafkaError):
                await self._watch()

    async def _watch(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.brokers, isolation_level="read_committed", fetch_max_wait_ms=100
        )
        await consumer.start()
        try:
            places = [TopicPartition(self._settings.topic("decisions"), number) for number in range(PARTITIONS)]
            consumer.assign(places)
            await consumer.seek_to_end(*places)
            while True:
                async for record in consumer:
                    latest = self._latest[record.partition]
                    latest.append(seen(record))
                    del latest[:-SETTLED]
        finally:
            await consumer.stop()

    def recovered(self, since_s: float) -> bool:
        """Whether the latest decisions of each partition were due after a time, and on time."""
        return all(
            len(latest) == SETTLED and all(one.fire_ms >= since_s * 1e3 and one.delay_ms < ON_TIME_MS for one in latest)
            for latest in self._latest.values()
        )


async def read(settings: Settings, name: str) -> list[ConsumerRecord]:
    """All committed records of a topic, partition by partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.brokers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    try:
        places = [TopicPartition(settings.topic(name), number) for number in range(PARTITIONS)]
        ends = await consumer.end_offsets(places)
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        records: list[ConsumerRecord] = []
        while any([await consumer.position(place) < ends[place] for place in places]):
            for some in (await consumer.getmany(timeout_ms=READ_TIMEOUT_MS, max_records=5000)).values():
                records += some
    finally:
        await consumer.stop()
    return sorted(records, key=lambda record: (record.partition, record.offset))


@contextlib.contextmanager
def looping() -> Iterator[Loop]:
    """A loop for as long as it is needed."""
    loop = Loop()
    try:
        yield loop
    finally:
        loop.close()
