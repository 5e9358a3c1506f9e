"""A loop by hand on librdkafka, at least once: `python -m benchmarks.peers.librdkafka_loop dict|redis`."""

from __future__ import annotations

import gc
import sys

from confluent_kafka import Consumer, Producer
from redis import Redis

from benchmarks.peers.job import ADDED, BATCH, decision, decode, fold, packed, setting, unpacked


def step(producer: Producer, redis: Redis | None, state: dict[str, list[float]], values: list[bytes]) -> None:
    """One batch of any partitions."""
    events = [decode(value) for value in values]
    people = {event.userId for event in events}
    missing = [person for person in people if person not in state]
    stored = redis.mget(missing) if redis is not None and missing else [None] * len(missing)
    state.update(zip(missing, map(unpacked, stored), strict=True))
    for event in events:
        counts = state[event.userId]
        if fold(counts, event) == ADDED:
            producer.produce(setting("decisions"), decision(event, counts), event.userId)
    if redis is not None:
        redis.mset({person: packed(state[person]) for person in people})
        state.clear()
    producer.flush()


def main(store: str) -> None:
    """Run until killed."""
    redis = Redis.from_url(setting("redis")) if store == "redis" else None
    producer = Producer({"bootstrap.servers": setting("kafka"), "acks": "all", "linger.ms": 5})
    consumer = Consumer(
        {
            "bootstrap.servers": setting("kafka"),
            "group.id": setting("group"),
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 10,
        }
    )
    consumer.subscribe([setting("events")])
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    state: dict[str, list[float]] = {}
    while True:
        messages = [message for message in consumer.consume(BATCH, 0.2) if message.error() is None]
        if messages:
            step(producer, redis, state, [message.value() or b"" for message in messages])
            consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main(sys.argv[1])
