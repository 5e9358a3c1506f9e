"""Quix Streams with its RocksDB state: `python -m benchmarks.peers.quix`."""

from __future__ import annotations

from typing import Any

from quixstreams import Application, State

from benchmarks.peers.job import ADDED, decision, decode, fold, nobody, setting


def count(value: bytes, state: State) -> bytes | None:
    """Fold one event; the decision, if it is an add."""
    event = decode(value)
    counts: list[float] = state.get("counts") or nobody()
    kind = fold(counts, event)
    state.set("counts", counts)
    return decision(event, counts) if kind == ADDED else None


def main() -> None:
    """Run until killed."""
    app = Application(
        broker_address=setting("kafka"),
        consumer_group=setting("group"),
        auto_offset_reset="earliest",
        state_dir=setting("folder"),
        loglevel="WARNING",
        auto_create_topics=True,
    )
    events = app.topic(setting("events"), key_deserializer="bytes", value_deserializer="bytes")
    decisions = app.topic(setting("decisions"), key_serializer="bytes", value_serializer="bytes")
    flow: Any = app.dataframe(events)
    flow = flow.apply(count, stateful=True)
    flow = flow[flow.apply(lambda value: value is not None)]
    flow.to_topic(decisions)
    app.run()


if __name__ == "__main__":
    main()
