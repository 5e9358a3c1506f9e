"""What the pure part of a step costs per event, by stage, beside what any program pays: orjson in a loop.

Segment-like track events of about 285 bytes, 100,000 persons by Zipf's law, batches of 2,000, one thread.
CPU time, median of the passes. Run it as ``python benchmarks/core.py [passes]`` from the root of the project.
"""

from __future__ import annotations

import platform
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from decisioning.events import Event, body, decode
from features.rows import RowTable, encode_many, fold, fresh, ring_ids
from features.signals import ADD, ORDER, OTHER, VIEW, Signals

BATCH, BATCHES, PERSONS = 2_000, 10, 100_000
NAMES = {
    "Product Viewed": VIEW,
    "Product Added": ADD,
    "Order Completed": ORDER,
    "Email Delivered": OTHER,
    "Email Opened": OTHER,
    "Email Link Clicked": OTHER,
}
WEIGHTS = (60, 18, 5, 6, 6, 5)
NOW_MS = 1_772_370_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """A record of the benchmark."""

    value: bytes
    timestamp: int = NOW_MS
    topic: str = "events"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None


def traffic(seed: int) -> list[list[Line]]:
    """Batches of records."""
    chance = random.Random(seed)
    ranks = np.arange(1, PERSONS + 1)
    people = np.random.default_rng(seed).choice(PERSONS, BATCH * BATCHES, p=1 / ranks / (1 / ranks).sum())
    lines = []
    for person in people.tolist():
        event = {
            "messageId": f"{chance.getrandbits(128):032x}",
            "type": "track",
            "userId": f"user-{person}",
            "timestamp": f"2026-03-01T{chance.randrange(12):02}:{chance.randrange(60):02}:07.123Z",
            "event": chance.choices(list(NAMES), WEIGHTS)[0],
            "properties": {
                "product_id": f"p-{chance.randrange(5000)}",
                "category": "shoes",
                "price": round(chance.uniform(5, 200), 2),
                "cart_id": f"c-{chance.randrange(10**6)}",
            },
            "context": {"timezone": "Europe/Berlin"},
        }
        lines.append(Line(orjson.dumps(event)))
    return [lines[start : start + BATCH] for start in range(0, len(lines), BATCH)]


def columns(events: list[Event], slots: dict[str, int]) -> Signals:
    """Events as signals, as a caller would make them."""
    n = len(events)
    return Signals(
        slot=np.fromiter([slots[event.person] for event in events], np.int64, n),
        kind=np.fromiter([NAMES.get(event.event or "", OTHER) for event in events], np.int16, n),
        at_ms=np.fromiter([event.at_ms for event in events], np.float64, n),
        value=np.fromiter([event.props.get("price", 0.0) for event in events], np.float64, n),
        channel=np.full(n, -1, np.int8),
    )


class Laps:
    """CPU seconds by stage, measured from one call to the next."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.since = process_time()

    def __call__(self, stage: str) -> None:
        """End a stage."""
        now = process_time()
        self.spent[stage] = self.spent.get(stage, 0.0) + now - self.since
        self.since = process_time()


def one_pass(batches: list[list[Line]]) -> dict[str, float]:
    """Microseconds per event by stage."""
    table, lap = RowTable(), Laps()
    for records in batches:
        lap("(unmeasured)")
        documents = [orjson.loads(record.value) for record in records]
        del documents
        lap("orjson loop")
        events = decode(records, {}).events
        lap("decode")
        people = list(dict.fromkeys(event.person for event in events))
        slots = {person: slot for slot, person in enumerate(people)}
        table.add_new(people)
        signals = columns(events, slots)
        lap("columns")
        rows = table.gather(people)
        lap("gather")
        ids = ring_ids(event.message_id for event in events)
        lap("ring ids")
        _, rows = fresh(rows, signals.slot, ids)
        lap("fresh")
        rows = fold(rows, signals)
        lap("fold")
        table.put(people, rows)
        table.touch(people)
        lap("put, touch")
        _ = encode_many(rows)
        lap("encode")
        _ = [body(record, {}) for record in records[: BATCH * 18 // 100]]
        lap("body of 18 %")
        del events
        lap("free the events")
    del lap.spent["(unmeasured)"]
    return {name: spent / (BATCH * BATCHES) * 1e6 for name, spent in lap.spent.items()}


def main() -> None:
    """Print the table."""
    passes = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    batches = traffic(1)
    size = sum(len(record.value) for batch in batches for record in batch) / (BATCH * BATCHES)
    persons = sum(len({orjson.loads(record.value)["userId"] for record in batch}) for batch in batches)
    runs = [one_pass(batches) for _ in range(passes)]
    cost = {name: median(run[name] for run in runs) for name in runs[0]}
    base = cost["orjson loop"]
    print(f"{platform.machine()}, Python {platform.python_version()}; {size:.0f} bytes an event,", end=" ")
    print(f"{persons / (BATCH * BATCHES):.2f} persons an event; median of {passes} passes")
    print(f"{'stage':<24}{'µs/event':>10}{'ratio':>8}")
    for name, spent in cost.items():
        print(f"{name:<24}{spent:>10.2f}{spent / base:>8.2f}")
    core = sum(cost[name] for name in ("decode", "gather", "fresh", "fold"))
    print(f"{'decode+gather+fresh+fold':<24}{core:>10.2f}{core / base:>8.2f}")


if __name__ == "__main__":
    main()
