"""The commands `erase` and `pseudonym`: have a person forgotten, and wait for the proof; what stands for a person."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson
import typer
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from decisioning.decision import decision_id
from decisioning.partitioner import partition_of
from decisioning.reading import MAX_ID_CHARACTERS
from streams.failure import NO, WRONG_USE, Failure
from streams.kafka import Cluster
from streams.seams import UnknownOutcomeError

if TYPE_CHECKING:
    from streams.settings import Settings

POLL_MS: Final = 250
SAID_EVERY_S: Final = 5.0

Say = Callable[[str], None]


def checked_id(user: str) -> str:
    """The id of a person as a command was given it.

    Raises
    ------
    Failure
        Nobody can have it.
    """
    try:
        user.encode()
    except UnicodeEncodeError:
        raise Failure("the id is not UTF-8; give it as the events have it", WRONG_USE) from None
    if not 0 < len(user) <= MAX_ID_CHARACTERS:
        raise Failure(f"an id has 1 to {MAX_ID_CHARACTERS} characters, not {len(user)}; check it", WRONG_USE)
    return user


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[tuple[Cluster, dict[str, int]]]:
    """Kafka, and how many partitions its topics have.

    Raises
    ------
    Failure
        It does not answer, or stops answering, or has no topics of ours.
    """
    cluster = Cluster(settings.kafka_options(), settings.topic_prefix, settings.group)
    try:
        await cluster.start()
        there = await cluster.partitions()
        if settings.topic("events") not in there:
            raise Failure(f"topic {settings.topic('events')} does not exist; run: decisioning topics create")
        yield cluster, there
    except (UnknownOutcomeError, KafkaError, OSError, TimeoutError) as error:
        raise Failure(
            f"Kafka at {settings.kafka} does not answer ({error}); is it running? DECISIONING_KAFKA or --kafka"
            " names its address"
        ) from None
    finally:
        await cluster.stop()


def erase_person(user: str, settings: Settings, timeout_s: float, say: Say, *, wait: bool) -> int:
    """Ask for a person to be forgotten, and print the proof of it.

    Parameters
    ----------
    user
        Any of the person's ids.
    timeout_s
        How long to wait for the proof.
    say
        Takes lines about the progress.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    Failure
        Kafka does not answer, or no proof has appeared; the request stands nevertheless.
    """
    proof = asyncio.run(_erase(checked_id(user), settings, timeout_s if wait else None, say))
    if proof is not None:
        sys.stdout.buffer.write(orjson.dumps(proof, option=orjson.OPT_APPEND_NEWLINE))
    return 0


async def _erase(user: str, settings: Settings, timeout_s: float | None, say: Say) -> dict[str, Any] | None:
    async with connected(settings) as (cluster, there):
        partitions = there[settings.topic("events")]
        log = settings.topic("decision-log")
        ends = await cluster.stable_offsets([TopicPartition(log, number) for number in range(there.get(log, 0))])
        # Without a time of its own it counts at the time Kafka gives it, whatever this machine's clock says.
        request = {"type": "delete", "messageId": f"erase-{uuid.uuid4()}", "userId": user}
        producer = AIOKafkaProducer(**settings.kafka_options(), acks="all", enable_idempotence=True)
        await producer.start()
        try:
            place = await producer.send_and_wait(
                settings.topic("events"),
                orjson.dumps(request),
                key=user.encode(),
                partition=partition_of(user, partitions),
            )
        finally:
            await producer.stop()
        where = f"{place.topic}/{place.partition} at {place.offset}"
        if timeout_s is None:
            say(f"asked for, in {where}; the proof will be in {log}")
            return None
        say(f"asked for, in {where}; waiting for the proof in {log}")
        proof = await _proof(cluster, ends, request["messageId"], timeout_s, say)
        if proof is None:
            raise Failure(
                f"no proof after {timeout_s:g} s; is a worker running? The request stands in {where}"
                " and is carried out when one does",
                NO,
            )
        return proof


async def _proof(
    cluster: Cluster, ends: dict[TopicPartition, int], message_id: str, timeout_s: float, say: Say
) -> dict[str, Any] | None:
    """Wait for the record that proves the erasure; it may be of another id than was asked for: the person's own."""
    started_s = said_s = time.monotonic()
    async with cluster.reading() as reader:
        reader.assign(list(ends))
        for place, end in ends.items():
            reader.seek(place, end)
        while (waited_s := time.monotonic() - started_s) < timeout_s:
            for records in (await reader.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    said = orjson.loads(record.value)
                    if _proves(said, message_id):
                        return dict(said)
            if time.monotonic() - said_s >= SAID_EVERY_S:
                said_s = time.monotonic()
                say(f"still waiting, {waited_s:.0f} s")
    return None


def _proves(said: dict[str, Any], message_id: str) -> bool:
    return said["campaign"] is None and said["decision_id"] == decision_id("", said["user_id"], message_id)


def print_pseudonyms(user: str, settings: Settings) -> int:
    """Print what stands for a person, a line for each key, the one in use first.

    Raises
    ------
    Failure
        There is no key.
    """
    found = settings.pseudonyms.all(checked_id(user))
    if not found:
        raise Failure("no key; set DECISIONING_PSEUDONYM_KEY as the workers have it", WRONG_USE)
    for pseudonym in found:
        typer.echo(pseudonym)
    return 0
