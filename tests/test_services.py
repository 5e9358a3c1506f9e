"""The servers the tests start keep data over a crash, take large records, and never outlive the run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests import services

TEN_MB = 10_000_000


async def _produce(bootstrap: str, topic: str, value: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "12000000"})])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic, max_request_size=12_000_000)
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(topic, value, partition=0)
    await producer.stop()


async def _end_offset(bootstrap: str, topic: str) -> int:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    partition = TopicPartition(topic, 0)
    offsets = await consumer.end_offsets([partition])
    await consumer.stop()
    return int(offsets[partition])


def test_broker_keeps_a_large_transaction_over_a_crash(kafka_server: services.LocalKafka, topic_prefix: str) -> None:
    """A committed record of 10 MB is still there after kill -9 and a restart on the same port."""
    topic = f"{topic_prefix}large"
    asyncio.run(_produce(kafka_server.bootstrap, topic, b"x" * TEN_MB))
    before = asyncio.run(_end_offset(kafka_server.bootstrap, topic))
    assert before == 2  # the record and its commit marker
    kafka_server.restart(kill=True)
    assert asyncio.run(_end_offset(kafka_server.bootstrap, topic)) == before


def test_redis_keeps_data_over_a_restart_and_loses_it_on_flush(redis_server: services.LocalRedis) -> None:
    """What was written survives a restart; after `flush` nothing is left."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("k", "v")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    redis_server.restart()
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.get("k") == b"v"
        redis_server.flush()
        assert client.dbsize() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_servers_die_with_the_run(how: signal.Signals, redis_server: services.LocalRedis) -> None:
    """Even if the test process is killed outright, its servers are gone soon after."""
    script = """if True:
        from tests.services import LocalRedis
        print(LocalRedis().start().pid, flush=True)
        input()
    """
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], cwd=services.ROOT, stdin=pipe, stdout=pipe) as owner:
        assert owner.stdout is not None
        server = int(owner.stdout.readline())
        owner.send_signal(how)
    services.wait_until(lambda: not _runs(server), f"the end of process {server}")
    assert redis_server.answers()  # and nobody else's


def test_a_named_address_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address from the environment is never silently replaced by another server."""
    monkeypatch.setenv("SOME_REDIS", f"redis://127.0.0.1:{services.free_port()}/0")
    with pytest.raises(services.UnavailableError, match="SOME_REDIS"):
        services.obtain("SOME_REDIS", services.redis_answers, [services.local_redis])


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
