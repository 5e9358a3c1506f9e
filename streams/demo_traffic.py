"""The demo's outside world: a shop that writes events, and a reader of what the worker decides."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import orjson
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from decisioning import simulate
from streams.backtesting import parse_time
from streams.demo_audience import CAMPAIGN, SLOT, Audience, Mix
from streams.embedded import PARTITIONS

PEOPLE: Final = 20_000
THINK_S: Final = 1.5  # visitors in a hurry: a visit is over within a quarter of a minute
ODD_SHARE: Final = 0.01
SLICE_S: Final = 0.005  # what is due within it is published at once, to wake up less often
# The mock broker answers a fetch with one batch as it was published: small ones would starve the worker.
LINGER_MS: Final = 100
WINDOW_MS: Final = 5_000  # of the live percentiles
LONGEST_DELAY_MS: Final = 60_000
CONSUMED: Final = 500
POLL_S: Final = 0.2


class Shop(threading.Thread):
    """Publishes the simulated shop's events in real time until stopped.

    It shares a core with the screen: generating and publishing 2,000 events/s takes 2 % of one.
    """

    def __init__(self, kafka: str, rate_per_s: float, seed: int) -> None:
        super().__init__(name="shop", daemon=True)
        from confluent_kafka import Producer  # noqa: PLC0415 - an extra

        self._producer = Producer(
            {
                "bootstrap.servers": kafka,
                "linger.ms": LINGER_MS,
                "partitioner": "murmur2_random",
                "log_level": 0,
            }
        )
        self._rate_per_s = rate_per_s
        self._seed = seed
        self._closing = threading.Event()
        self.published = 0

    def run(self) -> None:
        """Publish what is due, sleep until the next is."""
        start_ms = int(time.time() * 1000)
        records = simulate.events(self._seed, PEOPLE, self._rate_per_s, start_ms, think_s=THINK_S, odd_share=ODD_SHARE)
        for record in records:
            ahead_s = record.at_ms / 1000 - time.time()
            if self._closing.wait(ahead_s) if ahead_s > SLICE_S else self._closing.is_set():
                break
            self.publish(record)
        self._producer.flush(POLL_S)

    def publish(self, record: simulate.Simulated) -> None:
        """Publish a record, as soon as there is room; nothing once the shop has closed."""
        if self._closing.is_set():
            return
        while True:
            try:
                self._producer.produce("events", record.value, key=record.key)
            except BufferError:  # the broker is behind; the shop waits rather than loses
                if self._closing.wait(SLICE_S):
                    return
                self._producer.poll(0)
            else:
                break
        self._producer.poll(0)
        self.published += 1

    def close(self) -> None:
        """Publish no more."""
        self._closing.set()
        self.join()


@dataclass(slots=True)
class Tally:
    """What was decided so far.

    Attributes
    ----------
    actions
        (campaign, action) -> how many.
    reasons
        (campaign, first reason) -> how many, of those not sent.
    recent
        (published at, delay) in milliseconds of the decisions of the last seconds.
    delays
        How many decisions were published how many milliseconds after the time to fire.
    specimens
        (action, first reason) -> the latest log record of that kind; as many as there are reasons.
    mix
        The subjects that were sent, in all likelihood better ones as time goes by.
    """

    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    recent: deque[tuple[int, int]] = field(default_factory=deque)
    delays: NDArray[np.int64] = field(default_factory=lambda: np.zeros(LONGEST_DELAY_MS + 1, np.int64))
    specimens: dict[tuple[str, str], bytes] = field(default_factory=dict)
    mix: Mix = field(default_factory=Mix)

    def log(self, value: bytes) -> None:
        """Count a record of `decision-log`."""
        record = orjson.loads(value)
        campaign, action = record["campaign"] or "", record["action"]
        reason = record["reasons"][0] if record["reasons"] else ""
        self.actions[campaign, action] += 1
        if action != "send":
            self.reasons[campaign, reason] += 1
        self.specimens[action, reason] = value

    def sent(self, decision: dict[str, Any], published_ms: int) -> None:
        """Count a record of `decisions`."""
        if decision["campaign"] == CAMPAIGN:
            self.mix.sent(decision["variants"][SLOT])
        fire_ms = parse_time("fire_at", decision["fire_at"])
        delay_ms = min(max(0, published_ms - fire_ms), LONGEST_DELAY_MS)
        self.recent.append((published_ms, delay_ms))
        self.delays[delay_ms] += 1
        while self.recent[0][0] < published_ms - WINDOW_MS:
            self.recent.popleft()

    def recent_ms(self, percent: float) -> float | None:
        """A percentile of the recent delays; None where there were none."""
        found = [delay for _, delay in list(self.recent)]
        return float(np.percentile(found, percent)) if found else None

    def overall_ms(self, percent: float) -> float | None:
        """A percentile of all delays, to the millisecond."""
        total = int(self.delays.sum())
        if not total:
            return None
        return float(np.searchsorted(np.cumsum(self.delays), total * percent / 100))


class Reader(threading.Thread):
    """Reads `decisions` and `decision-log` as any consumer would, counts, and lets the audience answer.

    Parameters
    ----------
    publish
        Takes what the audience does.
    """

    def __init__(self, kafka: str, publish: Callable[[simulate.Simulated], None]) -> None:
        super().__init__(name="reader", daemon=True)
        self._publish = publish
        self._audience = Audience()
        from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415 - an extra

        # No group: the mock broker knows one member, and that is the worker.
        self._consumer = Consumer(
            {"bootstrap.servers": kafka, "group.id": "demo-reader", "enable.auto.commit": False, "log_level": 0}
        )
        self._consumer.assign(
            [TopicPartition(topic, p, 0) for topic in ("decisions", "decision-log") for p in range(PARTITIONS)]
        )
        self._closing = threading.Event()
        self.tally = Tally()

    def run(self) -> None:
        """Count until stopped."""
        while not self._closing.is_set():
            for message in self._consumer.consume(CONSUMED, POLL_S):
                self._count(message)
            for answer in self._audience.due():
                self._publish(answer)
        self._consumer.close()

    def _count(self, message: Any) -> None:
        if message.error() is not None:
            return
        if message.topic() == "decisions":
            decision = orjson.loads(message.value())
            self.tally.sent(decision, message.timestamp()[1])
            self._audience.read(decision)
        else:
            self.tally.log(message.value())

    def close(self) -> None:
        """Read no more."""
        self._closing.set()
        self.join()


@dataclass(frozen=True, slots=True)
class Gauges:
    """What `/metrics` of the worker says, at a time of the monotonic clock."""

    at_s: float
    events: int
    lag: int
    timers: int
    dead_letters: int
    duplicates: int
    cpu_s: float

    @classmethod
    def none(cls) -> Self:
        """What is known before it first answered."""
        return cls(time.monotonic(), 0, 0, 0, 0, 0, 0.0)


_NAMES: Final = {
    "decisioning_events_total": "events",
    "decisioning_lag_records": "lag",
    "decisioning_timers_pending": "timers",
    "decisioning_dead_letters_total": "dead_letters",
    "decisioning_duplicates_total": "duplicates",
    "process_cpu_seconds_total": "cpu_s",
}


def scrape(address: str) -> Gauges | None:
    """Ask the worker; None if it does not answer now."""
    try:
        with urllib.request.urlopen(f"{address}/metrics", timeout=2) as answer:  # noqa: S310 - our own child
            text = answer.read().decode()
    except (OSError, urllib.error.URLError):
        return None
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in _NAMES:
                sums[_NAMES[sample.name]] += sample.value  # type: ignore[assignment]
    whole = {name: int(sums[name]) for name in ("events", "lag", "timers", "dead_letters", "duplicates")}
    return Gauges(at_s=time.monotonic(), cpu_s=float(sums["cpu_s"]), **whole)


def is_ready(address: str) -> bool:
    """Whether the worker says so."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=2) as answer:  # noqa: S310 - our own child
            return bool(answer.status == 200)  # noqa: PLR2004 - OK
    except (OSError, urllib.error.URLError):
        return False
