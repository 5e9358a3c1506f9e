"""What the pure part of a step costs per event, by stage, beside what any program pays: orjson in a loop.

Two tables: the parts of the fast path by themselves, and whole steps of the engine, with everything that a worker does
around them but for Kafka and Redis, for the plain job (a decision for each add, 18 % of the events) and for a shop's
whole decision flow (2 % triggers). One thread, CPU time, median of the passes.

    python -m benchmarks.core [--passes 5] [--quick]
"""

from __future__ import annotations

import argparse
import gc
import platform
from collections.abc import Sequence
from statistics import median
from time import process_time

import numpy as np
import orjson

from benchmarks.configurations import FLOW, JOB
from benchmarks.traffic import CLICKS, SHOP, Line, events
from decisioning.config import load
from decisioning.effects import State
from decisioning.engine import Engine
from decisioning.events import Event, body, decode
from decisioning.partitioner import partition_of
from features.rows import RowTable, encode_many, fold, fresh, ring_ids
from features.signals import ADD, ORDER, OTHER, VIEW, Signals
from streams import changelog
from streams.cache import Cache
from streams.worker import GC_THRESHOLDS

BATCH, BATCHES, PARTITIONS = 2_000, 20, 8
KINDS = {"Product Viewed": VIEW, "Product Added": ADD, "Order Completed": ORDER}
NOW_MS = 1_772_370_000_000


def traffic(mix: dict[str, int]) -> list[list[Line]]:
    """Batches of records, each of one partition."""
    lines = list(events(BATCH * BATCHES, 1, NOW_MS, mix))
    by_partition: dict[int, list[Line]] = {}
    for line in lines:
        by_partition.setdefault(partition_of(line.person, PARTITIONS), []).append(line)
    return [some[at : at + BATCH] for some in by_partition.values() for at in range(0, len(some), BATCH)]


def columns(events: list[Event], slots: dict[str, int]) -> Signals:
    """Events as signals, as a caller would make them."""
    n = len(events)
    return Signals(
        slot=np.fromiter([slots[event.person] for event in events], np.int64, n),
        kind=np.fromiter([KINDS.get(event.event or "", OTHER) for event in events], np.int16, n),
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
    return per_event(lap, batches)


def per_event(lap: Laps, batches: Sequence[Sequence[Line]]) -> dict[str, float]:
    """Microseconds by stage."""
    return {name: spent / sum(map(len, batches)) * 1e6 for name, spent in lap.spent.items()}


def steps(batches: list[list[Line]], configuration: str) -> dict[str, float]:
    """Microseconds per event by stage of whole steps; every timer fires in the step after the one that opened it."""
    engine = Engine(load(configuration))
    caches = [Cache(100_000) for _ in range(PARTITIONS)]
    due: list[list[str]] = [[] for _ in range(PARTITIONS)]
    lap = Laps()
    for records in batches:
        number = partition_of(records[0].person, PARTITIONS)
        cache = caches[number]
        state = State(number, PARTITIONS, cache.rows, cache.profiles)
        lap("(unmeasured)")
        batch = engine.decode(records)
        lap("decode")
        batch.due, batch.fire_until_ms = due[number], NOW_MS
        while missing := sorted(engine.reads(state, batch)):
            cache.load(missing, [None] * len(missing), [None] * len(missing))
        lap("who is needed")
        effects = engine.step(state, batch, NOW_MS)
        lap("step")
        rows = encode_many(effects.rows)
        profiles = [effects.profiles.get(person, cache.profiles.get(person, b"")) for person in effects.people]
        changelog.encode_images(effects.people, rows, profiles, [effects.due.get(one) for one in effects.people])
        lap("post-images")
        cache.store(effects.people, effects.rows, effects.profiles)
        lap("cache")
        due[number] = [person for person, at_ms in effects.due.items() if at_ms is not None]
    del lap.spent["(unmeasured)"]
    return per_event(lap, batches)


def table(runs: list[dict[str, float]], base: float) -> None:
    """Print medians, and their ratio to the baseline."""
    cost = {name: median(run[name] for run in runs) for name in runs[0]}
    for name, spent in cost.items():
        print(f"  {name:<24}{spent:>10.2f}{spent / base:>8.2f}")
    print(f"  {'together':<24}{sum(cost.values()):>10.2f}{sum(cost.values()) / base:>8.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one pass")
    given = parser.parse_args()
    passes = 1 if given.quick else given.passes
    clicks, shop = traffic(CLICKS), traffic(SHOP)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # as a worker does
    count = sum(map(len, clicks))
    size = sum(len(record.value) for batch in clicks for record in batch) / count
    persons = sum(len({record.person for record in batch}) for batch in clicks)
    print(f"{platform.machine()}, Python {platform.python_version()}; {size:.0f} bytes an event,", end=" ")
    print(f"{persons / count:.2f} persons an event in batches of {BATCH}; median of {passes} passes")
    runs = [(one_pass(clicks), steps(clicks, JOB), steps(shop, FLOW)) for _ in range(passes)]
    parts, job, flow = zip(*runs, strict=True)
    base = median(run["orjson loop"] for run in parts)
    print(f"  {'':<24}{'µs/event':>10}{'ratio':>8}")
    for title, found in (("parts", parts), ("the plain job", job), ("the whole flow", flow)):
        print(title)
        table(list(found), base)


if __name__ == "__main__":
    main()
