"""Bytewax with state in memory: `python -m benchmarks.peers.bytewax_flow`."""

from __future__ import annotations

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main

from benchmarks.peers.job import ADDED, BATCH, Event, decision, decode, fold, nobody, setting

Counts = list[float]


def keyed(message: KafkaSourceMessage) -> tuple[str, Event]:
    """By person."""
    event = decode(message.value)
    return event.userId, event


def count(counts: Counts | None, event: Event) -> tuple[Counts, bytes | None]:
    """Fold one event; the decision, if it is an add."""
    counts = counts or nobody()
    return counts, decision(event, counts) if fold(counts, event) == ADDED else None


def build() -> Dataflow:
    """The flow."""
    flow = Dataflow("job")
    brokers = [setting("kafka")]
    source = KafkaSource(brokers, [setting("events")], tail=True, batch_size=BATCH)
    events = op.map("keyed", op.input("events", flow, source), keyed)
    counted = op.stateful_map("count", events, count)
    decided = op.filter("decided", counted, lambda pair: pair[1] is not None)
    messages = op.map("message", decided, lambda pair: KafkaSinkMessage(pair[0].encode(), pair[1]))
    kop.output("decisions", messages, brokers=brokers, topic=setting("decisions"))
    return flow


if __name__ == "__main__":
    cluster_main(build(), [], 0)
