"""Judging a version of a model before it is promoted: by the decisions that were made after it had stopped learning.

What it would have done in each of them is computed from its snapshot and the arms that were eligible; what came of them
is in `examples`. No decision is judged by a model that has seen it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
from aiokafka import TopicPartition

from bandits.gate import Verdict, promotion
from bandits.ready import ReadyPolicy
from decisioning import contexts
from decisioning.evaluation import Choices, LogError, decided, eligible_arms, logged
from decisioning.learning import Learned
from decisioning.plan import plans_of
from streams.failure import WRONG_USE, Failure
from streams.snapshots import EXAMPLES, EXAMPLES_PARTITION

if TYPE_CHECKING:
    from decisioning.config import Config
    from streams.kafka import Cluster

MOST_DECISIONS: Final = 50_000  # the latest: a few seconds of work
EARLIER_MS: Final = 60_000  # a decision is logged with its example, by another clock


async def judged(cluster: Cluster, config: Config, model: str, version: int, value: bytes) -> Verdict:
    """Whether what was logged shows that a version is better than what was done.

    Parameters
    ----------
    config
        With the rule that makes probabilities of the model.
    value
        The snapshot, which can be read.

    Raises
    ------
    Failure
        It is no model of named arms, or its campaign is not configured.
    """
    campaign, _, choice = model.rpartition("/")
    plan = plans_of(config).get(campaign)
    if plan is None:
        raise Failure(f"there is no campaign {campaign!r} in the configuration given; give the workers' own", WRONG_USE)
    ready = Learned.of(value)[1].ready(plan.spec)
    if not isinstance(ready, ReadyPolicy):
        raise Failure(f"{model} has no arms by name and cannot be judged by the log; --force and --reason override it")
    choices, since_ms = await _examples(cluster, model, version)
    await _narrow(cluster, choices, campaign, since_ms)
    rows = list(choices.rows.get(model, {}).values())[-MOST_DECISIONS:]
    if not rows:
        return Verdict(allowed=False, why=f"no decision on {choice} was made since version {version}", gain=None)
    log, arms = logged(rows)
    x = np.array([contexts.vector_of(dict(zip(row.names, row.context, strict=True))) for row in rows])
    open_to = [tuple(row.eligible or (row.arm,)) for row in rows]
    return promotion(log, decided(ready, open_to, x, arms))


async def _examples(cluster: Cluster, model: str, version: int) -> tuple[Choices, int]:
    """Choices that were made after a version, and when the first one was."""
    choices, since_ms, needle = Choices(), 0, orjson.dumps(model)
    place = TopicPartition(cluster.topic(EXAMPLES), EXAMPLES_PARTITION)
    async with aclosing(_since(cluster, place, version)) as records:
        async for record in records:
            if record.value is None or needle not in record.value:
                continue
            with contextlib.suppress(LogError, ValueError, KeyError, TypeError):  # what cannot be learned from either
                said: dict[str, Any] = orjson.loads(record.value)
                choices.example(said, dt.datetime.fromisoformat(said["at"]).timestamp())
                since_ms = since_ms or record.timestamp
    return choices, since_ms


async def _narrow(cluster: Cluster, choices: Choices, campaign: str, since_ms: int) -> None:
    """Add which arms were eligible; decisions whose record is not there are left out."""
    eligible: dict[tuple[str, str], dict[str, float]] = {}
    topic, needle = cluster.topic("decision-log"), orjson.dumps(campaign)
    for number in range((await cluster.partitions()).get(topic, 0)):
        place = TopicPartition(topic, number)
        start = await cluster.offset_at(place, max(0, since_ms - EARLIER_MS))
        async with aclosing(_since(cluster, place, start)) as records:
            async for record in records:
                if record.value is not None and needle in record.value:
                    with contextlib.suppress(LogError, ValueError):  # such as the records of pins
                        eligible |= eligible_arms(orjson.loads(record.value))
    choices.narrow(eligible)


async def _since(cluster: Cluster, place: TopicPartition, start: int) -> AsyncGenerator[Any, None]:
    first = (await cluster.first_offsets([place]))[place]
    end = (await cluster.stable_offsets([place]))[place]
    async with aclosing(cluster.records(place, max(start, first), end)) as chunks:
        async for records, _ in chunks:
            for record in records:
                yield record
