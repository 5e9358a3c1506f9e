"""Two workers on a real Kafka and Redis at a steady load, one killed with -9 halfway: what comes out, and how late.

    python -m benchmarks.failover [--seconds 60] [--rate 2000] [--quick]

Most events are views of a few thousand people; some people are new, put something into the cart once, and must be
decided on exactly once. Prints what came out, how long the killed worker's partitions stood still, the delay from
`fire_at` to publication outside and inside that gap, and each worker's CPU per event.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from tests.services import LocalKafka, LocalRedis, UnavailableError, wait_until
from tests.test_endurance import figure
from tests.test_shell_worker import DEADLINE_S, Shop, Worker

VIEWERS = 5_000
BUYERS_SHARE = 0.025  # of the events; each is two events: who they are, and the cart
TICK_S = 0.02


async def load(shop: Shop, seconds: float, rate: float, halfway: asyncio.Event) -> int:
    """Publish at a steady rate; how many events it were."""
    producer = AIOKafkaProducer(bootstrap_servers=shop.settings.brokers, linger_ms=5, acks="all")
    await producer.start()
    sent, begun_s = 0, time.monotonic()
    while (gone_s := time.monotonic() - begun_s) < seconds:
        if gone_s > seconds / 2:
            halfway.set()
        events: list[dict[str, Any]] = []
        while sent + len(events) < gone_s * rate:
            number = sent + len(events)
            if number % int(1 / BUYERS_SHARE) == 0:
                events += shop.buyers(1)
            user = f"v{number * 7919 % VIEWERS}"
            body = {"type": "track", "messageId": f"m{number}", "userId": user, "event": "Product Viewed"}
            events.append(body | {"properties": {"product_id": f"p{number % 500}", "price": 19.9, "category": "shoes"}})
        for event in events:
            await producer.send(shop.settings.topic("events"), json.dumps(event).encode(), key=event["userId"].encode())
        sent += len(events)
        await asyncio.sleep(TICK_S)
    await producer.stop()
    return sent


async def run(shop: Shop, first: Worker, seconds: float, rate: float) -> tuple[int, float, float]:
    """Load, and the kill halfway: (events, time of the kill in seconds since the epoch, CPU seconds of the killed)."""
    halfway = asyncio.Event()
    publishing = asyncio.create_task(load(shop, seconds, rate, halfway))
    await halfway.wait()
    used_s = await asyncio.to_thread(figure, first, "process_cpu_seconds_total")
    first.process.send_signal(signal.SIGKILL)
    killed_at_s = time.time()
    return await publishing, killed_at_s, used_s


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def report(shop: Shop, killed_at_s: float) -> bool:
    """Print what came out; whether everybody was decided on exactly once."""
    published = shop.read("decisions")
    times = Counter(json.loads(record.value)["user_id"] for record in published)
    lost = shop.people - len(times)
    doubled = sum(count - 1 for count in times.values())
    print(f"{shop.people} people to decide on: {lost} lost, {doubled} doubled")
    calm: list[float] = []
    gap: dict[int, list[float]] = {}
    for record in published:
        fire_s = datetime.fromisoformat(json.loads(record.value)["fire_at"]).timestamp()
        delay_s = record.timestamp / 1000 - fire_s
        if killed_at_s - 1 < fire_s < killed_at_s + 12 and delay_s > 1:
            gap.setdefault(record.partition, []).append(fire_s + delay_s - killed_at_s)
        else:
            calm.append(delay_s)
    print(f"delay from fire_at to published: p50 {percentile(calm, 0.5) * 1e3:.0f} ms, "
          f"p99 {percentile(calm, 0.99) * 1e3:.0f} ms ({len(calm)} decisions outside the gap)")  # fmt: skip
    for partition, resumed in sorted(gap.items()):
        print(f"partition {partition}: decisions again {min(resumed):.1f} s after the kill; {len(resumed)} came late")
    return not lost and not doubled


def measure(shop: Shop, seconds: float, rate: float) -> bool:
    """Start two workers, load, kill, wait for all decisions, report."""
    workers = first, second = shop.worker(), shop.worker()
    wait_until(lambda: all("2 partitions" in worker.answer() for worker in workers), "two workers", DEADLINE_S)
    idle_s = [figure(worker, "process_cpu_seconds_total") for worker in workers]
    sent, killed_at_s, first_s = asyncio.run(run(shop, first, seconds, rate))
    wait_until(shop.decided, "all decisions", DEADLINE_S)
    second_s = figure(second, "process_cpu_seconds_total")
    print(f"{sent} events in {seconds:.0f} s, one of two workers killed after {seconds / 2:.0f} s")
    good = report(shop, killed_at_s)
    used_s = first_s + second_s - sum(idle_s)
    print(f"{used_s / sent * 1e6:.0f} µs CPU per event of both workers, at {rate:.0f} events/s")
    began_s = time.monotonic()
    code = second.end(signal.SIGTERM)
    print(f"SIGTERM: exit {code} after {time.monotonic() - began_s:.2f} s")
    return good


def main() -> int:
    """Run once; 0 if nothing was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second (default 2000)")
    parser.add_argument("--quick", action="store_true", help="20 seconds")
    given = parser.parse_args()
    if given.quick:
        given.seconds = 20.0
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; all on one machine")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        try:
            broker = servers.enter_context(contextlib.closing(LocalKafka().start()))
            redis = servers.enter_context(contextlib.closing(LocalRedis().start()))
        except UnavailableError as error:
            print(f"no Kafka or Redis to measure on: {error}; make services installs what is missing", file=sys.stderr)
            return 2
        shop = Shop(broker.bootstrap, redis.url, "bench-", Path(folder))
        servers.callback(shop.close)
        return 0 if measure(shop, given.seconds, given.rate) else 1


if __name__ == "__main__":
    raise SystemExit(main())
