"""A loop by hand on aiokafka, at least once: `python -m benchmarks.peers.aiokafka_loop dict|redis`."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis.asyncio import Redis

from benchmarks.peers.job import ADDED, BATCH, Event, decision, decode, fold, packed, setting, unpacked


async def load(redis: Redis | None, state: dict[str, list[float]], events: list[Event]) -> None:
    """Have everybody's counts in `state`."""
    missing = list({event.userId for event in events if event.userId not in state})
    stored = await redis.mget(missing) if redis is not None and missing else [None] * len(missing)
    state.update(zip(missing, map(unpacked, stored), strict=True))


async def publish(producer: AIOKafkaProducer, partition: int, decisions: list[tuple[bytes, bytes]]) -> None:
    """Send decisions as batches and wait for the acks."""
    acks, batch = [], producer.create_batch()
    for key, value in decisions:
        if batch.append(key=key, value=value, timestamp=int(time.time() * 1000)) is None:
            acks.append(await producer.send_batch(batch, setting("decisions"), partition=partition))
            batch = producer.create_batch()
            batch.append(key=key, value=value, timestamp=int(time.time() * 1000))
    acks.append(await producer.send_batch(batch, setting("decisions"), partition=partition))
    await asyncio.gather(*acks)


async def step(
    producer: AIOKafkaProducer, redis: Redis | None, state: Any, partition: int, values: list[bytes]
) -> None:
    """One batch of one partition."""
    events = [decode(value) for value in values]
    await load(redis, state, events)
    decisions = []
    for event in events:
        counts = state[event.userId]
        if fold(counts, event) == ADDED:
            decisions.append((event.userId.encode(), decision(event, counts)))
    if redis is not None:
        await redis.mset({person: packed(state[person]) for person in {event.userId for event in events}})
        state.clear()
    if decisions:
        await publish(producer, partition, decisions)


async def main(store: str) -> None:
    """Run until killed."""
    redis = Redis.from_url(setting("redis")) if store == "redis" else None
    producer = AIOKafkaProducer(bootstrap_servers=setting("kafka"), acks="all", max_batch_size=1 << 19)
    consumer = AIOKafkaConsumer(
        setting("events"),
        bootstrap_servers=setting("kafka"),
        group_id=setting("group"),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=1 << 20,
    )
    await producer.start()
    await consumer.start()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    state: dict[str, list[float]] = {}
    while True:
        for place, records in (await consumer.getmany(timeout_ms=200, max_records=BATCH)).items():
            await step(producer, redis, state, place.partition, [record.value for record in records])
            await consumer.commit({place: records[-1].offset + 1})


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
