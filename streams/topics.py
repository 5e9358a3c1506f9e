"""The topics: what each is for, how it is kept, and creating them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code

from streams.failure import Failure
from streams.settings import PREFIX, Settings

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
CONNECT_TIMEOUT_S: Final = 8
REQUEST_TIMEOUT_MS: Final = 30_000
VISIBLE_TIMEOUT_S: Final = 15
VISIBLE_POLL_S: Final = 0.02

# An event of 256 KB is the largest that is read; a decision or a post-image that quotes it has to fit,
# with its headers.
RECORD_BYTES: Final = 1 << 20
# Whatever a producer managed to put into `events` has to fit here as it was, also where that topic
# was made to allow more than ours.
DEAD_LETTER_BYTES: Final = 16 << 20
# A Redis view older than this is rebuilt rather than replayed: the tombstones it would need may be gone.
CHANGELOG_DELETE_RETENTION_MS: Final = 7 * DAY_MS


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic.

    Attributes
    ----------
    name
        Without the prefix.
    key
        What its records are keyed by.
    partitioned
        True: as many partitions as `events`, so that number p of each belongs together. False: one.
    required
        Per-topic configuration without which the worker would go wrong; verified where the topic exists.
    initial
        Per-topic configuration given at creation and the operator's own to change afterwards.
    """

    name: str
    key: str
    partitioned: bool
    required: Mapping[str, str] = field(default_factory=dict)
    initial: Mapping[str, str] = field(default_factory=dict)


def _kept(days: int, **configs: object) -> dict[str, str]:
    return {"retention.ms": str(days * DAY_MS), **_dotted(configs)}


def _dotted(configs: Mapping[str, object]) -> dict[str, str]:
    return {name.replace("_", "."): str(value) for name, value in configs.items()}


_DELETE: Final = {"cleanup.policy": "delete"}
_COMPACT: Final = {"cleanup.policy": "compact"}
_APPENDED: Final = {**_DELETE, "message.timestamp.type": "LogAppendTime"}
# Small, quickly closed segments: only closed ones are compacted, and erasure counts only once they are.
_COMPACT_SOON: Final = _dotted(
    {
        "segment_bytes": 16 << 20,
        "segment_ms": HOUR_MS,
        "delete_retention_ms": DAY_MS,
        "max_message_bytes": RECORD_BYTES,
    }
)

TOPICS: Final[tuple[Topic, ...]] = (
    Topic("events", "user id, else anonymous id", True, _APPENDED, _kept(7, max_message_bytes=RECORD_BYTES)),
    Topic("internal", "person", True, _APPENDED, _kept(7, max_message_bytes=RECORD_BYTES)),
    Topic("decisions", "person", True, _DELETE, _kept(7, max_message_bytes=RECORD_BYTES)),
    Topic("decision-log", "person", True, _DELETE, _kept(400, max_message_bytes=RECORD_BYTES)),
    Topic(
        "changelog",
        "person",
        True,
        _COMPACT,
        _dotted(
            {
                "segment_bytes": 64 << 20,
                "segment_ms": HOUR_MS,
                "min_cleanable_dirty_ratio": 0.3,
                "max_compaction_lag_ms": DAY_MS,  # what was erased is gone from the disk after about a day
                "delete_retention_ms": CHANGELOG_DELETE_RETENTION_MS,
                "max_message_bytes": RECORD_BYTES,
            }
        ),
    ),
    Topic("dead-letters", "as read", True, _DELETE, _kept(14, max_message_bytes=DEAD_LETTER_BYTES)),
    Topic("examples", "policy", False, _DELETE, _kept(400, max_message_bytes=RECORD_BYTES)),
    Topic("models", "model", False, _COMPACT, _COMPACT_SOON | {"max.message.bytes": str(8 << 20)}),
    Topic(
        "model-history", "model@version", False, _DELETE, _kept(90, max_message_bytes=8 << 20, retention_bytes=8 << 30)
    ),
    Topic("control", "setting", False, _COMPACT, _COMPACT_SOON),
    Topic("catalog", "product id", False, _COMPACT, _COMPACT_SOON),
)


class TopicsError(Failure):
    """Kafka could not be asked, or said no; one line with the remedy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one topic: `created`, there already and `right`, or there and `wrong`.

    `detail` says how many partitions it has, or what is wrong and what to do.
    """

    topic: str
    state: Literal["created", "right", "wrong"]
    detail: str


async def create(settings: Settings, replication: int | None = None) -> list[Outcome]:
    """Create the topics that are missing and verify those that are there; nothing that exists is changed.

    Parameters
    ----------
    replication
        Copies of each partition; None asks the broker for its default.

    Raises
    ------
    TopicsError
        No broker answers, or it refuses a topic.
    """
    async with _admin(settings) as admin:
        copies = replication or await _default_replication(admin)
        there = await _partitions_of(admin)
        missing = [topic for topic in TOPICS if settings.topic(topic.name) not in there]
        made = await _create_missing(admin, settings, missing, copies)
        found = [topic for topic in TOPICS if topic.name not in made]
        there = await _once_visible(admin, settings)
        configs = await _configs_of(admin, [settings.topic(topic.name) for topic in found])
    outcomes = []
    for topic in TOPICS:
        name, wanted = settings.topic(topic.name), _partitions(topic, settings)
        if topic.name in made:
            outcomes.append(Outcome(name, "created", _plural(wanted)))
        else:
            outcomes.append(_verify(topic, settings, there.get(name, 0), configs.get(name, {})))
    return outcomes


async def partitions(settings: Settings) -> dict[str, int]:
    """All topics there are, ours or not, and how many partitions each has.

    Raises
    ------
    TopicsError
        No broker answers.
    """
    async with _admin(settings) as admin:
        return await _partitions_of(admin)


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**settings.kafka_options(), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await admin.start()
        yield admin
    except (KafkaError, TimeoutError, OSError) as error:
        raise TopicsError(
            f"Kafka at {settings.kafka} does not answer ({_words(error)}); is it running? "
            f"{PREFIX}KAFKA or --kafka names its address"
        ) from None
    finally:
        await admin.close()


def _partitions(topic: Topic, settings: Settings) -> int:
    return settings.partitions if topic.partitioned else 1


def _plural(partitions: int) -> str:
    return "1 partition" if partitions == 1 else f"{partitions} partitions"


def _verify(topic: Topic, settings: Settings, partitions: int, configs: Mapping[str, str]) -> Outcome:
    """Compare a topic that exists with what the worker relies on."""
    name, wanted = settings.topic(topic.name), _partitions(topic, settings)
    if partitions != wanted:
        remedy = f"choose another {PREFIX}TOPIC_PREFIX, or delete the topic if nobody needs it"
        if topic.partitioned:
            remedy = f"set {PREFIX}PARTITIONS={partitions} if all have that many, {remedy}"
        detail = f"{_plural(partitions)}, expected {wanted}; {remedy}"
        return Outcome(name, "wrong", detail)
    for key, value in topic.required.items():
        if key in configs and configs[key] != value:
            remedy = f"kafka-configs.sh --alter --topic {name} --add-config {key}={value}"
            return Outcome(name, "wrong", f"{key}={configs[key]}, expected {value}; run {remedy}")
    return Outcome(name, "right", _plural(partitions))


async def _default_replication(admin: AIOKafkaAdminClient) -> int:
    """The broker's `default.replication.factor`: the client's protocol version cannot say "as you like"."""
    cluster = await admin.describe_cluster()
    node = str(cluster["brokers"][0]["node_id"])
    resource = ConfigResource(ConfigResourceType.BROKER, node, {"default.replication.factor": ""})
    configs = _by_resource(await admin.describe_configs([resource]))
    return int(configs.get(node, {}).get("default.replication.factor", 1))


async def _partitions_of(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """All topics there are: naming one that is not would make a broker that auto-creates create it."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


async def _once_visible(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, int]:
    """All topics there are, once all of ours are among them.

    A broker answers CreateTopics when the controller has the topic; its own list follows a fraction of a second later.
    """
    async with asyncio.timeout(VISIBLE_TIMEOUT_S):
        while True:
            there = await _partitions_of(admin)
            if all(settings.topic(topic.name) in there for topic in TOPICS):
                return there
            await asyncio.sleep(VISIBLE_POLL_S)


async def _configs_of(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    return _by_resource(await admin.describe_configs(resources)) if names else {}


def _by_resource(responses: list[Any]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for response in responses:
        for resource in response.to_object()["resources"]:
            entries = {entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]}
            found[resource["resource_name"]] = entries
    return found


async def _create_missing(
    admin: AIOKafkaAdminClient, settings: Settings, missing: list[Topic], copies: int
) -> set[str]:
    """Create them; returns the names (without prefix) of those that this call created."""
    if not missing:
        return set()
    new = [
        NewTopic(
            settings.topic(topic.name),
            num_partitions=_partitions(topic, settings),
            replication_factor=copies,
            topic_configs={**topic.required, **topic.initial},
        )
        for topic in missing
    ]
    response = await admin.create_topics(new)
    errors = {name: (code, message) for name, code, message in response.topic_errors}
    made = set()
    for topic in missing:
        name = settings.topic(topic.name)
        code, message = errors[name]
        if code == 0:
            made.add(topic.name)
        elif code != TopicAlreadyExistsError.errno:
            reason = message or for_code(code).__name__
            raise TopicsError(f"Kafka refuses topic {name}: {reason}; {_remedy(copies)}")
    return made


def _remedy(copies: int) -> str:
    return f"check the rights of this user and that there are {copies} brokers (--replication-factor)"


def _words(error: BaseException) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case KafkaConnectionError():
            return "no connection"
        case _:
            return str(error).splitlines()[0] if str(error) else type(error).__name__
