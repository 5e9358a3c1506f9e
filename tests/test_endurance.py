"""What only time shows: any order of troubles (`make chaos`), and steady load (`make soak`), for MINUTES."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest
from aiokafka import AIOKafkaProducer

from tests.services import LocalKafka, LocalRedis, wait_until
from tests.test_shell_worker import DEADLINE_S, Shop, Worker

SECONDS = float(os.environ.get("MINUTES", "10")) * 60
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(10**6))))
PACE = 0.002  # seconds between events
LOAD_PEOPLE = 5_000
LOAD_PER_S = 2_000
MOST_GROWTH = 1.15  # of resident memory between the second and the last quarter of a soak


@pytest.fixture
def shop(kafka_server: LocalKafka, redis_server: LocalRedis, topic_prefix: str, tmp_path: Path) -> Iterator[Shop]:
    """A shop on a broker and a Redis of its own."""
    shop = Shop(kafka_server.bootstrap, redis_server.url, topic_prefix, tmp_path)
    yield shop
    shop.close()


class Supervised:
    """Two workers, of which one that has ended is started again, as a supervisor would."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.workers = [shop.worker(), shop.worker()]

    def all_ready(self) -> bool:
        """Whether both are, after starting what has ended."""
        for number, worker in enumerate(self.workers):
            if worker.process.poll() is not None:
                self.workers[number] = self._shop.worker()
        return all(worker.answer().startswith("200") for worker in self.workers)

    def wait(self) -> None:
        """Wait until both are ready."""
        wait_until(self.all_ready, "two workers", 2 * DEADLINE_S)


def hang(worker: Worker, shop: Shop) -> None:
    """Stop a worker longer than its session lasts, so that it wakes up as a former owner."""
    worker.process.send_signal(signal.SIGSTOP)
    until_s = time.monotonic() + 8
    while time.monotonic() < until_s:
        shop.send(*shop.buyers(20), pause_s=PACE)
    worker.process.send_signal(signal.SIGCONT)


@pytest.mark.chaos
def test_any_order_of_troubles(shop: Shop, kafka_server: LocalKafka, redis_server: LocalRedis) -> None:
    """Workers, broker and Redis are killed, stopped, hung and emptied at random: each person is decided on once."""
    print(f"SEED={SEED}")
    dice = random.Random(SEED)
    fleet = Supervised(shop)
    troubles: dict[str, Callable[[], object]] = {
        "worker killed": lambda: dice.choice(fleet.workers).end(signal.SIGKILL),
        "worker stopped": lambda: dice.choice(fleet.workers).end(signal.SIGTERM),
        "worker hung": lambda: hang(dice.choice(fleet.workers), shop),
        "Redis emptied": redis_server.flush,
        "Redis killed": lambda: redis_server.restart(kill=True),
        "Redis restarted": redis_server.restart,
        "broker killed": lambda: kafka_server.restart(kill=True),
        "broker restarted": kafka_server.restart,
    }
    fleet.wait()
    end_s = time.monotonic() + SECONDS
    while time.monotonic() < end_s:
        shop.send(*shop.buyers(50), pause_s=PACE)
        name = dice.choice(list(troubles))
        print(f"{shop.people:6d} people, {name}")
        troubles[name]()
        shop.send(*shop.buyers(50), pause_s=PACE)
        if dice.random() < 0.5:  # else the next trouble comes before this one is over
            fleet.wait()
    # A worker may still end over the last trouble: the supervisor is there until all is done.
    wait_until(lambda: fleet.all_ready() and shop.decided(), f"{shop.people} decisions", 3 * DEADLINE_S)
    shop.check()
    print(f"{shop.people} people, each decided on once")


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
