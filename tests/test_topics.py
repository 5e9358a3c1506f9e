"""Topics: created as they have to be, verified where they are, on a real broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams import settings, topics
from streams.settings import Settings

PARTITIONED = {"events", "internal", "decisions", "decision-log", "changelog", "dead-letters"}
SINGLE = {"examples", "models", "model-history", "control", "catalog"}


def _settings(kafka: str, prefix: str, partitions: int = 3) -> Settings:
    return settings.load(kafka=kafka, topic_prefix=prefix, partitions=partitions)


def _create(found: Settings) -> dict[str, topics.Outcome]:
    outcomes = asyncio.run(topics.create(found))
    return {outcome.topic.removeprefix(found.topic_prefix): outcome for outcome in outcomes}


async def _make(kafka: str, name: str, partitions: int, **configs: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    named = {key.replace("_", "."): value for key, value in configs.items()}
    response = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=named)])
    await admin.close()
    assert response.topic_errors[0][1] == 0


async def _describe(kafka: str, prefix: str) -> tuple[dict[str, int], dict[str, dict[str, str]]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    partitions = {
        topic["topic"].removeprefix(prefix): len(topic["partitions"])
        for topic in await admin.describe_topics()
        if topic["topic"].startswith(prefix)
    }
    resources = [ConfigResource(ConfigResourceType.TOPIC, prefix + name) for name in partitions]
    configs = topics._by_resource(await admin.describe_configs(resources))
    await admin.close()
    return partitions, {name.removeprefix(prefix): config for name, config in configs.items()}


def test_topics_are_created_as_the_worker_needs_them(kafka: str, topic_prefix: str) -> None:
    """Partitions, timestamps, compaction and sizes are what the rest relies on."""
    outcomes = _create(_settings(kafka, topic_prefix))
    assert {name for name, outcome in outcomes.items() if outcome.state == "created"} == PARTITIONED | SINGLE
    partitions, configs = asyncio.run(_describe(kafka, topic_prefix))
    assert partitions == dict.fromkeys(PARTITIONED, 3) | dict.fromkeys(SINGLE, 1)
    appended = {name for name, config in configs.items() if config["message.timestamp.type"] == "LogAppendTime"}
    assert appended == {"events", "internal"}
    compacted = {name for name, config in configs.items() if config["cleanup.policy"] == "compact"}
    assert compacted == {"changelog", "models", "control", "catalog"}
    for name in PARTITIONED:
        assert int(configs[name]["max.message.bytes"]) >= 3 * 256 * 1024
    assert int(configs["dead-letters"]["max.message.bytes"]) > int(configs["events"]["max.message.bytes"])
    assert int(configs["changelog"]["delete.retention.ms"]) == topics.CHANGELOG_DELETE_RETENTION_MS


def test_a_second_time_changes_nothing(kafka: str, topic_prefix: str) -> None:
    """Creating is idempotent, and says what was there."""
    found = _settings(kafka, topic_prefix)
    _create(found)
    outcomes = _create(found)
    assert {outcome.state for outcome in outcomes.values()} == {"right"}
    assert outcomes["events"].detail == "3 partitions"


def test_two_at_the_same_time_do_not_disturb_each_other(kafka: str, topic_prefix: str) -> None:
    """Two deployments start at once: each topic is created by one of them and right for the other."""
    found = _settings(kafka, topic_prefix)

    async def both() -> tuple[list[topics.Outcome], list[topics.Outcome]]:
        return await asyncio.gather(topics.create(found), topics.create(found))

    one, other = asyncio.run(both())
    for mine, theirs in zip(one, other, strict=True):
        assert sorted([mine.state, theirs.state]) in (["created", "right"], ["right", "right"])


def test_another_number_of_partitions_is_refused(kafka: str, topic_prefix: str) -> None:
    """Each topic is named with what it has, what was expected and what can be done."""
    _create(_settings(kafka, topic_prefix))
    outcomes = _create(_settings(kafka, topic_prefix, partitions=4))
    assert {name for name, outcome in outcomes.items() if outcome.state == "wrong"} == PARTITIONED
    assert outcomes["events"].detail.startswith("3 partitions, expected 4; set DECISIONING_PARTITIONS=3")


@pytest.mark.parametrize(
    ("name", "partitions", "configs", "said"),
    [
        ("events", 3, {}, "message.timestamp.type=CreateTime, expected LogAppendTime; run kafka-configs.sh"),
        ("changelog", 3, {}, "cleanup.policy=delete, expected compact; run kafka-configs.sh"),
        ("decisions", 3, {"cleanup_policy": "compact"}, "cleanup.policy=compact, expected delete"),
        ("control", 2, {"cleanup_policy": "compact"}, "2 partitions, expected 1; choose another"),
    ],
)
def test_a_topic_that_would_go_wrong_is_refused(
    kafka: str, topic_prefix: str, name: str, partitions: int, configs: dict[str, Any], said: str
) -> None:
    """A topic somebody made in another way is named with the remedy, and left as it is."""
    asyncio.run(_make(kafka, topic_prefix + name, partitions, **configs))
    outcomes = _create(_settings(kafka, topic_prefix))
    assert outcomes[name].state == "wrong"
    assert outcomes[name].detail.startswith(said)
    assert {outcome.state for other, outcome in outcomes.items() if other != name} == {"created"}


def test_no_broker_is_said_in_one_line() -> None:
    """The line names the address and where to set it."""
    with pytest.raises(topics.TopicsError, match=r"^Kafka at 127\.0\.0\.1:1 does not answer .* DECISIONING_KAFKA"):
        _create(_settings("127.0.0.1:1", ""))
