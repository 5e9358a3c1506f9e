"""What 1 % poison costs: a backlog is caught up without and with it, in turns."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from statistics import median

from streams import topics
from streams.settings import Settings
from tests.chaos.people import PARTITIONS, POISON_SHARE, Population
from tests.chaos.stage import unread
from tests.services import LocalKafka, LocalRedis, wait_until
from tests.test_endurance import figure
from tests.test_shell_worker import CONFIG, DEADLINE_S, Worker

BACKLOG = 250_000
PAIRS = 4
AT_ONCE = 1e9  # events a second of the population's time
CPU = "process_cpu_seconds_total"
LOOK_S = 0.02
PROMISED = 0.05


def measure(folder: Path, backlog: int = BACKLOG, pairs: int = PAIRS) -> str:
    """Say how much throughput poison takes, as the median over pairs of runs.

    Throughput is records per second of the worker's CPU, which is what limits it while it catches up, and what other
    work on the machine does not change.
    """
    rates: dict[float, list[float]] = {0.0: [], POISON_SHARE: []}
    with LocalKafka() as kafka, LocalRedis() as store:
        for number in range(pairs):
            for share in (0.0, POISON_SHARE) if number % 2 else (POISON_SHARE, 0.0):
                prefix = f"poison{number}{'bad' if share else 'good'}."
                settings = Settings(
                    kafka=kafka.bootstrap, redis=store.url, topic_prefix=prefix, group=prefix, partitions=PARTITIONS
                )
                publish(settings, Population(f"backlog {number}", share), backlog)
                rates[share].append(backlog / cpu_s(settings, folder))
    ratios = [1 - bad / good for good, bad in zip(rates[0.0], rates[POISON_SHARE], strict=True)]
    return (
        f"Catching up {backlog:,} records: {median(rates[0.0]):,.0f} a CPU second without poison, "
        f"{median(rates[POISON_SHARE]):,.0f} with {POISON_SHARE:.0%}; lost {median(ratios):.1%} "
        f"(pairs: {', '.join(f'{ratio:.1%}' for ratio in ratios)}; promised at most {PROMISED:.0%})"
    )


def publish(settings: Settings, population: Population, count: int) -> None:
    """Create topics, and publish so many records."""
    from confluent_kafka import Producer

    asyncio.run(topics.create(settings))
    producer = Producer(
        {"bootstrap.servers": settings.kafka, "partitioner": "murmur2_random", "linger.ms": 50, "log_level": 0}
    )
    for planned in itertools.islice(population.records(AT_ONCE), count):
        while True:
            try:
                producer.produce(settings.topic("events"), planned.value, key=planned.key)
                break
            except BufferError:
                producer.poll(LOOK_S)
    producer.flush()


def cpu_s(settings: Settings, folder: Path) -> float:
    """CPU seconds that a worker takes to read what is there, from when it owns partitions."""
    worker = Worker(settings, CONFIG, folder)
    try:
        before_s = 0.0
        while not worker.ready():
            before_s = figure(worker, CPU)
            time.sleep(LOOK_S)
        wait_until(lambda: asyncio.run(unread(settings)) == 0, "all to be read", DEADLINE_S)
        return figure(worker, CPU) - before_s
    finally:
        worker.end()
