"""Worker processes on a real broker and Redis, told things while they run: pauses, stock, other configurations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decisioning.config import load
from tests.services import wait_until
from tests.test_shell_worker import COMMAND, CONFIG, DEADLINE_S, ROOT, Shop, Worker

OTHER = CONFIG[CONFIG.index("  - id: cart") :].replace("id: cart", "id: other").replace("delay: 1s", "delay: 2s")


@pytest.fixture
def shop(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(kafka, redis_url, topic_prefix, tmp_path)
    yield shop
    shop.close()


def command(shop: Shop, *words: str) -> tuple[int, str]:
    """Exit code of a command of ours, and all it prints."""
    settings = shop.settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DECISIONING_")}
    environment |= {"DECISIONING_KAFKA": settings.kafka, "DECISIONING_TOPIC_PREFIX": settings.topic_prefix}
    done = subprocess.run(
        [*COMMAND, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )
    return done.returncode, done.stdout + done.stderr


def heard(worker: Worker, times: int) -> None:
    """Wait until a worker has been told so many changes."""
    wait_until(lambda: worker.output.read_text().count("paused or resumed") == times, "the news", DEADLINE_S)


def outcomes(shop: Shop) -> dict[str, list[Any]]:
    """Campaign -> who was decided on, and how."""
    found: dict[str, list[Any]] = {}
    for entry in shop.log():
        found.setdefault(entry["campaign"], []).append((entry["user_id"], entry["action"]))
    return found


def test_a_paused_campaign_sends_nothing_until_it_is_resumed(shop: Shop) -> None:
    """Told while it runs, kept by the next worker from its start; resumed, each held decision goes out once.

    That the other campaign, which is due later, has decided on everybody shows that this one did not.
    """
    shop.config = CONFIG + OTHER
    first = shop.worker()
    wait_until(first.ready, "a worker", DEADLINE_S)
    pause = ("pause", "cart", "--by", "ann", "--reason", "wrong price", "--config", str(shop.folder / "campaigns.yaml"))
    assert command(shop, *pause) == (0, "cart: paused\n")
    code, words = command(shop, *pause)
    assert (code, words.split(" since")[0], words.split(", ")[-1]) == (0, "cart: paused already", "by ann\n")
    heard(first, 1)
    shop.send(*shop.buyers(20))
    wait_until(lambda: len(outcomes(shop).get("other", [])) == 20, "the other campaign", DEADLINE_S)
    first.end(signal.SIGKILL)
    second = shop.worker()
    wait_until(second.ready, "a second worker", DEADLINE_S)
    shop.send(*shop.buyers(20))
    wait_until(lambda: len(outcomes(shop).get("other", [])) == 40, "the other campaign", DEADLINE_S)
    assert [action for _, action in outcomes(shop)["cart"]] == ["pause"]
    assert command(shop, "resume", "cart", "--by", "bob")[0] == 0
    wait_until(lambda: len(outcomes(shop)["cart"]) == 42, "what was held", DEADLINE_S)
    log = shop.log()
    assert Counter(entry["user_id"] for entry in log if entry["campaign"] == "cart" and entry["user_id"]) == {
        f"u{number}": 1 for number in range(40)
    }
    assert [(e["action"], e["by"], e["note"]) for e in log if e["user_id"] is None] == [
        ("pause", "ann", "wrong price"),
        ("resume", "bob", ""),
    ]


def test_what_is_out_of_stock_is_known_to_every_worker(shop: Shop) -> None:
    """One worker is told that a product is sold out; another, started later, does not advertise it."""
    stock = "channels: [email]\n    requires_stock: properties.product_id\n"
    shop.config = CONFIG.replace("channels: [email]\n", stock)
    first = shop.worker()
    wait_until(first.ready, "a worker", DEADLINE_S)
    gone = {"type": "track", "messageId": "s", "event": "Product Out of Stock", "properties": {"product_id": "p1"}}
    shop.send({**gone, "userId": "product:p1"}, *shop.buyers(1))
    shop.check()  # a step after the one with the stock, so that one is committed
    first.end(signal.SIGKILL)
    second = shop.worker()
    wait_until(second.ready, "a second worker", DEADLINE_S)
    events = shop.buyers(20)
    for number, event in enumerate(events):
        if event["type"] == "track":
            event["properties"] = {"product_id": f"p{number // 2 % 2}"}
    shop.send(*events)
    wait_until(shop.decided, "the decisions", DEADLINE_S)
    assert Counter(reason for entry in shop.log() for reason in entry["reasons"]) == {"out_of_stock": 10}
    wanted = {str(event["userId"]) for event in events if event.get("properties") == {"product_id": "p1"}}
    assert {entry["user_id"] for entry in shop.log() if entry["reasons"]} == wanted


def test_two_configurations_in_one_group_stay_correct(shop: Shop, tmp_path: Path) -> None:
    """Workers of two versions take partitions from each other: each decision once, and it names its version."""
    other = tmp_path / "other"
    other.mkdir()
    text = CONFIG.replace("It is waiting", "It is still there")
    shop.worker()
    second = Worker(shop.settings, text, other)
    shop.workers.append(second)
    wait_until(lambda: all(w.ready() and "2 partitions" in w.answer() for w in shop.workers), "two", DEADLINE_S)
    shop.send(*shop.buyers(100), pause_s=0.002)
    wait_until(shop.decided, "the decisions", DEADLINE_S)
    shop.send(*shop.buyers(50))
    second.end(signal.SIGKILL)
    third = Worker(shop.settings, text, other)
    shop.workers.append(third)
    shop.send(*shop.buyers(50), pause_s=0.002)
    shop.check()
    versions = {load(config).version_hash for config in (CONFIG, text)}
    assert {entry["config_version"] for entry in shop.log()} == versions


def test_a_new_configuration_holds_for_what_is_pending(shop: Shop) -> None:
    """Timers set under one configuration are decided by the next: what is gone is cancelled, the rest by its rules."""
    shop.config = (CONFIG + OTHER).replace("delay: 1s", "delay: 4s").replace("delay: 2s", "delay: 4s")
    first = shop.worker()
    wait_until(first.ready, "a worker", DEADLINE_S)
    shop.send(*shop.buyers(10))

    def pending() -> bool:
        lines = first.answer("/metrics").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("decisioning_timers_pending{")) == 10

    wait_until(pending, "pending timers", DEADLINE_S)
    assert first.end(signal.SIGTERM) == 0
    assert shop.log() == []
    shop.config = shop.config.replace("- id: cart", "- id: new").replace(
        "- id: other", '- id: other\n    when: "user.orders_total > 0"'
    )
    shop.worker()
    wait_until(lambda: len(shop.log()) == 20, "the decisions", DEADLINE_S)
    found = Counter((entry["campaign"], *entry["reasons"], entry["config_version"]) for entry in shop.log())
    version = load(shop.config).version_hash
    assert found == {("cart", "cancelled", version): 10, ("other", "not_eligible", version): 10}


def test_pausing_without_topics_says_what_to_do(shop: Shop) -> None:
    """One line with the remedy, exit code 1; nothing is created."""
    shop.settings = shop.settings.model_copy(update={"topic_prefix": "nobody."})
    code, words = command(shop, "pause", "cart")
    assert code == 1
    assert "topics create" in words.splitlines()[-1]
    assert json.dumps(words).count("Traceback") == 0
