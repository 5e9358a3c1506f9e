"""People and partitions on a real broker: what was keyed wrongly, and who turns out to be somebody else."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from decisioning.partitioner import partition_of
from tests.services import wait_until
from tests.test_shell_worker import DEADLINE_S, Shop

PARTITIONS = 4


@pytest.fixture
def shop(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(kafka, redis_url, topic_prefix, tmp_path)
    yield shop
    shop.close()


def publish(shop: Shop, events: list[tuple[dict[str, Any], bytes | None, int | None]]) -> None:
    """Append events with any key to any partition (None: as the key says)."""

    async def go() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=shop.settings.brokers, acks="all")
        await producer.start()
        try:
            for event, key, partition in events:
                topic = shop.settings.topic("events")
                await producer.send_and_wait(topic, json.dumps(event).encode(), key=key, partition=partition)
        finally:
            await producer.stop()

    asyncio.run(go())


def test_records_keyed_for_another_partition_are_forwarded_once(shop: Shop) -> None:
    """On the wrong partition, or without a key: every person is decided on once, at their own partition."""
    first, second = shop.worker(), shop.worker()
    wait_until(lambda: first.ready() and second.ready(), "two workers", DEADLINE_S)
    astray: list[tuple[dict[str, Any], bytes | None, int | None]] = []
    for number, event in enumerate(shop.buyers(60)):
        home = partition_of(event["userId"], PARTITIONS)
        astray.append((event, None if number % 2 else b"another", (home + 1 + number % 3) % PARTITIONS))
    publish(shop, astray)
    shop.check()
    for record in shop.read("decisions"):
        assert record.partition == partition_of(json.loads(record.value)["user_id"], PARTITIONS)
    assert len(shop.read("internal")) == len(astray)


def test_an_anonymous_cart_becomes_the_known_persons_across_partitions(shop: Shop) -> None:
    """Cart, then identify with both ids on another partition: one decision each, to the known person's address."""
    shop.config = shop.config.replace("delay: 1s", "delay: 6s")  # a merge takes three transactions
    first, second = shop.worker(), shop.worker()
    wait_until(lambda: first.ready() and second.ready(), "two workers", DEADLINE_S)
    known = [f"k{number}" for number in range(40)]
    carts, names = [], []
    for user in known:
        cart = {"type": "track", "messageId": f"a-{user}", "anonymousId": f"anon-{user}", "event": "Product Added"}
        carts.append((cart, f"anon-{user}".encode(), None))
        who = {"type": "identify", "messageId": f"i-{user}", "userId": user, "anonymousId": f"anon-{user}"}
        names.append(({**who, "traits": {"email": f"{user}@example.com"}}, user.encode(), None))
    publish(shop, [one for pair in zip(carts, names, strict=True) for one in pair])
    wait_until(lambda: len(shop.log()) >= len(known), "all decisions", DEADLINE_S)
    sent = Counter((entry["user_id"], entry["action"]) for entry in shop.log())
    assert sent == {(user, "send"): 1 for user in known}
