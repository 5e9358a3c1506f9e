"""THE step: one micro-batch of one partition, from bytes to decisions, without clock, chance or I/O.

    decode -> resolve -> fold -> advance -> decide

The same input, `now_ms` and models give the same effects to the byte. The shell loads what `reads` names before it,
and commits what `step` returns after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decisioning import broadcast, contexts, decision, erasure, events, identity, lifecycle, messages, retention
from decisioning.batch import Batch, Forwarded
from decisioning.broadcast import STOCK_EVENTS
from decisioning.config import Config
from decisioning.decide import Decider, Moment
from decisioning.decision import AsOf
from decisioning.effects import DeadLetter, Effects, Record, State
from decisioning.events import Event
from decisioning.identity import Place
from decisioning.learning import UNLEARNED, Models
from decisioning.messages import Message
from decisioning.partitioner import partition_of
from decisioning.plan import plans_of
from decisioning.profile import Profile, Trait, remember_aliases
from decisioning.pseudonyms import Pseudonyms
from decisioning.signals import SILENT, kinds_of, signals_of, value_of, zone_hash
from decisioning.triggers import Cancelled
from decisioning.unsubscribe import Links
from decisioning.work import Work
from features import rows as feature_rows
from features.layout import ring_ids

NAMING = frozenset(("identify", "alias"))
SIGNIFICANT_TYPES = NAMING | {"delete"}
MAX_ZONE_CHARACTERS = 64
NO_LINKS = Links(None, b"")
NO_PSEUDONYMS = Pseudonyms()

__all__ = ["Batch", "Engine", "Models"]


class Engine:
    """The decisions of one configuration.

    Parameters
    ----------
    config
        A checked configuration.
    links
        Makes unsubscribe links for marketing e-mail; none by default.
    pseudonyms
        Makes what stands for a person in `examples`; nothing does by default.
    """

    def __init__(self, config: Config, links: Links = NO_LINKS, pseudonyms: Pseudonyms = NO_PSEUDONYMS) -> None:
        self.config = config
        self.plans = plans_of(config)
        self._decider = Decider(config, self.plans, links, pseudonyms)
        self._pseudonyms = pseudonyms
        self._timings = {plan.id: plan.timing for plan in self.plans.values()}
        self._significant = {*self._decider.by_event, *lifecycle.FELT, lifecycle.ORDER}
        self._silent = frozenset(lifecycle.ENGAGEMENT)

    def decode(self, records: Sequence[Record], internal: Sequence[Record] = ()) -> Batch:
        """Records of `events` and `internal` as a batch; never raises, whatever is in them."""
        batch = Batch([], [], [])
        self._decode_internal(internal, batch)
        decoded = events.decode(records, self.config.event_aliases)
        batch.rejected += decoded.rejected
        kept, kept_records = decoded.events, decoded.records
        if not STOCK_EVENTS.keys().isdisjoint([event.event for event in kept]):
            batch.stock = [event for event in kept if event.event in STOCK_EVENTS]
            kept_records = [r for r, event in zip(kept_records, kept, strict=True) if event.event not in STOCK_EVENTS]
            kept = [event for event in kept if event.event not in STOCK_EVENTS]
        batch.events += kept
        batch.records += kept_records
        batch.people += [event.person for event in kept]
        batch.types = Counter([event.type for event in batch.events])
        batch.types["track"] += len(batch.stock)
        if batch.types["identify"] or batch.types["alias"]:
            batch.naming = [event for event in batch.events if event.type in NAMING]
        if batch.types["delete"]:
            batch.leaving = [
                person for person, event in zip(batch.people, batch.events, strict=True) if event.type == "delete"
            ]
        if records:
            batch.offset = records[-1].offset + 1
        return batch

    def reads(self, state: State, batch: Batch) -> set[str]:
        """Who must be loaded before `step`; the shell asks again until nobody is missing."""
        loaded, missing = self._cast(state, batch)
        batch.cast = None if missing else loaded
        return missing

    def step(self, state: State, batch: Batch, now_ms: int, models: Models | None = None) -> Effects:
        """Take one micro-batch in.

        Parameters
        ----------
        state
            The partition's people, as far as `reads` asked for them; not changed.
        batch
            From `decode`, with `due` and `fire_until_ms` set by the shell.
        now_ms
            The moment of the step; nothing else says what time it is.
        models
            What was learned so far; None: nothing.
        """
        # Timers of a campaign that is gone are cancelled, paused or not.
        held = frozenset(state.paused.keys() & self.plans.keys()) if state.paused else frozenset[str]()
        work = Work(state, self._cast(state, batch)[0] if batch.cast is None else batch.cast, held)
        moment = Moment(now_ms, AsOf(state.partition, batch.offset), UNLEARNED if models is None else models)
        work.effects.dead_letters = batch.rejected
        work.effects.catalog = broadcast.stock_records(batch.stock, state.stock)
        self._count(work, batch)
        if batch.expired:
            retention.expire(work, batch.expired, now_ms - self.config.retention.profile_ms)

        slot = self._resolve(work, batch)
        accepted = self._accept(work, batch, slot)
        kinds = kinds_of(batch.events, self._silent)
        folded = self._fold(work, batch, slot, accepted, kinds)
        for message in batch.messages:
            self._merge(work, message, moment)
        travelled, significant = self._sifted(work, batch, slot, accepted, folded)
        for index in travelled:
            _note_zone(work, batch.people[index], batch.events[index])
        for index in significant:
            self._advance(work, batch, index, None if folded[index] else kinds[index], moment)
        if batch.fire_until_ms is not None:
            self._decider.fire(work, batch.due, batch.fire_until_ms, moment)
        return work.finish(batch.due)

    # Before anything is known of a person

    def _decode_internal(self, internal: Sequence[Record], batch: Batch) -> None:
        for record in internal:
            message = messages.decode(record.value)
            if message is None:
                batch.rejected.append(DeadLetter(record, "bad_message", "no message between partitions"))
                continue
            if message.kind != "event":
                batch.messages.append(message)
                continue
            forwarded = Forwarded(
                record.topic, record.partition, record.offset, record.key, message.value.encode(), message.at_ms
            )  # fmt: skip
            decoded = events.decode([forwarded], self.config.event_aliases)
            batch.rejected += decoded.rejected
            for event in decoded.events:
                batch.paths[len(batch.events)] = message.path
                batch.events.append(event)
                batch.records.append(forwarded)
                batch.people.append(message.person)

    def _cast(self, state: State, batch: Batch) -> tuple[list[str], set[str]]:
        """Everyone the step may touch: (those who are loaded, those who live here and are not)."""
        named = dict.fromkeys(batch.people)
        named.update(dict.fromkeys(batch.due))
        named.update(dict.fromkeys(batch.expired))
        for message in batch.messages:
            named.update(dict.fromkeys(name for name in (message.person, message.into) if name))
        for event in batch.naming:
            named.update(dict.fromkeys(name for name in (event.anonymous_id, event.previous_id) if name))
        loaded: list[str] = []
        missing: set[str] = set()
        self._follow(state, named, list(named), loaded, missing)
        if batch.leaving or batch.expired:
            others = erasure.other_ids(state, [*batch.leaving, *batch.expired])
            aliases = [person for person in others if person not in named]
            named.update(dict.fromkeys(aliases))
            self._follow(state, named, aliases, loaded, missing)
        return loaded, missing

    def _follow(
        self, state: State, named: dict[str, None], todo: list[str], loaded: list[str], missing: set[str]
    ) -> None:
        """Sort ids, and whomever they were merged into, into those who are loaded and those who should be."""
        while todo:
            absent = set(state.rows.missing(todo))
            missing.update(p for p in absent if partition_of(p, state.partitions) == state.partition)
            here = [person for person in todo if person not in absent] if absent else todo
            loaded += here
            flags = state.rows.flags(here)
            moved = [here[i] for i in np.flatnonzero(flags & feature_rows.MOVED).tolist()]
            goals = [Work.moved_to(state, person) for person in moved]
            todo = list(dict.fromkeys(goal for goal in goals if goal is not None and goal not in named))
            named.update(dict.fromkeys(todo))

    def _resolve(self, work: Work, batch: Batch) -> NDArray[np.int64]:
        """Row of each event's person; -1 for those who live elsewhere, whose events are forwarded."""
        find = work.slot.get
        slot = np.array([find(person, -1) for person in batch.people], np.int64)
        for index in np.flatnonzero(slot < 0).tolist():
            work.count("misrouted_total")
            _forward(work, batch, index, batch.people[index], [])
        return slot

    def _accept(self, work: Work, batch: Batch, slot: NDArray[np.int64]) -> NDArray[np.int64]:
        """Drop what a person already sent; indices of the rest."""
        here = np.flatnonzero(slot >= 0)
        ids = ring_ids([batch.events[index].message_id for index in here.tolist()])
        new, work.rows = feature_rows.fresh(work.rows, slot[here], ids)
        accepted = here[new]
        work.changed_rows[slot[accepted]] = True
        work.count("duplicates_total", by=len(here) - len(accepted))
        return accepted

    def _fold(
        self, work: Work, batch: Batch, slot: NDArray[np.int64], accepted: NDArray[np.int64], kinds: list[int]
    ) -> NDArray[np.bool_]:
        """Add all signals at once, but those of ids that were merged or erased, or may be soon: they wait their turn.

        Returns
        -------
        bool[events]
            Which events need no further look at their signal.
        """
        folded = np.zeros(len(batch.events), np.bool_)
        settled = work.rows["flags"] & (feature_rows.MOVED | feature_rows.ERASED) == 0
        settled[[work.slot[person] for person in _moving(work, batch)]] = False
        plain = accepted[settled[slot[accepted]]]
        folded[plain] = True
        named = [index for index in plain.tolist() if batch.events[index].user_id is not None]
        work.rows["flags"][slot[named]] |= np.uint32(feature_rows.KNOWN)
        counted = plain[np.array(kinds, np.int64)[plain] != SILENT]
        if len(counted):
            chosen = counted.tolist()
            signals = signals_of([batch.events[i] for i in chosen], slot[counted], [kinds[i] for i in chosen])
            work.rows = feature_rows.fold(work.rows, signals)
        return folded

    def _sifted(
        self,
        work: Work,
        batch: Batch,
        slot: NDArray[np.int64],
        accepted: NDArray[np.int64],
        folded: NDArray[np.bool_],
    ) -> tuple[list[int], list[int]]:
        """Indices of events that only tell of another time zone, and of those that take the per-event path."""
        named, zones = self._significant, work.rows["zone"]
        quiet = folded[accepted]
        if self._decider.propensities is not None:  # a sign of life may be waited for
            quiet &= work.rows["flags"][slot[accepted]] & feature_rows.AWAITED == 0
        travelled: list[int] = []
        significant: list[int] = []
        for index, is_quiet in zip(accepted.tolist(), quiet.tolist(), strict=True):
            event = batch.events[index]
            if not is_quiet or event.event in named or event.type in SIGNIFICANT_TYPES:
                significant.append(index)
            elif event.timezone is not None and zones[slot[index]] != zone_hash(event.timezone):
                travelled.append(index)
        return travelled, significant

    # What an event means to a person

    def _merge(self, work: Work, message: Message, moment: Moment) -> None:
        if message.kind == "erase":
            erasure.take(work, message)
            return
        apply = identity.move if message.kind == "move" else identity.absorb
        for person, cancelled in apply(work, message, self._timings, moment.now_ms):
            self._decider.end(work, person, cancelled, moment)

    def _advance(self, work: Work, batch: Batch, index: int, kind: int | None, moment: Moment) -> None:
        """Find out whose an event is; `kind` is its signal's where it is not folded yet."""
        event, record = batch.events[index], batch.records[index]
        came_through = batch.paths.get(index, [])
        if kind is not None and event.user_id == batch.people[index] and event.type != "delete":
            work.mark(event.user_id, known=True)
        place = identity.follow(work, batch.people[index], came_through)
        passed = place.path[len(came_through) :]
        owners = [*passed, place.person] if place.here else passed
        new = [work.is_new(owner, event.message_id) for owner in owners[1:]]  # the first was asked with the batch
        if not all(new):
            work.count("duplicates_total")
            return
        if any(erasure.is_past(work.profile(owner), event) for owner in owners):
            work.count("erased_events_total")
            return
        if not place.here:
            _forward(work, batch, index, place.person, place.path)
            return
        self._act(work, place, event, record, kind, moment)

    def _act(self, work: Work, place: Place, event: Event, record: Record, kind: int | None, moment: Moment) -> None:
        """Let an event act on its person, who lives here."""
        person, profile = place.person, work.profile(place.person)
        if erasure.is_stranger(profile, place.path) and event.type != "delete":
            erasure.unlink(work, person, place.path, profile.erased_ms or 0, event.message_id)
            work.count("erased_events_total")
            return
        work.touch(person)
        if kind is not None and kind != SILENT:
            work.signal(person, kind, event.at_ms, value_of(event, kind))
        if event.timezone is not None:
            _note_zone(work, person, event)
        _note_device(profile, event)
        self._decider.seen(work, person, event, moment)
        match event.type:
            case "delete":
                self._erase(work, place, event, moment)
            case "identify" | "alias":
                if event.type == "identify":
                    traits = events.body(record, {}).get("traits") or {}
                    work.count("dropped_traits_total", by=lifecycle.identify(profile, traits, event.at_ms))
                self._unite(work, person, event, moment)
            case "track":
                body = events.body(record, self.config.event_aliases) if event.event in self._decider.by_event else {}
                self._decider.happen(work, person, event, body, moment)
            case "page" | "screen" | "group":
                pass

    def _unite(self, work: Work, person: str, event: Event, moment: Moment) -> None:
        """The person's other id in this event is theirs from now on."""
        other = event.previous_id if event.type == "alias" else event.anonymous_id
        if other is None or other == person or (event.type == "identify" and event.user_id is None):
            return
        if work.profile(person).erased_ms is not None:  # the id may have been theirs before, and is anew
            remember_aliases(work.profile(person), [other])
        self._merge(work, Message("move", event.message_id, other, event.at_ms, into=person, by=event.type), moment)

    def _erase(self, work: Work, place: Place, event: Event, moment: Moment) -> None:
        """Forget the person and all their ids, and leave the proof of it in the log."""
        person, erased_ms = place.person, max(event.record_ms, event.at_ms)
        profile = work.profile(person)
        for pending in profile.pending:
            self._decider.end(work, person, Cancelled(pending, None, "erased"), moment)
        self._decider.forget(work, person, moment)
        erasure.forget(work, person, erased_ms)
        aliases = list(dict.fromkeys([*profile.aliases, *place.path]))
        erasure.unlink(work, person, aliases, erased_ms, event.message_id)
        version = self.config.version_hash
        work.effects.log.append(decision.erased(person, moment.now_ms, event.message_id, moment.as_of, version))

    def _count(self, work: Work, batch: Batch) -> None:
        for kind, count in batch.types.items():
            work.count("events_total", kind, by=count)
        work.count("clamped_timestamps_total", by=sum([event.clamped for event in batch.events]))
        for letter in batch.rejected:
            work.count("dead_letters_total", letter.reason)


def _moving(work: Work, batch: Batch) -> set[str]:
    """People of this partition whose events this batch may have to count for somebody else halfway through."""
    named = {message.person for message in batch.messages} | set(batch.leaving)
    owners: set[str] = set()
    aliased = any(message.by == "alias" for message in batch.messages)
    for event in batch.naming:
        other = event.previous_id if event.type == "alias" else event.anonymous_id
        if other is not None and other != event.person:
            named.add(other)
            owners.add(event.person)
            aliased = aliased or event.type == "alias"
    if aliased:  # it moves the owner of its id, too, who may have become that within this batch
        named |= owners
    todo = [person for person in named if person in work.slot]
    moving = set(todo)
    while todo:
        owner = work.profile(todo.pop()).moved_to
        if owner is not None and owner in work.slot and owner not in moving:
            moving.add(owner)
            todo.append(owner)
    return moving


def _forward(work: Work, batch: Batch, index: int, person: str, path: list[str]) -> None:
    """Send an event to the home of the person it counts for."""
    record = batch.records[index]
    value = (record.value or b"").decode()
    message = Message("event", batch.events[index].message_id, person, record.timestamp, value=value, path=path)
    work.effects.internal.append(messages.outgoing(message, work.state.partitions))


def _note_zone(work: Work, person: str, event: Event) -> None:
    """Remember the time zone of the latest event; the row holds its hash, so that most events need not look."""
    profile = work.profile(person)
    if event.timezone is None or len(event.timezone) > MAX_ZONE_CHARACTERS:
        return
    if profile.context_zone is None or profile.context_zone.at_ms <= event.at_ms:
        work.touch(person)
        profile.context_zone = Trait(event.at_ms, event.timezone)
        work.rows["zone"][work.slot[person]] = zone_hash(event.timezone)
        work.changed_rows[work.slot[person]] = True


def _note_device(profile: Profile, event: Event) -> None:
    """Remember the family of the device of the latest event; what becomes of a message says nothing of it."""
    agent = event.context.get("userAgent")
    if type(agent) is not str or event.event in lifecycle.ENGAGEMENT:
        return
    family = contexts.device_of(agent)
    if family is not None and (profile.device is None or profile.device.at_ms <= event.at_ms):
        profile.device = Trait(event.at_ms, family)
