"""Worker processes on a real broker and Redis, killed, stopped and cut off: each decision once, none lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams import topics
from streams.settings import Settings
from tests.services import LocalKafka, LocalRedis, free_port, wait_until

CONFIG = """\
version: 1
timezone: Europe/Berlin
channels:
  email: {address: email}
campaigns:
  - id: cart
    trigger: {event: Product Added, delay: 1s, cancel_on: [Order Completed]}
    channels: [email]
    variants:
      subject:
        - {id: plain, text: "Still thinking it over?"}
        - {id: offer, text: "It is waiting"}
    policy: {algorithm: uniform}
"""
ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-c", "from streams.cli import main; main()")
DEADLINE_S = 60


class Worker:
    """A worker process.

    Parameters
    ----------
    command
        What stands before the arguments of `decisioning`.
    host
        Where its pages are.
    """

    def __init__(
        self,
        settings: Settings,
        config_text: str,
        folder: Path,
        command: Sequence[str] = COMMAND,
        host: str = "127.0.0.1",
    ) -> None:
        config = folder / "campaigns.yaml"
        if not config.exists() or config.read_text() != config_text:  # another worker may be reading it now
            config.write_text(config_text)
        self.host = host
        self.port = free_port()
        self.output = folder / f"worker-{self.port}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DECISIONING_")}
        environment |= {
            "DECISIONING_KAFKA": settings.kafka,
            "DECISIONING_REDIS": settings.redis,
            "DECISIONING_TOPIC_PREFIX": settings.topic_prefix,
            "DECISIONING_GROUP": settings.group,
        }
        if settings.pseudonym_key is not None:
            environment["DECISIONING_PSEUDONYM_KEY"] = settings.pseudonym_key.get_secret_value()
        words = [*command, "worker", "--config", str(config), "--web-host", host, "--web-port", str(self.port)]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)

    def ready(self) -> bool:
        """What /readyz says; a worker that has ended is an error with its output."""
        assert self.process.poll() is None, self.output.read_text()
        return self.answer().startswith("200")

    def answer(self, path: str = "/readyz") -> str:
        """Status and text of a page; empty if nobody listens."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.port}{path}", timeout=2) as response:
                return f"{response.status} {response.read().decode()}"
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode()}"
        except OSError:
            return ""

    def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal and wait; returns the exit code."""
        self.process.send_signal(how)
        return self.process.wait(DEADLINE_S)


def who(event: dict[str, Any]) -> str:
    """Key of an event."""
    return str(event.get("userId") or event["anonymousId"])


class Shop:
    """Topics of one test, people who buy, and what came of it."""

    def __init__(self, kafka: str, redis: str, prefix: str, folder: Path) -> None:
        self.settings = Settings(kafka=kafka, redis=redis, topic_prefix=prefix, group=prefix + "group", partitions=4)
        self.config = CONFIG
        self.folder = folder
        self.workers: list[Worker] = []
        self.people = 0
        asyncio.run(topics.create(self.settings))

    def worker(self) -> Worker:
        """Start one more."""
        worker = Worker(self.settings, self.config, self.folder)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.end()

    def send(self, *events: dict[str, Any] | bytes, pause_s: float = 0) -> None:
        """Append events, keyed by user; bytes as they are."""

        async def go() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=self.settings.brokers, acks="all")
            await producer.start()
            try:
                for event in events:
                    key = who(event).encode() if isinstance(event, dict) else b"someone"
                    value = json.dumps(event).encode() if isinstance(event, dict) else event
                    await producer.send_and_wait(self.settings.topic("events"), value, key=key)
                    await asyncio.sleep(pause_s)
            finally:
                await producer.stop()

        asyncio.run(go())

    def buyers(self, count: int) -> list[dict[str, Any]]:
        """So many new people with an address, each of whom puts something into the cart, and nothing else."""
        events: list[dict[str, Any]] = []
        for number in range(self.people, self.people + count):
            user = f"u{number}"
            traits = {"email": f"{user}@example.com"}
            events += [
                {"type": "identify", "messageId": f"i{number}", "userId": user, "traits": traits},
                {"type": "track", "messageId": f"a{number}", "userId": user, "event": "Product Added"},
            ]
        self.people += count
        return events

    def read(self, name: str) -> list[Any]:
        """All committed records of a topic."""

        async def go() -> list[Any]:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self.settings.brokers, isolation_level="read_committed", auto_offset_reset="earliest"
            )
            await consumer.start()
            try:
                places = [TopicPartition(self.settings.topic(name), number) for number in range(4)]
                ends = await consumer.end_offsets(places)
                consumer.assign(places)
                records: list[Any] = []
                await consumer.seek_to_beginning(*places)
                while any([await consumer.position(place) < ends[place] for place in places]):
                    for some in (await consumer.getmany(timeout_ms=100)).values():
                        records += some
            finally:
                await consumer.stop()
            return records

        return asyncio.run(go())

    def log(self) -> list[dict[str, Any]]:
        """The decision log."""
        return [json.loads(record.value) for record in self.read("decision-log")]

    def decided(self) -> bool:
        """Whether everybody who bought something was decided on."""
        return len({entry["user_id"] for entry in self.log()}) == self.people

    def decided_times(self, count: int) -> None:
        """Wait for that many decisions."""
        wait_until(lambda: len(self.log()) >= count, f"{count} decisions", DEADLINE_S)

    def check(self) -> None:
        """Wait for all decisions; each person has exactly one, sent, and on both topics."""
        wait_until(self.decided, f"{self.people} decisions", DEADLINE_S)
        for topic in ("decision-log", "decisions"):
            times = Counter(json.loads(record.value)["user_id"] for record in self.read(topic))
            assert times == {f"u{number}": 1 for number in range(self.people)}, topic


@pytest.fixture
def shop(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(kafka, redis_url, topic_prefix, tmp_path)
    yield shop
    shop.close()


def test_two_workers_one_killed_one_stopped(shop: Shop) -> None:
    """One killed with -9, SIGTERM of the other, a third takes over, with events flowing: each decision once."""
    first, second = shop.worker(), shop.worker()
    wait_until(lambda: first.ready() and second.ready(), "two workers", DEADLINE_S)
    shop.send(*shop.buyers(100), pause_s=0.002)
    first.end(signal.SIGKILL)
    shop.send(*shop.buyers(100), pause_s=0.002)
    third = shop.worker()
    wait_until(lambda: third.ready() and second.ready(), "a third worker", DEADLINE_S)
    shop.send(*shop.buyers(100))
    assert second.end(signal.SIGTERM) == 0
    shop.send(*shop.buyers(100))
    shop.check()
    assert third.end(signal.SIGINT) == 0


def test_a_worker_that_leaves_is_followed_at_once(shop: Shop) -> None:
    """SIGTERM leaves the group: the other has all partitions before the session of the first could expire."""
    first, second = shop.worker(), shop.worker()
    wait_until(lambda: first.ready() and second.ready() and "2 part" in second.answer(), "two", DEADLINE_S)
    first.end(signal.SIGTERM)
    left_s = time.monotonic()
    wait_until(lambda: "4 partitions owned" in second.answer(), "the takeover", DEADLINE_S)
    assert time.monotonic() - left_s < 6.0, "the session of the first had to expire"


def test_timers_survive_a_death_and_redis(shop: Shop, redis_server: LocalRedis) -> None:
    """Everything pending when the only worker dies and Redis is emptied fires under the next one."""
    shop.settings = shop.settings.model_copy(update={"redis": redis_server.url})
    worker = shop.worker()
    wait_until(worker.ready, "a worker", DEADLINE_S)
    shop.send(*shop.buyers(50))
    worker.end(signal.SIGKILL)
    redis_server.flush()
    shop.worker()
    shop.check()


def test_flushall_and_restart_of_redis_while_running(shop: Shop, redis_server: LocalRedis) -> None:
    """Redis emptied and killed under a running worker; it is not ready meanwhile, and nobody is decided on twice."""
    shop.settings = shop.settings.model_copy(update={"redis": redis_server.url})
    worker = shop.worker()
    wait_until(worker.ready, "a worker", DEADLINE_S)
    for trouble in (redis_server.flush, redis_server.kill, redis_server.start, redis_server.flush):
        shop.send(*shop.buyers(20))
        trouble()
    shop.send(*shop.buyers(20))
    shop.check()
    wait_until(worker.ready, "the worker again", DEADLINE_S)


def test_the_broker_is_killed_while_running(
    kafka_server: LocalKafka, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """The broker dies and comes back under two workers; they go on, or are started again as a supervisor would."""
    shop = Shop(kafka_server.bootstrap, redis_url, topic_prefix, tmp_path)
    workers = [shop.worker(), shop.worker()]
    wait_until(lambda: all(worker.ready() for worker in workers), "two workers", DEADLINE_S)
    shop.send(*shop.buyers(100), pause_s=0.002)
    kafka_server.restart(kill=True)
    shop.send(*shop.buyers(100), pause_s=0.002)

    def supervised() -> bool:
        for number, worker in enumerate(workers):
            if worker.process.poll() is not None:
                workers[number] = shop.worker()
        return all(worker.answer().startswith("200") for worker in workers)

    wait_until(supervised, "two workers again", DEADLINE_S)
    shop.check()
    shop.close()


def test_what_waits_in_the_backlog_still_cancels(shop: Shop) -> None:
    """A purchase published before a timer was due and not yet read then cancels: no false reminders after a hang."""
    added = shop.buyers(30)
    bought = [
        {**event, "messageId": "o" + event["messageId"], "event": "Order Completed"}
        for event in added
        if event["type"] == "track"
    ]
    shop.config = CONFIG.replace("delay: 1s", "delay: 3s")
    worker = shop.worker()
    wait_until(worker.ready, "a worker", DEADLINE_S)
    shop.send(*added)
    due_s = time.monotonic() + 3

    def pending() -> float:
        lines = worker.answer("/metrics").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("decisioning_timers_pending{"))

    wait_until(lambda: pending() == len(bought), "pending timers", DEADLINE_S)
    worker.process.send_signal(signal.SIGSTOP)
    shop.send(*bought)
    wait_until(lambda: time.monotonic() > due_s, "the timers to be due", DEADLINE_S)
    worker.process.send_signal(signal.SIGCONT)
    wait_until(shop.decided, "the decisions", DEADLINE_S)
    assert Counter(entry["action"] for entry in shop.log()) == {"suppress": len(bought)}


def test_poison_is_put_aside_once_and_the_partition_goes_on(shop: Shop) -> None:
    """Every kind of record that is no event becomes one dead letter, with its own bytes."""
    poison = [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"type":"track"}', b"[" * 100_000, b"x" * 900_000,
        b'{"type":"track","messageId":"1","userId":"u","event":"E","timestamp":NaN}',
        b'{"type":"track","messageId":1,"userId":"u","event":"E"}',
    ]  # fmt: skip
    worker = shop.worker()
    shop.send(*poison, *shop.buyers(10), *poison)
    shop.check()
    letters = shop.read("dead-letters")
    assert Counter(record.value for record in letters) == Counter(poison + poison)
    headers = dict(letters[0].headers)
    assert headers["__connect.errors.topic"].decode() == shop.settings.topic("events")
    assert worker.ready()


def refused(shop: Shop) -> tuple[int, str]:
    worker = shop.worker()
    code = worker.process.wait(DEADLINE_S)
    return code, worker.output.read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"topic_prefix": "nobody."}, "topics create"),
        ({"kafka": f"127.0.0.1:{free_port()}"}, "--kafka"),
    ],
)
def test_a_worker_that_cannot_start_says_so_in_one_line(shop: Shop, change: dict[str, str], words: str) -> None:
    """Exit code 1, one line on stderr, with the remedy."""
    shop.settings = shop.settings.model_copy(update=change)
    code, output = refused(shop)
    lines = [line for line in output.splitlines() if line.startswith("decisioning")]
    assert code == 1
    assert len(lines) == 1
    assert words in lines[0]


def test_a_worker_follows_up_what_it_sent(shop: Shop) -> None:
    """Each message sent is followed by one more, with the other subject, also where another worker takes over."""
    again = """\
  - id: cart-again
    trigger:
      {event: Decision Sent, where: "event.properties.campaign == 'cart'", delay: 2s, per: properties.decision_id,
       exclude_variants: event.properties.variants}
    channels: [email]
    variants:
      subject: [{id: plain, text: "Still thinking it over?"}, {id: offer, text: "It is waiting"}]
"""
    shop.config += again
    worker = shop.worker()
    wait_until(worker.ready, "a worker", DEADLINE_S)
    shop.send(*shop.buyers(20))
    shop.decided_times(20)
    worker.end(signal.SIGKILL)
    shop.worker()
    shop.decided_times(40)
    log = shop.log()
    subjects = {(entry["user_id"], entry["campaign"]): entry["variants"]["subject"] for entry in log}
    assert len(log) == len(subjects) == 40
    assert all(subjects[f"u{number}", "cart"] != subjects[f"u{number}", "cart-again"] for number in range(20))
    firsts = {f"sent:{entry['decision_id']}" for entry in log if entry["campaign"] == "cart"}
    assert {entry["trigger"]["message_id"] for entry in log if entry["campaign"] == "cart-again"} == firsts
