"""The commands `pause` and `resume`: a campaign's kill switch, and the record of who used it.

The switch and its record in the log are one Kafka transaction. Its transactional id is the same for everybody, so
that two commands at the same time cannot both believe that they changed something.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import typer
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from decisioning import broadcast
from decisioning.effects import Outgoing, Switch
from decisioning.localtime import iso
from streams.failure import WRONG_USE, Failure
from streams.kafka import Cluster
from streams.seams import FencedError, UnknownOutcomeError
from streams.tables import Tables

if TYPE_CHECKING:
    from decisioning.config import Config
    from streams.settings import Settings

ID_CHARACTERS: Final = 200
TEXT_CHARACTERS: Final = 500
TRANSACTION_TIMEOUT_MS: Final = 10_000
TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants of a campaign, and why."""

    campaign: str
    paused: bool
    by: str
    reason: str


def switch(settings: Settings, config: Config | None, wanted: Wanted) -> None:
    """Pause or resume a campaign, and say so; where it is so already, only say so.

    Parameters
    ----------
    config
        Where the campaign has to be in; None: nobody checks its id.

    Raises
    ------
    Failure
        There is no such campaign, or Kafka does not answer.
    """
    _check(config, wanted)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it repeats what our one line says
    try:
        before = asyncio.run(_switched(settings, wanted))
    except (FencedError, UnknownOutcomeError, KafkaError, OSError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Failure(
            f"Kafka at {settings.kafka} did not confirm it ({reason}); run the same command again, it tells what is so"
        ) from None
    word = "paused" if wanted.paused else "running"
    if (before is not None) == wanted.paused:
        since = f" since {before.at}, by {before.by}" if before is not None else ""
        typer.echo(f"{wanted.campaign}: {word} already{since}")
    else:
        typer.echo(f"{wanted.campaign}: {word}")


def _check(config: Config | None, wanted: Wanted) -> None:
    if not wanted.campaign or len(wanted.campaign) > ID_CHARACTERS or not wanted.campaign.isprintable():
        raise Failure(f"{wanted.campaign!r} cannot be a campaign's id; name one of the configuration", WRONG_USE)
    for name, text in (("by", wanted.by), ("reason", wanted.reason)):
        if len(text) > TEXT_CHARACTERS or not text.isprintable():
            raise Failure(f"--{name}: expected at most {TEXT_CHARACTERS} printable characters", WRONG_USE)
    if config is None:
        hint = "with --config FILE its id would be checked"
        typer.echo(
            f"decisioning: warning: whether there is a campaign {wanted.campaign!r} is not known; {hint}", err=True
        )
        return
    known = [campaign.id for campaign in config.campaigns]
    if wanted.paused and wanted.campaign not in known:  # one that is gone may still be resumed
        raise Failure(f"there is no campaign {wanted.campaign!r}; choose one of {', '.join(known)}", WRONG_USE)


async def _switched(settings: Settings, wanted: Wanted) -> Switch | None:
    """Change it where it is not so yet; returns who had paused it before."""
    cluster = Cluster(settings.kafka_options(), settings.topic_prefix, settings.group)
    producer = AIOKafkaProducer(
        **settings.kafka_options(),
        transactional_id=f"{settings.topic_prefix}control",
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
    )
    async with asyncio.timeout(TIMEOUT_S):
        try:
            await cluster.start()
            there = await cluster.partitions()
            missing = [name for name in ("control", "decision-log") if settings.topic(name) not in there]
            if missing:
                names = ", ".join(settings.topic(name) for name in missing)
                raise Failure(f"topic {names} does not exist; run: decisioning topics create")
            await producer.start()  # from here on whoever else was about to change something cannot
            before = (await _paused(cluster)).get(wanted.campaign)
            if (before is not None) != wanted.paused:
                at = iso(time.time_ns() // 1_000_000)
                said = Switch(paused=wanted.paused, at=at, by=wanted.by, reason=wanted.reason)
                await _publish(producer, settings, _records(wanted.campaign, said))
        finally:
            await producer.stop()
            await cluster.stop()
    return before


async def _paused(cluster: Cluster) -> dict[str, Switch]:
    """Which campaigns are paused now."""
    tables = Tables()
    end = (await cluster.ends_of(["control"]))["control"]
    chunks = cluster.follow({"control": 0})
    try:
        while tables.offsets["control"] < end:
            name, entries, position = await anext(chunks)
            tables.take(name, entries, position)
    finally:
        await chunks.aclose()
    return tables.paused


def _records(campaign: str, said: Switch) -> Sequence[tuple[str, Outgoing]]:
    text = f"{campaign}\0{said.paused}\0{said.at}\0{said.by}"
    number = blake2b(text.encode(), digest_size=16, person=b"switch").hexdigest()
    return [
        ("control", broadcast.switch_record(campaign, said)),
        ("decision-log", broadcast.audited(number, campaign, said)),
    ]


async def _publish(producer: Any, settings: Settings, records: Sequence[tuple[str, Outgoing]]) -> None:
    async with producer.transaction():
        for name, record in records:
            await producer.send_and_wait(settings.topic(name), record.value, key=record.key, partition=0)
