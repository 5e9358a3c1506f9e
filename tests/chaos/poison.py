"""What 1 % poison costs: a backlog is caught up without and with it, in turns."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from statistics import median

from aiokafka import AIOKafkaProducer

from streams import topics
from streams.changelog import MARKER_KEY
from streams.settings import Settings
from tests.chaos.outside import read
from tests.chaos.people import PARTITIONS, POISON_SHARE, Population
from tests.chaos.stage import unread
from tests.services import LocalKafka, LocalRedis, wait_until
from tests.test_shell_worker import CONFIG, DEADLINE_S, Worker

BACKLOG = 60_000
PAIRS = 4
PROMISED = 0.05


def measure(folder: Path, backlog: int = BACKLOG, pairs: int = PAIRS) -> str:
    """Say how much throughput poison takes, as the median over pairs of runs."""
    rates: dict[float, list[float]] = {0.0: [], POISON_SHARE: []}
    with LocalKafka() as kafka, LocalRedis() as store:
        for number in range(pairs):
            for share in (0.0, POISON_SHARE) if number % 2 else (POISON_SHARE, 0.0):
                prefix = f"poison{number}{'bad' if share else 'good'}."
                settings = Settings(
                    kafka=kafka.bootstrap, redis=store.url, topic_prefix=prefix, group=prefix, partitions=PARTITIONS
                )
                rates[share].append(asyncio.run(_backlog(settings, number, share, backlog, folder)))
    ratios = [1 - bad / good for good, bad in zip(rates[0.0], rates[POISON_SHARE], strict=True)]
    return (
        f"Catching up {backlog:,} records: {median(rates[0.0]):,.0f}/s without poison, "
        f"{median(rates[POISON_SHARE]):,.0f}/s with {POISON_SHARE:.0%}; lost {median(ratios):.1%} "
        f"(pairs: {', '.join(f'{r:.1%}' for r in ratios)}; promised at most {PROMISED:.0%})"
    )


async def _backlog(settings: Settings, number: int, share: float, backlog: int, folder: Path) -> float:
    """Records per second between the first and the last step of a worker that finds a backlog."""
    await topics.create(settings)
    producer = AIOKafkaProducer(bootstrap_servers=settings.brokers, linger_ms=20, max_batch_size=1 << 18)
    await producer.start()
    for planned in itertools.islice(Population(f"backlog {number}", share).records(1e9), backlog):
        await producer.send(settings.topic("events"), planned.value, key=planned.key)
    await producer.stop()
    worker = Worker(settings, CONFIG, folder)
    try:
        await asyncio.to_thread(wait_until, worker.ready, "a worker", DEADLINE_S)
        while await unread(settings):
            await asyncio.sleep(0.2)
    finally:
        worker.end()
    steps = [record for record in await read(settings, "changelog") if record.key == MARKER_KEY]
    steps.sort(key=lambda record: record.timestamp)
    read_before: int = json.loads(steps[0].value)["offsets"]["events"]
    seconds: float = (steps[-1].timestamp - steps[0].timestamp) / 1e3
    return (backlog - read_before) / seconds
