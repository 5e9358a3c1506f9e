"""What the commands share that tell all workers something: a setting and the record of who made it, in one transaction.

Its transactional id is the same for everybody, so that two commands at the same time cannot both believe that they
changed something.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from decisioning.effects import Outgoing
from decisioning.localtime import iso
from streams.failure import WRONG_USE, Failure
from streams.kafka import Cluster
from streams.producer import Publisher
from streams.seams import FencedError, UnknownOutcomeError

if TYPE_CHECKING:
    from streams.settings import Settings

TEXT_CHARACTERS: Final = 500
TIMEOUT_S: Final = 120.0  # looking through a long model-history takes a while

T = TypeVar("T")


class Session:
    """Kafka, from the moment on in which nobody else can change a setting."""

    def __init__(self, cluster: Cluster, publisher: Publisher) -> None:
        self.cluster = cluster
        self._publisher = publisher

    async def publish(self, records: Sequence[tuple[str, Outgoing]]) -> None:
        """Write records, each to the first partition of its topic, all or none."""
        await self._publisher.begin()
        for name, record in records:
            await self._publisher.send(TopicPartition(self.cluster.topic(name), 0), [record])
        await self._publisher.commit()


def carried_out(settings: Settings, names: Sequence[str], work: Callable[[Session], Awaitable[T]]) -> T:
    """Run a command's work on topics that have to exist.

    Raises
    ------
    Failure
        One does not, or Kafka does not answer.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it repeats what our one line says

    async def run() -> T:
        async with asyncio.timeout(TIMEOUT_S), _session(settings, names) as session:
            return await work(session)

    try:
        return asyncio.run(run())
    except (FencedError, UnknownOutcomeError, KafkaError, OSError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Failure(
            f"Kafka at {settings.kafka} did not confirm it ({reason}); run the same command again, it tells what is so"
        ) from None


@asynccontextmanager
async def _session(settings: Settings, names: Sequence[str]) -> AsyncIterator[Session]:
    cluster = Cluster(settings.kafka_options(), settings.topic_prefix, settings.group)
    publisher = Publisher(settings.kafka_options(), f"{settings.topic_prefix}control")
    try:
        await cluster.start()
        there = await cluster.partitions()
        missing = [settings.topic(name) for name in names if settings.topic(name) not in there]
        if missing:
            raise Failure(f"topic {', '.join(missing)} does not exist; run: decisioning topics create")
        await publisher.acquire()  # from here on whoever else was about to change something cannot
        yield Session(cluster, publisher)
    finally:
        await publisher.close()
        await cluster.stop()


def checked_words(**words: str) -> None:
    """See that what somebody says about a change fits into its record; raises `Failure`."""
    for name, text in words.items():
        if len(text) > TEXT_CHARACTERS or not text.isprintable():
            raise Failure(f"--{name}: expected at most {TEXT_CHARACTERS} printable characters", WRONG_USE)


def now() -> str:
    """The time, as records have it."""
    return iso(time.time_ns() // 1_000_000)


def record_id(*parts: object) -> str:
    """Id of the record in the log that somebody changed something."""
    return blake2b("\0".join(map(str, parts)).encode(), digest_size=16, person=b"switch").hexdigest()
