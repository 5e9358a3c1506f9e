"""What only time shows: steady load for MINUTES (`make soak`)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from aiokafka import AIOKafkaProducer

from tests.services import LocalKafka, LocalRedis, wait_until
from tests.test_shell_worker import DEADLINE_S, Shop, Worker

SECONDS = float(os.environ.get("MINUTES", "10")) * 60
LOAD_PEOPLE = 5_000
LOAD_PER_S = 2_000
MOST_GROWTH = 1.15  # of resident memory between the second and the last quarter of a soak


@pytest.fixture
def shop(kafka_server: LocalKafka, redis_server: LocalRedis, topic_prefix: str, tmp_path: Path) -> Iterator[Shop]:
    """A shop on a broker and a Redis of its own."""
    shop = Shop(kafka_server.bootstrap, redis_server.url, topic_prefix, tmp_path)
    yield shop
    shop.close()


async def load(shop: Shop, seconds: float) -> None:
    """Views of products at a steady rate, and now and then a cart."""
    producer = AIOKafkaProducer(bootstrap_servers=shop.settings.brokers, linger_ms=20)
    await producer.start()
    sent, begin_s = 0, time.monotonic()
    while (gone_s := time.monotonic() - begin_s) < seconds:
        for number in range(sent, int(gone_s * LOAD_PER_S)):
            name = "Product Viewed" if number % 50 else "Product Added"
            user = f"v{number * 7919 % LOAD_PEOPLE}"
            body = {"type": "track", "messageId": f"m{sent}", "userId": user, "event": name}
            await producer.send(shop.settings.topic("events"), json.dumps(body).encode(), key=user.encode())
            sent += 1
        await asyncio.sleep(0.02)
    await producer.stop()
    print(f"{sent} events in {gone_s:.0f} s")


def figure(worker: Worker, name: str) -> float:
    """Sum of a metric's samples, as `/metrics` has them now."""
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", worker.answer("/metrics"), re.MULTILINE)
    return sum(map(float, found))


@pytest.mark.soak
def test_steady_load(shop: Shop) -> None:
    """Under 2,000 events a second of the same people memory stays as it is, nothing is left unread or pending."""
    worker = shop.worker()
    wait_until(worker.ready, "a worker", DEADLINE_S)
    resident: list[float] = []
    rounds = 20
    for _ in range(rounds):
        asyncio.run(load(shop, SECONDS / rounds))
        resident.append(figure(worker, "process_resident_memory_bytes"))
        print(f"{resident[-1] / 2**20:.0f} MB, {figure(worker, 'decisioning_lag_records'):.0f} unread")
    wait_until(lambda: figure(worker, "decisioning_lag_records") == 0, "all to be read", DEADLINE_S)
    wait_until(lambda: figure(worker, "decisioning_timers_pending") == 0, "all timers", DEADLINE_S)
    quarter = rounds // 4
    assert median(resident[-quarter:]) < MOST_GROWTH * median(resident[quarter : 2 * quarter])
