"""The command `explain`: find a decision's record, in a file or in Kafka, and put it into words."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
import typer

from decisioning.backtest import BYTE_ORDER_MARK
from decisioning.explain import IncompleteError, explain
from streams.backtesting import parse_time
from streams.checking import unreadable
from streams.failure import NO, Failure

if TYPE_CHECKING:
    from decisioning.config import Config
    from decisioning.explain import Recall
    from streams.settings import Settings

FETCH_RECORDS: Final = 5000
FETCH_TIMEOUT_MS: Final = 1000


def explain_decision(
    decision_id: str,
    log: Path | None,
    settings: Settings | None,
    config: Config | None = None,
    recall: Recall | None = None,
    *,
    full: bool = False,
) -> int:
    """Print why a decision fell as it did.

    Parameters
    ----------
    log
        A file of `decision-log` records, one a line; None: the topic of `settings` is read.
    config
        What it was made with, to recompute the holdout too.
    recall
        Gives the models that the record names, to recompute the probabilities too; by default Kafka does.
    full
        Whether to print everything an auditor asks for, after what a marketer does.

    Returns
    -------
    int
        Exit code: 1 where the decision, made again from its record, comes out differently.

    Raises
    ------
    Failure
        There is no such decision, nothing to look in, or not all of its record is there.
    """
    needle = decision_id.encode()
    if log is not None:
        record, where = _in_file(needle, log), str(log)
    else:
        assert settings is not None
        where = f"topic {settings.topic('decision-log')} of {settings.kafka}"
        record = asyncio.run(_in_kafka(needle, settings))
    if record is None:
        raise Failure(f"no decision {decision_id} in {where}; check the id, or name another log with --log", NO)
    if recall is None and settings is not None:
        from streams.recalling import recall_from_kafka  # noqa: PLC0415 - of no use with a file

        recall = recall_from_kafka(settings, _decided_ms(record))
    try:
        explanation = explain(record, config, recall)
    except IncompleteError as error:
        remedy = "look for it in the log as it was published"
        raise Failure(f"decision {decision_id} in {where}: the record is incomplete: {error}; {remedy}", NO) from None
    typer.echo(str(explanation))
    if full:
        typer.echo("\n".join(explanation.audit))
    return NO if explanation.differences else 0


def _decided_ms(record: dict[str, Any]) -> int:
    """When it was decided; 0 where the record does not say, which `explain` refuses anyway."""
    try:
        return parse_time("decided_at", record["decided_at"])
    except (Failure, KeyError, TypeError):
        return 0


def _in_file(needle: bytes, path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                if (record := _matching(needle, line if number else line.removeprefix(BYTE_ORDER_MARK))) is not None:
                    return record
    except OSError as error:
        raise unreadable(path, error) from None
    return None


async def _in_kafka(needle: bytes, settings: Settings) -> dict[str, Any] | None:
    """Read the topic from its beginning to what is its end now; no group, nothing is committed."""
    from aiokafka import AIOKafkaConsumer, TopicPartition  # noqa: PLC0415 - of no use with a file
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - likewise

    from streams.topics import partitions  # noqa: PLC0415 - likewise

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it repeats what our one line says
    topic = settings.topic("decision-log")
    owned = [TopicPartition(topic, number) for number in range((await partitions(settings)).get(topic, 0))]
    if not owned:
        return None
    consumer = AIOKafkaConsumer(
        **settings.kafka_options(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # a reset to the end that is under way may overtake a seek to the beginning
    )
    try:
        await consumer.start()
        consumer.assign(owned)
        ends = await consumer.end_offsets(owned)
        behind = owned
        while behind := [one for one in behind if await consumer.position(one) < ends[one]]:
            fetched = await consumer.getmany(timeout_ms=FETCH_TIMEOUT_MS, max_records=FETCH_RECORDS)
            for records in fetched.values():
                for message in records:
                    if (record := _matching(needle, message.value)) is not None:
                        return record
    except (KafkaError, TimeoutError, OSError) as error:
        raise Failure(f"Kafka at {settings.kafka} stopped answering ({error}); try again") from None
    finally:
        await consumer.stop()
    return None


def _matching(needle: bytes, line: bytes | None) -> dict[str, Any] | None:
    """The record if its decision id is the one; most lines are told apart without parsing them."""
    if line is None or needle not in line:
        return None
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if isinstance(record, dict) and record.get("decision_id") == needle.decode():
        return record
    return None
