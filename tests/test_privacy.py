"""Where a person's addresses are, and that they are nowhere after `erase`: on real servers, by the commands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from pydantic import SecretStr

from decisioning.partitioner import partition_of
from decisioning.pseudonyms import parse
from streams.topics import TOPICS
from tests.services import ROOT, LocalKafka, LocalRedis, wait_until
from tests.test_shell_worker import DEADLINE_S, Shop

PLANTED = ("ann.planted@example.com", "+491700000001", "push-token-of-ann")
ANN = "ann\n\x07\u202e-" + "ü" * 400
DEVICE = next(name for name in map("device-{}".format, range(99)) if partition_of(name, 4) != partition_of(ANN, 4))
QUIET = "somebody-quiet"
LONG_AGO = (datetime.now(UTC) - timedelta(days=40)).isoformat()
KEY = "2026:a-secret-of-this-test"
# Where the contract allows addresses; `changelog` and `internal` are state.
ALLOWED = {"events", "dead-letters", "decisions", "internal", "changelog"}
CONFIG = """\
version: 1
retention: {profile: 30d}
timezone: Europe/Berlin
channels:
  email: {address: email}
  sms: {address: phone}
  push: {address: push_token}
campaigns:
  - id: cart
    trigger: {event: Product Added, delay: 1s}
    channels: [email, sms, push]
    variants:
      subject: [{id: plain, text: "{{ user.traits.email }}, {{ event.properties.note | default: '' }}"}]
    goal: {event: Order Completed, within: 72h}
  - id: later
    trigger: {event: Product Added, delay: 20h}
    channels: [email]
    variants: {subject: [{id: a, text: "Later"}]}
"""
SMALL = {
    "segment.ms": "300",
    "min.cleanable.dirty.ratio": "0.0",
    "max.compaction.lag.ms": "1000",
    "file.delete.delay.ms": "100",
}


class Place:
    """A shop on servers of its own, whose files can be searched."""

    def __init__(self, shop: Shop, kafka: LocalKafka, server: LocalRedis) -> None:
        self.shop = shop
        self.kafka = kafka
        self.redis = server
        self.topics = {topic.name for topic in TOPICS}

    def compact_soon(self) -> None:
        """Have the changelog compacted within seconds rather than a day."""

        async def go() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.shop.settings.brokers)
            await admin.start()
            try:
                topic = self.shop.settings.topic("changelog")
                configs = {"cleanup.policy": "compact"} | SMALL
                await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
            finally:
                await admin.close()

        asyncio.run(go())

    def found(self, name: str, *words: str) -> set[str]:
        """Which of these words are in the files of a topic, keys and values."""
        folders = (self.kafka.home / "data").glob(f"{self.shop.settings.topic(name)}-*")
        return _found((file for folder in folders for file in folder.glob("*.log")), words)

    def found_in_redis(self, *words: str) -> set[str]:
        """Which of these words are in Redis's files or memory."""
        with redis.Redis.from_url(self.redis.url) as client:
            held = [
                part
                for key in client.scan_iter()
                if client.type(key) == b"hash"
                for pair in client.hgetall(key).items()
                for part in pair
            ]
        memory = b"\n".join(held)
        files = [file for file in self.redis.home.rglob("*") if file.is_file() and file.name != "server.log"]
        return _found(files, words) | {word for word in words if word.encode() in memory}

    def rewrite_aof(self) -> None:
        """Have Redis write its append-only file anew, uncompressed so that it can be searched."""
        with redis.Redis.from_url(self.redis.url) as client:
            client.config_set("rdbcompression", "no")
            client.bgrewriteaof()
            wait_until(lambda: _rewritten(client), "the append-only file", DEADLINE_S)

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; exit code, stdout and stderr."""
        settings = self.shop.settings
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DECISIONING_")}
        environment |= {
            "DECISIONING_KAFKA": settings.kafka,
            "DECISIONING_REDIS": settings.redis,
            "DECISIONING_TOPIC_PREFIX": settings.topic_prefix,
            "DECISIONING_GROUP": settings.group,
            "DECISIONING_PSEUDONYM_KEY": KEY,
        }
        line = [sys.executable, "-c", "from streams.cli import main; main()", *arguments]
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=DEADLINE_S)
        return done.returncode, done.stdout.decode(), done.stderr.decode()


def _found(files: Any, words: tuple[str, ...]) -> set[str]:
    found = set()
    for file in files:
        try:
            data = file.read_bytes()
        except FileNotFoundError:  # compacted away meanwhile
            continue
        found |= {word for word in words if word.encode() in data}
    return found


def _rewritten(client: Any) -> bool:
    info = client.info("persistence")
    return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]


@pytest.fixture
def place(kafka_server: LocalKafka, redis_server: LocalRedis, topic_prefix: str, tmp_path: Path) -> Iterator[Place]:
    shop = Shop(kafka_server.bootstrap, redis_server.url, topic_prefix, tmp_path)
    shop.config = CONFIG
    shop.settings = shop.settings.model_copy(update={"pseudonym_key": SecretStr(KEY)})
    yield Place(shop, kafka_server, redis_server)
    shop.close()


def life() -> list[dict[str, Any]]:
    """What ann did, under two ids whose homes differ; every event has something of hers in it."""
    email, phone, token = PLANTED
    anonymous = {"type": "track", "messageId": "v", "event": "Product Added"}
    return [
        {**anonymous, "anonymousId": DEVICE, "properties": {"note": email}},
        {
            "type": "identify",
            "messageId": "i",
            "userId": ANN,
            "anonymousId": DEVICE,
            "traits": {"email": email, "phone": phone, "push_token": token},
        },
        {"type": "track", "messageId": "t", "userId": ANN, "event": "Product Added", "properties": {"note": phone}},
        {**anonymous, "event": "Old", "messageId": "o", "userId": QUIET, "timestamp": LONG_AGO},
        {"type": "track", "messageId": "bad", "userId": ANN, "properties": {"note": email}},
    ]


def test_addresses_are_where_they_may_be_and_nowhere_after_erase(place: Place) -> None:
    """Planted addresses are looked for in every file of Kafka and Redis, log lines and metrics, before and after."""
    shop = place.shop
    place.compact_soon()
    worker = shop.worker()
    wait_until(worker.ready, "a worker", DEADLINE_S)
    shop.send(*life())
    wait_until(lambda: len(shop.read("decisions")) >= 1 and len(shop.read("dead-letters")) == 1, "it", DEADLINE_S)
    wait_until(lambda: bool(place.found("examples", "cart/subject")), "the examples", DEADLINE_S)

    for name in place.topics - ALLOWED:
        assert not place.found(name, *PLANTED), name
    for name in ("events", "dead-letters", "decisions", "changelog"):
        assert place.found(name, *PLANTED), f"{name}: nothing would be found if it were there"
    assert place.found_in_redis(*PLANTED)
    pseudonym = parse(KEY).of(ANN)
    assert place.found("examples", ANN, DEVICE, str(pseudonym)) == {pseudonym}
    told = worker.output.read_text() + worker.answer("/metrics")
    assert not [word for word in (*PLANTED, ANN, DEVICE) if word in told]

    code, out, err = place.command("export", DEVICE)
    assert code == 0, err
    exported = json.loads(out)
    assert exported["person"] == ANN
    assert exported["ids"] == [DEVICE, ANN]
    assert [exported["state"][ANN]["profile"]["traits"][name]["value"] for name in ("email", "phone")] == [*PLANTED[:2]]
    counted = {name: len(records) for name, records in exported["records"].items()}
    assert counted["events"] == 4
    assert counted["dead-letters"] == 1
    assert counted["decision-log"] == counted["decisions"] == len(shop.read("decisions"))
    assert counted["examples"] > 0

    code, out, err = place.command("erase", "--", DEVICE)
    assert code == 0, err
    proof = json.loads(out)
    assert (proof["user_id"], proof["reasons"], proof["campaign"]) == (ANN, ["erased"], None)
    assert "waiting for the proof" in err
    wait_until(lambda: not place.found("changelog", *PLANTED) or _moves(shop), "the compaction", DEADLINE_S)
    place.rewrite_aof()
    assert not place.found_in_redis(*PLANTED)

    timed = [event | {"timestamp": LONG_AGO} for event in life()[:3]]
    shop.send(*timed, *(event | {"messageId": f"again-{event['messageId']}"} for event in timed))
    wait_until(lambda: "decisioning_erased_events_total 0.0" not in worker.answer("/metrics"), "replays", DEADLINE_S)
    wait_until(lambda: not place.found("changelog", *PLANTED) or _moves(shop), "the compaction", DEADLINE_S)
    place.rewrite_aof()
    assert not place.found_in_redis(*PLANTED)
    code, out, _ = place.command("export", ANN)
    held = json.loads(out)
    assert list(held["state"]) == [ANN]
    assert set(held["state"][ANN]["profile"]) == {"erased"}
    wait_until(lambda: "expired_profiles_total 1.0" in worker.answer("/metrics"), "the idle person", DEADLINE_S)
    code, out, _ = place.command("export", QUIET)
    assert json.loads(out)["state"] == {}
    assert "decisioning_fenced_total 0.0" in worker.answer("/metrics")
    assert worker.ready()

    worker.end(signal.SIGTERM)
    place.redis.flush()
    code, out, err = place.command("export", ANN)
    assert json.loads(out)["state"] == held["state"]
    assert "reading the changelog" in err


def _moves(shop: Shop) -> bool:
    """Let time go on in every partition, so that segments are closed; never what is waited for."""
    shop.send(*({"type": "page", "messageId": f"p{n}", "userId": f"other-{n}"} for n in range(8)), pause_s=0.05)
    return False


def test_nothing_held_is_said(place: Place) -> None:
    """A person nobody has heard of, and a request without a worker: one line each."""
    code, out, err = place.command("export", "nobody\n")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "decisioning: nothing is held about 'nobody\\n'; check the id"
    code, out, err = place.command("erase", ANN, "--timeout", "1")
    assert (code, out) == (1, "")
    assert "is a worker running?" in err.splitlines()[-1]
    code, out, err = place.command("erase", ANN, "--no-wait")
    assert (code, out) == (0, "")
    assert len(place.shop.read("events")) == 2
    code, out, _ = place.command("pseudonym", ANN)
    assert (code, out) == (0, f"{parse(KEY).of(ANN)}\n")
