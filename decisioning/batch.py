"""What goes into a step: records of one partition, decoded, and which timers may fire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from decisioning.effects import DeadLetter, Record
from decisioning.events import Event
from decisioning.messages import Message


@dataclass(frozen=True, slots=True)
class Forwarded:
    """An event that another partition sent here: the original bytes and the original's own time."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


@dataclass(slots=True)
class Batch:
    """One micro-batch, decoded.

    Attributes
    ----------
    events, records, people
        Event i was read from record i and counts for person i (before merges are followed).
    naming
        Those of `events` that may name another id of the person: identify and alias.
    leaving
        Ids that `delete` events of the batch name.
    types
        Type of event -> how many of all events.
    paths
        Index of a forwarded event -> the ids it came through.
    messages
        Merges from other partitions.
    stock
        Events about products, which are about no person.
    rejected
        Records that are no events.
    offset
        Offset after the last record of `events`; the shell sets it for a step that only fires timers.
    due
        People whose timers the shell believes to be due.
    expired
        People whom the shell believes to have been idle for longer than anything is kept.
    fire_until_ms
        Timers due at or before this fire; None: none does.
    cast
        Everyone the step may touch, once `Engine.reads` has found nobody missing.
    """

    events: list[Event]
    records: list[Record]
    people: list[str]
    naming: list[Event] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)
    paths: dict[int, list[str]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    stock: list[Event] = field(default_factory=list)
    rejected: list[DeadLetter] = field(default_factory=list)
    offset: int = 0
    due: Sequence[str] = ()
    expired: Sequence[str] = ()
    fire_until_ms: int | None = None
    cast: list[str] | None = None
