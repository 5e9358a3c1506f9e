"""Faust as its documentation has it: `python -m benchmarks.peers.faust_agent table|take|redis`.

`table` is an agent on single events with a Table; `take` an agent on up to 1,000 events with a dict; `redis` the same
with Redis.
"""

from __future__ import annotations

import sys
from typing import Any

import faust
from redis.asyncio import Redis

from benchmarks.peers.job import ADDED, decision, decode, fold, nobody, packed, setting, unpacked


def build(kind: str) -> faust.App:
    """The app with its one agent."""
    app = faust.App(
        setting("group"),
        broker=f"kafka://{setting('kafka')}",
        store="memory://",
        datadir=setting("folder"),
        web_enabled=False,
        topic_partitions=8,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
    )
    events = app.topic(setting("events"), value_serializer="raw", key_serializer="raw")
    decisions = app.topic(setting("decisions"), value_serializer="raw", key_serializer="raw")
    if kind == "table":
        _single(app, events, decisions)
    else:
        _batched(app, events, decisions, Redis.from_url(setting("redis")) if kind == "redis" else None)
    return app


def _single(app: faust.App, events: Any, decisions: Any) -> None:
    table = app.Table("counts", default=nobody)

    @app.agent(events)  # type: ignore[untyped-decorator]
    async def count(stream: Any) -> None:
        async for value in stream:
            event = decode(value)
            counts = table[event.userId]
            kind = fold(counts, event)
            table[event.userId] = counts
            if kind == ADDED:
                await decisions.send(key=event.userId.encode(), value=decision(event, counts))


def _batched(app: faust.App, events: Any, decisions: Any, redis: Redis | None) -> None:
    state: dict[str, list[float]] = {}

    @app.agent(events)  # type: ignore[untyped-decorator]
    async def count(stream: Any) -> None:
        async for values in stream.take(1000, within=0.2):
            batch = [decode(value) for value in values]
            people = list({event.userId for event in batch})
            if redis is not None:
                state.update(zip(people, map(unpacked, await redis.mget(people)), strict=True))
            for event in batch:
                counts = state.setdefault(event.userId, nobody())
                if fold(counts, event) == ADDED:
                    await decisions.send(key=event.userId.encode(), value=decision(event, counts))
            if redis is not None:
                await redis.mset({person: packed(state[person]) for person in people})
                state.clear()


if __name__ == "__main__":
    app = build(sys.argv.pop())
    faust.Worker(app, loglevel="WARN").execute_from_commandline()
