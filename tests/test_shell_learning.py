"""Worker processes on a real broker and Redis that learn: what one of them learns, all of them decide with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from bandits.snapshot import decode
from decisioning.config import load
from decisioning.learning import learner_of
from decisioning.plan import plans_of
from streams.cli import main
from tests.services import wait_until
from tests.test_shell_worker import CONFIG, DEADLINE_S, Shop, Worker

LEARNING = CONFIG.replace("delay: 1s", "delay: 0s").replace(
    "policy: {algorithm: uniform}",
    "goal: {event: Order Completed, within: 1h, value: properties.revenue}\n"
    "    policy: {algorithm: thompson, explore: 0.1}",
)
MODEL = "cart/subject"
BEST = "offer"


@pytest.fixture
def shop(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(kafka, redis_url, topic_prefix, tmp_path)
    shop.config = LEARNING
    yield shop
    shop.close()


class Commands:
    """Commands of ours, run in this process: starting one of its own takes seconds."""

    def __init__(self, shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
        self._shop = shop
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str]:
        """Exit code, and all that is printed."""
        settings = self._shop.settings
        with pytest.raises(SystemExit) as ended:
            main([*words, "--kafka", settings.kafka, "--topic-prefix", settings.topic_prefix])
        said = self._capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err


@pytest.fixture
def command(shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    for name in [name for name in os.environ if name.startswith("DECISIONING_")]:
        monkeypatch.delenv(name)
    return Commands(shop, capsys)


def rewarded(shop: Shop) -> list[dict[str, Any]]:
    """An order for everybody who was sent the best subject and has not ordered yet."""
    ordered = {record.key.decode() for record in shop.read("events") if b"Order Completed" in record.value}
    return [
        {
            "type": "track",
            "messageId": f"o-{entry['user_id']}",
            "userId": entry["user_id"],
            "event": "Order Completed",
            "properties": {"revenue": 5.0, "decision_id": entry["decision_id"]},
        }
        for entry in shop.log()
        if entry["user_id"] not in {None, *ordered} and entry["variants"].get("subject") == BEST
    ]


def buy(shop: Shop, count: int) -> None:
    """So many more people, until all are decided on."""
    shop.send(*shop.buyers(count))
    wait_until(lambda: len([e for e in shop.log() if e["user_id"]]) == shop.people, "the decisions", DEADLINE_S)


def latest(shop: Shop) -> dict[str, bytes]:
    """Key -> latest value of `models`."""
    return {record.key.decode(): record.value for record in shop.read("models")}


def learned(shop: Shop, records: int | None = None) -> dict[str, bytes]:
    """The snapshots of somebody who reads all examples once, without any interruption."""
    learner = learner_of(plans_of(load(LEARNING)))
    for record in shop.read("examples")[:records]:
        learner.take(record.value, record.offset)
    return learner.snapshots()


def caught_up(shop: Shop) -> bool:
    """Whether everything that can be learned was."""
    wanted = learned(shop)
    return bool(wanted) and wanted == {key: value for key, value in latest(shop).items() if key[0] != "@"}


def metric(worker: Worker, line: str) -> float:
    """Value of a series, by its name and labels; 0 where there is none."""
    found = [text for text in worker.answer("/metrics").splitlines() if text.startswith(line)]
    return sum(float(text.split()[-1]) for text in found)


def teach(shop: Shop) -> None:
    """Buyers, then the orders of those who got the best subject, and all of it learned."""
    buy(shop, 60)
    shop.send(*rewarded(shop))
    wait_until(lambda: any(json.loads(r.value)["correction"] for r in shop.read("examples")), "outcomes", DEADLINE_S)
    wait_until(lambda: caught_up(shop), "a snapshot of all examples", DEADLINE_S)


def test_an_outcome_changes_what_every_worker_decides(shop: Shop, command: Commands) -> None:
    """One worker learns; decisions of both name its snapshot and prefer what was bought, on every partition."""
    workers = [shop.worker(), shop.worker()]
    wait_until(lambda: all(w.ready() and "2 partitions" in w.answer() for w in workers), "two workers", DEADLINE_S)
    teach(shop)
    version = decode(latest(shop)[MODEL]).version
    line = f'decisioning_model_version{{model="{MODEL}"}}'
    wait_until(lambda: all(metric(worker, line) == version for worker in workers), "the news", DEADLINE_S)
    before = shop.people
    buy(shop, 40)
    entries = [entry for entry in shop.log() if int(entry["user_id"][1:]) >= before]
    assert {entry["as_of"]["partition"] for entry in entries} == {0, 1, 2, 3}
    assert all(entry["model_versions"][MODEL] >= version for entry in entries)
    assert min(entry["arms"]["subject"][BEST] for entry in entries) > 0.8
    assert sum(metric(worker, "decisioning_snapshots_published_total") > 0 for worker in workers) == 1
    code, words = command("explain", entries[-1]["decision_id"])
    assert code == 0, words
    assert f"model {MODEL} after" in words
    assert "computed again from it" in words


def test_a_killed_learner_leaves_no_trace(shop: Shop) -> None:
    """Whoever learns is killed, again and again, while examples come: in the end the bytes of one quiet reading."""
    wait_until(shop.worker().ready, "a worker", DEADLINE_S)
    for _ in range(2):
        shop.send(*shop.buyers(60), pause_s=0.002)
        shop.send(*rewarded(shop))
        shop.workers[-1].end(signal.SIGKILL)
        shop.worker()
    wait_until(shop.workers[-1].ready, "a worker", DEADLINE_S)
    teach(shop)
    kept = shop.read("model-history")
    assert len({record.key for record in kept}) == len(kept), "a version was published twice"
    positions = {record.offset: number for number, record in enumerate(shop.read("examples"), 1)}
    for record in kept[:: max(1, len(kept) // 6)]:
        model, _, version = record.key.decode().rpartition("@")
        assert record.value == learned(shop, positions[int(version) - 1])[model]


def test_a_damaged_snapshot_changes_nothing(shop: Shop) -> None:
    """Bytes that are no snapshot are counted and passed over; the next learner mends them."""
    worker = shop.worker()
    wait_until(worker.ready, "a worker", DEADLINE_S)
    teach(shop)
    right = latest(shop)[MODEL]

    async def damage() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=shop.settings.brokers)
        await producer.start()
        await producer.send_and_wait(shop.settings.topic("models"), b'{"schema": 99}', MODEL.encode(), 0)
        await producer.stop()

    asyncio.run(damage())
    wait_until(lambda: metric(worker, 'decisioning_snapshots_refused_total{by="worker"}') == 1, "it", DEADLINE_S)
    assert metric(worker, f'decisioning_model_version{{model="{MODEL}"}}') == decode(right).version
    worker.end(signal.SIGTERM)
    second = shop.worker()
    wait_until(lambda: latest(shop)[MODEL] == right, "the mended snapshot", DEADLINE_S)
    wait_until(second.ready, "a worker", DEADLINE_S)
    assert metric(second, 'decisioning_snapshots_refused_total{by="learner"}') == 1


def test_models_are_pinned_and_rolled_back(shop: Shop, command: Commands) -> None:
    """A pin holds for all workers while learning goes on, is in the log, and ends; wrong ones are refused in a line."""
    worker = shop.worker()
    wait_until(worker.ready, "a worker", DEADLINE_S)
    assert command("models", "list") == (0, "nothing was learned yet\n")
    teach(shop)
    code, words = command("models", "show", MODEL, "--json")
    assert code == 0
    said = json.loads(words)
    first = said["kept"]["last"][0]["version"]
    assert set(said["arms"]) == {"plain", BEST}
    assert said["arms"][BEST]["mean"] == pytest.approx(5.0)
    assert command("models", "pin", MODEL, str(first), "--by", "ann", "--reason", "sale")[0] == 0
    line = f'decisioning_model_version{{model="{MODEL}"}}'
    wait_until(lambda: metric(worker, line) == first, "the pin", DEADLINE_S)
    teach(shop)
    assert metric(worker, line) == first
    assert decode(latest(shop)[MODEL]).version > first
    (listed,) = [one for one in json.loads(command("models", "list", "--json")[1]) if one["model"] == MODEL]
    assert (listed["in_use"], listed["pinned"]["by"]) == (first, "ann")
    assert "already" in command("models", "pin", MODEL, str(first))[1]
    code, words = command("models", "pin", MODEL, "1")
    assert (code, "no version 1" in words, words.count("\n")) == (1, True, 1)
    assert command("models", "rollback", MODEL, "--age", "0s")[0] == 0
    wait_until(lambda: metric(worker, line) == decode(latest(shop)[MODEL]).version, "the rollback", DEADLINE_S)
    assert command("models", "unpin", MODEL)[0] == 0
    assert command("models", "rollback", MODEL)[0] == 1
    assert command("models", "promote", MODEL, str(first), "--force", "--reason", "judged")[0] == 0
    wait_until(lambda: metric(worker, line) == first, "the promotion", DEADLINE_S)
    actions = [(e["action"], e["model"]) for e in shop.log() if e["user_id"] is None]
    assert actions == [("pin", MODEL), ("rollback", MODEL), ("unpin", MODEL), ("promote", MODEL)]
