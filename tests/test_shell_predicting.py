"""A worker process on a real broker that learns a propensity model, decides with it and measures it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.services import wait_until
from tests.test_propensity_fold import log_of
from tests.test_shell_learning import LEARNING, buy, latest, metric
from tests.test_shell_worker import DEADLINE_S, Shop

MODEL = "propensity/open"


@pytest.fixture
def shop(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(kafka, redis_url, topic_prefix, tmp_path)
    shop.config = LEARNING + "\npropensity: {models: [open, click]}\n"
    yield shop
    shop.close()


def post(shop: Shop, records: list[bytes]) -> None:
    """Examples as if workers had published them months ago."""

    async def go() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=shop.settings.brokers)
        await producer.start()
        for record in records:
            await producer.send(shop.settings.topic("examples"), record, b"propensity", 0)
        await producer.flush()
        await producer.stop()

    asyncio.run(go())


def test_a_worker_learns_a_model_and_decides_with_it(shop: Shop) -> None:
    """Old examples mature at once; the score is in the context of what is decided then; a restart goes on with it."""
    worker = shop.worker()
    wait_until(worker.ready, "a worker", DEADLINE_S)
    post(shop, log_of(6, 450))
    wait_until(lambda: metric(worker, f'decisioning_model_version{{model="{MODEL}"}}') > 0, "the model", DEADLINE_S)
    assert 0.0 < metric(worker, f'decisioning_model_logloss{{model="{MODEL}"}}') < 1.0
    buy(shop, 3)
    entries = [entry for entry in shop.log() if entry["user_id"]]
    assert all(0.0 < entry["context"]["propensity_open"] < 1.0 for entry in entries)
    assert all(entry["model_versions"][MODEL] > 0 for entry in entries)
    kept = latest(shop)[MODEL]
    worker.end(signal.SIGTERM)
    second = shop.worker()
    wait_until(second.ready, "a worker", DEADLINE_S)
    buy(shop, 1)
    assert latest(shop)[MODEL] == kept
    assert metric(second, 'decisioning_snapshots_refused_total{by="learner"}') == 0
