"""A pure replay: the inputs once more through the engine alone, step by step as the changelog's markers say.

No shell, no faults and no Redis have a part in it, so whatever those changed in a step shows, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from decisioning import broadcast
from decisioning.effects import Effects, Outgoing, State, Switch
from decisioning.engine import Engine
from features.rows import RowTable, encode_many
from streams.changelog import Image, Marker
from streams.dead_letters import publishable
from streams.seams import INPUTS, Entry
from tests.shell_world import Line
from tests.simulated_kafka import Cluster, Journal


class Replay:
    """One partition from nothing."""

    def __init__(self, engine: Engine, number: int, partitions: int, control: Sequence[Entry]) -> None:
        self._engine = engine
        self._control = control
        self._paused: dict[str, Switch] = {}
        self._rows = RowTable()
        self._profiles: dict[str, bytes] = {}
        self._due: dict[str, int] = {}
        self._changed: dict[str, None] = {}
        self._state = State(number, partitions, self._rows, self._profiles, {}, self._paused)

    def step(self, marker: Marker, events: Sequence[Line], internal: Sequence[Line]) -> dict[str, list[Outgoing]]:
        """Compute a step; returns what it publishes, by topic."""
        self._paused.clear()
        for entry in self._control[: int(marker.versions["control"])]:
            broadcast.take_switch(self._paused, entry.key, entry.value)
        batch = self._engine.decode(events, internal)
        if not events:
            batch.offset = marker.offsets["events"]
        if marker.fire_until_ms is not None:
            ready = [(due_ms, person) for person, due_ms in self._due.items() if due_ms <= marker.fire_until_ms]
            batch.due, batch.fire_until_ms = [person for _, person in sorted(ready)], marker.fire_until_ms
        batch.expired = marker.expired
        while missing := self._engine.reads(self._state, batch):
            self._rows.add_new(sorted(missing))
        effects = self._engine.step(self._state, batch, marker.now_ms)
        self._take_in(effects, batch)
        published = {
            "decisions": effects.decisions,
            "decision-log": effects.log,
            "examples": effects.examples,
            "internal": effects.internal,
            "catalog": effects.catalog,
            "dead-letters": [publishable(letter) for letter in effects.dead_letters],
        }
        return {name: records for name, records in published.items() if records}

    def _take_in(self, effects: Effects, batch: Any) -> None:
        self._rows.put(effects.people, effects.rows)
        self._profiles.update(effects.profiles)
        due: dict[str, int | None] = dict.fromkeys(batch.due) | effects.due
        for person, due_ms in due.items():
            if due_ms is None:
                self._due.pop(person, None)
            else:
                self._due[person] = due_ms
        self._changed.update(dict.fromkeys([*effects.people, *due]))

    def images(self) -> dict[str, Image]:
        """Person -> what the changelog should say of them now."""
        people = list(self._changed)
        return {
            person: Image(row, self._profiles.get(person, b""), self._due.get(person))
            for person, row in zip(people, encode_many(self._rows.gather(people)), strict=True)
        }


def differences(kafka: Cluster, engine: Engine, number: int) -> Iterator[str]:
    """How the committed steps of a partition differ from their replay, and the images of its people at the end."""
    replay = Replay(engine, number, kafka.partitions, kafka.control)
    for start, commit in kafka.steps(number):
        marker = commit.marker
        assert marker is not None
        read = {name: _between(kafka.inputs[name, number], start[name], marker.offsets[name]) for name in INPUTS}
        expected = replay.step(marker, read["events"], read["internal"])
        found: dict[str, list[Outgoing]] = {}
        for name, record in commit.published:
            found.setdefault(name, []).append(record)
        if found != expected:
            yield f"partition {number}: step {marker.n} published {found}, its replay {expected}"
            return
    expected_images, images = replay.images(), kafka.images(number)
    different = {
        person for person in expected_images.keys() | images.keys() if expected_images.get(person) != images.get(person)
    }
    if different:
        yield f"partition {number}: images of {sorted(different)} differ from their replay"


def _between(journal: Journal, start: int, end: int) -> list[Line]:
    return [
        slot[1]
        for slot in journal.slots[start:end]
        if slot is not None and (slot[0] is None or slot[0].state == "committed") and isinstance(slot[1], Line)
    ]
