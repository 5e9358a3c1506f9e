"""Every query of the dashboard and every alert is evaluated by a real Prometheus that scrapes a real worker."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaProducer

from decisioning.partitioner import partition_of
from streams.settings import load
from streams.topics import create
from tests.services import LocalServer, wait_until
from tests.test_deploy import ALERTS, DEPLOY, dashboard_queries, tool

PARTITIONS = 2
CAMPAIGN = {
    "id": "cart",
    "trigger": {
        "event": "Product Added",
        "where": "event.properties.price >= 20",
        "delay": "1s",
        "cancel_on": ["Order Completed"],
    },
    "channels": ["email"],
    "variants": {
        "subject": [
            {"id": "plain", "text": "Your basket", "when": "event.properties.sale == false"},
            {"id": "sale", "text": "Cheaper today", "when": "event.properties.sale"},
        ]
    },
    "goal": {"event": "Order Completed", "within": "1h", "value": "properties.revenue"},
}
CONFIG = {
    "version": 1,
    "timezone": "UTC",
    "channels": {"email": {"address": "email"}},
    "holdout": {"share": 0.01, "salt": "nobody of these"},
    "campaigns": [CAMPAIGN],
}


def get(url: str) -> bytes:
    """Body of a GET; an empty one if nobody answers or the answer is no."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            body: bytes = answer.read()
            return body
    except (urllib.error.URLError, OSError):
        return b""


class Worker(LocalServer):
    """A worker on a prefix of its own."""

    def __init__(self, kafka: str, redis: str, prefix: str) -> None:
        super().__init__("worker")
        self.config = self.home / "shop.yaml"
        self.config.write_text(yaml.safe_dump(CONFIG))
        self.options = ["--kafka", kafka, "--redis", redis, "--topic-prefix", prefix, "--group", f"{prefix}g"]

    def command(self) -> list[str]:
        program = str(Path(sys.executable).with_name("decisioning"))
        return [program, "worker", "--config", str(self.config), *self.options, "--web-port", str(self.port)]

    def answers(self) -> bool:
        return bool(get(f"http://127.0.0.1:{self.port}/readyz"))


class Prometheus(LocalServer):
    """A Prometheus that scrapes one worker each second, with the rules of `deploy/`."""

    def __init__(self, worker: Worker) -> None:
        self._program = tool("prometheus")
        super().__init__("prometheus")
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(ALERTS)]
        (job,) = config["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{worker.port}"]}]
        (self.home / "prometheus.yml").write_text(yaml.safe_dump(config))

    def command(self) -> list[str]:
        return [
            self._program,
            f"--config.file={self.home}/prometheus.yml",
            f"--storage.tsdb.path={self.home}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def answers(self) -> bool:
        return bool(get(f"http://127.0.0.1:{self.port}/-/ready"))

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an API call."""
        query = urllib.parse.urlencode(parameters)
        answer = json.loads(get(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}") or "{}")
        return answer.get("data")

    def samples(self, query: str) -> list[Any]:
        """The result of an instant query; an invalid one gives none."""
        data = self.ask("query", query=query.replace("$__rate_interval", "1m"))
        return list(data["result"]) if data else []


def event(person: str, number: int, what: str, at: datetime, **properties: object) -> tuple[str, bytes]:
    """Key and value of a track event."""
    body = {
        "type": "track",
        "messageId": f"{person}-{number}",
        "userId": person,
        "event": what,
        "timestamp": at.isoformat(),
        "properties": properties,
    }
    return person, json.dumps(body).encode()


def traffic() -> Iterator[tuple[str, bytes]]:
    """One of everything that is counted: sent, cancelled, unsayable, doubled, far off in time, no event at all."""
    now = datetime.now(UTC)
    for person in ("ann", "bob", "cleo", "dan"):
        body = {"type": "identify", "messageId": f"{person}-0", "userId": person}
        yield person, json.dumps({**body, "traits": {"email": f"{person}@example.com"}}).encode()
    yield event("ann", 1, "Product Added", now, price=30, sale=True)
    yield event("ann", 1, "Product Added", now, price=30, sale=True)
    yield event("bob", 1, "Product Added", now, price=30)
    yield event("bob", 2, "Order Completed", now + timedelta(milliseconds=1), revenue=30)
    yield event("cleo", 1, "Product Added", now + timedelta(days=900), price="a lot")
    yield event("dan", 1, "Product Added", now, price=30)
    yield "eve", b"{not json"


async def produce(kafka: str, prefix: str, records: list[tuple[str, bytes]], move: int = 0) -> None:
    """Append records to `events`, each `move` partitions beside its own."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    for key, value in records:
        partition = (partition_of(key, PARTITIONS) + move) % PARTITIONS
        await producer.send_and_wait(f"{prefix}events", value, key.encode(), partition)
    await producer.stop()


async def damage(kafka: str, prefix: str) -> None:
    """An example nobody can learn from, and a snapshot nobody can use."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    for topic in ("examples", "models"):
        await producer.send_and_wait(f"{prefix}{topic}", b"{}", b"cart/channel", 0)
    await producer.stop()


@pytest.fixture
def worker(kafka: str, redis_url: str, topic_prefix: str) -> Iterator[Worker]:
    """A worker that is ready, on topics of its own."""
    settings = load(kafka=kafka, redis=redis_url, topic_prefix=topic_prefix, partitions=PARTITIONS)
    asyncio.run(create(settings))
    with Worker(kafka, redis_url, topic_prefix) as server:
        yield server


def test_every_query_has_an_answer(worker: Worker, kafka: str, topic_prefix: str) -> None:
    """No query of the dashboard is empty once each kind of event has come, and Prometheus evaluates all alerts."""
    with Prometheus(worker) as prometheus:
        asyncio.run(produce(kafka, topic_prefix, list(traffic())))
        astray = event("fay", 1, "Product Viewed", datetime.now(UTC))
        asyncio.run(produce(kafka, topic_prefix, [astray], move=1))
        wait_until(lambda: bool(prometheus.samples('decisioning_decisions_total{action="send"} > 0')), "a decision")
        bought = event("ann", 2, "Order Completed", datetime.now(UTC), revenue=60)
        asyncio.run(produce(kafka, topic_prefix, [bought]))
        asyncio.run(damage(kafka, topic_prefix))

        unanswered = set(dashboard_queries())

        def all_answered() -> bool:
            unanswered.difference_update([query for query in unanswered if prometheus.samples(query)])
            return not unanswered

        try:
            wait_until(all_answered, "answers", seconds=30)
        except TimeoutError:
            assert unanswered == set()
        rules = prometheus.ask("rules")["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
