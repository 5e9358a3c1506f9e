"""The owner of one partition: take it over, step, commit. Exactly once, with Kafka as the truth and Redis as a view.

START
  1  take a new producer under this partition's transactional id; it fences the previous owner and settles what that
     one left open
  2  fetch the committed offsets and their metadata {n, d}: only now, before 1 they may be stale
     none: take them from the changelog's last marker; no marker: n = 0, the earliest offsets
  3  bring the view to n: replay the changelog from where the view is, or wipe it and rebuild it
  4  (the caller) seek the inputs to the offsets and let them flow
STEP n -> n+1
  1  READ whom the batch needs and the cache does not have, expecting the view at n
  2  compute
  3  begin a transaction
  4  append everything: changelog (post-images, then the marker), decisions, log, examples, internal, catalog, dead
     letters; await all acks; d is the changelog position after them
  5  add the offsets of all inputs, with metadata {n+1, d}
  6  commit
  7  APPLY to the view, expecting it at n

If the owner dies, or is cut off, the next START finds:

  after      Kafka                              Redis          what START does
  READ, 2    step n                             n              nothing to mend; the batch is read again
  3, 4, 5    an open transaction                n              1 aborts it; the batch is read again
  6, unsure  n, or n+1: 1 settles which         n              2 tells which; if n+1, 3 replays it
  6          step n+1                           n              3 replays step n+1 from the changelog
  7, unsure  step n+1                           n or n+1       the same, or nothing
  7, torn    step n+1                           torn           3 wipes and rebuilds
  any time   whatever                           lost, or older 3 replays or rebuilds
  paused, then alive again                      any            3 to 6 fail: fenced. 7 conflicts: the view moved on

An error while it runs ends the same way: whatever may or may not have happened is settled by START, never by
repeating a request on the same producer.

Without transactions nobody is fenced, and a step may be in the changelog and not in the view: not applied yet, another
owner's, or forgotten by Redis. The view decides what happened, for there is compare-and-set. So that the changelog
folds to the view at every d
  START, at last, says again in the changelog what everybody is in the view who is mentioned behind its d
  STEP  goes on to 7 only if its records follow d without a gap
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from decisioning.effects import Effects, Outgoing, Record, State
from features.rows import encode_many
from streams import changelog
from streams.cache import Cache
from streams.changelog import MARKER_KEY, Marker, Position
from streams.dead_letters import publishable
from streams.due import DueIndex
from streams.metrics import Metrics
from streams.seams import (
    INPUTS,
    NOTHING,
    Changes,
    Clock,
    Committed,
    FencedError,
    Log,
    Meta,
    RefusedError,
    Store,
    UnknownOutcomeError,
)
from streams.tables import Tables
from streams.view import View

DUE_AT_ONCE: Final = 500  # people whose timers fire in one step: each decision makes half a dozen records
RESTATED_AT_ONCE: Final = 2000  # people of whom START says again what they are
MARKER_WINDOW: Final = 1000  # records looked at first for the last marker, from the end


@dataclass(frozen=True, slots=True)
class Place:
    """Which partition this is, and what is recorded about its steps.

    Attributes
    ----------
    partition, partitions
        Its number, and how many partitions `events` has.
    cache_people
        How many people the owner remembers.
    versions
        What all steps are computed with, for the marker.
    tables
        What broadcast topics say, which all partitions of a worker share.
    replayed_people
        How many people of the changelog are written at once when the view is rebuilt.
    """

    partition: int
    partitions: int
    cache_people: int
    versions: Mapping[str, str] = field(default_factory=dict)
    tables: Tables = field(default_factory=Tables)
    replayed_people: int = 2000


class Partition:
    """The protocol above, for one partition, from one START to the next.

    Not safe for concurrent calls: one task owns it.

    Attributes
    ----------
    offsets
        Input -> next offset to read after the last committed step.
    """

    def __init__(self, place: Place, engine: Any, log: Log, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._place = place
        self._engine = engine
        self._log = log
        self._view = View(place.partition, log, store, clock, metrics, place.replayed_people)
        self._clock = clock
        self._metrics = metrics
        self._label = str(place.partition)
        self._cache = Cache(place.cache_people)
        self._due = DueIndex()
        self._meta = Meta(0, 0, {}, place.partitions, "", 0)
        self._tables = place.tables
        self._switches = self._tables.switches  # when timers that are held were last looked at
        self._state = State(
            place.partition,
            place.partitions,
            self._cache.rows,
            self._cache.profiles,
            self._tables.stock,
            self._tables.paused,
        )
        self._refusal = ""  # why START was refused last time

    @property
    def offsets(self) -> Mapping[str, int]:
        """Input -> next offset to read after the last committed step."""
        return self._meta.offsets

    @property
    def step_number(self) -> int:
        """The last committed step."""
        return self._meta.n

    def next_due_ms(self) -> int | None:
        """When the next timer is due that is not held."""
        self._unpark()
        return self._due.next_ms()

    def _unpark(self) -> None:
        """Look again at what is held, if campaigns were paused or resumed since the last time."""
        if self._switches != self._tables.switches:
            self._switches = self._tables.switches
            self._due.unpark()

    async def start(self) -> None:
        """Take the partition over; see START above.

        Raises
        ------
        FencedError, UnknownOutcomeError
            Start again, if the partition is still ours.
        RefusedError
            `events` has another number of partitions than the state was made with, or the changelog is not the one
            the offsets belong to.
        """
        self._cache.clear()
        await self._log.acquire()  # 1
        meta = await (self._from_kafka() if self._log.transactional else self._from_view())  # 2
        self._refuse_other_partitions(meta)
        self._meta = meta
        await self._bring(meta)  # 3
        self._due = DueIndex(await self._view.due(meta))
        if not self._log.transactional:
            await self._restate()
        self._report()

    async def step(
        self,
        events: Sequence[Record],
        internal: Sequence[Record],
        offsets: Mapping[str, int],
        fire_until_ms: int | None = None,
        expired: Sequence[str] = (),
    ) -> None:
        """Handle what was read, and fire what is due; see STEP above.

        Parameters
        ----------
        events, internal
            Records that follow the offsets of the last step, without a gap.
        offsets
            Input -> next offset to read after these.
        fire_until_ms
            Timers due at or before this fire; None: none.
        expired
            People who seem to have been idle for longer than anything is kept.

        Raises
        ------
        FencedError, UnknownOutcomeError
            Nothing more may be done with this object but `start`.
        """
        started_s = self._clock.monotonic_s()
        batch = self._engine.decode(events, internal)
        if not events:
            batch.offset = offsets["events"]
        batch.fire_until_ms = fire_until_ms
        batch.expired = expired
        started_s = self._timed("decode", started_s)
        await self._load(batch)  # 1
        started_s = self._timed("fetch", started_s)
        now_ms = max(self._clock.now_ms(), self._meta.at_ms)  # a clock set back must not undo the order of steps
        versions = {**self._place.versions, **self._tables.versions()}
        effects = self._engine.step(self._state, batch, now_ms, self._tables.in_use)  # 2
        self._timed("decide", started_s)
        due = dict.fromkeys(batch.due) | effects.due  # whom the engine does not name has no timer left
        after = Meta(self._meta.n + 1, NOTHING, offsets, self._place.partitions, "", now_ms)
        marker = Marker(
            n=after.n,
            offsets=dict(offsets),
            now_ms=now_ms,
            fire_until_ms=fire_until_ms,
            expired=list(expired),
            partitions=after.partitions,
            versions=versions,
        )
        await self._commit(effects, due, after, marker)
        self._cache.trim()
        self._metrics.count(effects.counts)
        self._report()

    async def release(self) -> None:
        """Let go of the partition; whatever is under way is settled by the next owner."""
        self._cache.clear()
        await self._log.release()
        self._metrics.forget(self._place.partition)

    # START

    async def _bring(self, meta: Meta) -> None:
        try:
            await self._view.bring(meta, settled=True)
        except RefusedError as error:
            # Somebody may have fenced us since and committed that step, and its end mark in the changelog is to come.
            # A new producer waits for it, so what is the same after one more START stays so.
            before, self._refusal = self._refusal, str(error)
            if before == self._refusal:
                raise
            raise UnknownOutcomeError(self._refusal) from error

    async def _from_kafka(self) -> Meta:
        """Where the last step of this partition ended, by the committed offsets."""
        committed = await self._log.committed()
        position = changelog.decode_position(committed.metadata)
        if position is not None and set(committed.offsets) == set(INPUTS):
            return self._at(position.n, position.d, committed.offsets, position.partitions)
        # Expired, reset by hand, or never there. Offsets that an operator has set count; the rest is in the marker.
        return await self._from_changelog(committed)

    async def _from_view(self) -> Meta:
        """Without transactions the view is what knows the offsets; if it is lost, the changelog's last marker."""
        seen = await self._view.meta()
        if seen is not None and seen.state == "" and set(seen.offsets) == set(INPUTS):
            return seen
        meta = await self._from_changelog(Committed({}, ""))
        _, end = await self._log.bounds()
        return replace(meta, d=end)  # of a step whose marker did not arrive too: it may have replaced earlier images

    async def _from_changelog(self, committed: Committed) -> Meta:
        offsets = dict(await self._log.earliest())
        found = await self._last_marker()
        if found is None:
            return self._at(0, 0, offsets | dict(committed.offsets), self._place.partitions)
        marker, d = found
        return self._at(marker.n, d, offsets | marker.offsets | dict(committed.offsets), marker.partitions)

    def _at(self, n: int, d: int, offsets: Mapping[str, int], partitions: int) -> Meta:
        return Meta(n, d, {name: offsets[name] for name in INPUTS}, partitions, "", self._clock.now_ms())

    async def _restate(self) -> None:
        """Leave one history in the changelog where it goes on behind the view; see above.

        Left as it is, a rebuild would take some people as they are here and some as they were there: a visitor who was
        merged into somebody there, and that person as they are here, without what the visitor was about to get.
        """
        before = self._meta
        first, end = await self._log.bounds()
        if end == before.d:
            return
        async with aclosing(self._log.changelog(max(first, before.d), end)) as chunks:
            mentioned = sorted({person async for entries, _ in chunks for person in changelog.latest(entries)})
        now_ms = max(self._clock.now_ms(), before.at_ms)
        after = replace(before, n=before.n + 1, d=end, at_ms=now_ms)
        marker = Marker(n=after.n, offsets=dict(after.offsets), now_ms=now_ms, partitions=after.partitions)
        # First, for once: should the rest not arrive, what it leaves is read again rather than passed over.
        mark = (MARKER_KEY, changelog.encode_marker(marker))
        for start in range(0, len(mentioned) or 1, RESTATED_AT_ONCE):
            people = mentioned[start : start + RESTATED_AT_ONCE]
            after = replace(after, d=await self._append(after.d, [mark, *await self._images_of(people)], {}))
            self._cache.trim()
        self._meta = after
        await self._view.apply(before, after, Changes())

    async def _images_of(self, people: Sequence[str]) -> list[tuple[bytes, bytes]]:
        """What people are in the view, for the changelog; nothing but zeros, if it does not know them."""
        rows, profiles = await self._view.read(self._meta, people)
        self._cache.load(people, rows, profiles)
        return changelog.encode_images(
            people,
            encode_many(self._cache.rows.gather(people)),
            [profile or b"" for profile in profiles],
            [self._due.get(person) for person in people],
        )

    async def _append(
        self, d: int, records: Sequence[tuple[bytes, bytes]], outputs: Mapping[str, Sequence[Outgoing]]
    ) -> int:
        """Append without transactions, where the changelog ends at d; returns where it ends then."""
        end = await self._log.append(records, outputs)
        if end != d + len(records):
            raise FencedError(f"the changelog was at {d}, and somebody else has written to it before {end}")
        return end

    async def _last_marker(self) -> tuple[Marker, int] | None:
        """The changelog's last marker and the position after it, found by reading ever more from the end."""
        first, end = await self._log.bounds()
        window = MARKER_WINDOW
        upper = end
        while upper > first:
            lower = max(first, end - window)
            found: tuple[Marker, int] | None = None
            async with aclosing(self._log.changelog(lower, upper)) as chunks:
                async for entries, _ in chunks:
                    for entry in entries:
                        if entry.key == MARKER_KEY and entry.offset < upper:
                            found = changelog.decode_marker(entry.value), entry.offset + 1
            if found is not None:
                return found
            upper, window = lower, window * 8
        return None

    def _refuse_other_partitions(self, meta: Meta) -> None:
        if meta.partitions != self._place.partitions:
            raise RefusedError(
                f"partition {self._place.partition}: the state was made with {meta.partitions} partitions of `events`,"
                f" now there are {self._place.partitions}; people would be looked for in the wrong place. "
                f"Use a topic with {meta.partitions} partitions, or start anew with another DECISIONING_TOPIC_PREFIX"
            )

    # STEP

    async def _load(self, batch: Any) -> None:
        """READ: who is due, and whoever the step needs and nobody has loaded."""
        while True:
            if batch.fire_until_ms is not None:
                self._unpark()  # a campaign that is resumed while somebody is loaded counts in this step
                batch.due = self._due.until(batch.fire_until_ms, DUE_AT_ONCE)
            missing = self._engine.reads(self._state, batch)
            if not missing:
                return
            people = sorted(missing)
            rows, profiles = await self._view.read(self._meta, people)
            self._cache.load(people, rows, profiles)

    async def _commit(self, effects: Effects, due: Mapping[str, int | None], after: Meta, marker: Marker) -> None:
        """Transaction and APPLY."""
        started_s = begun_s = self._clock.monotonic_s()
        images = self._images(effects, due)
        records = changelog.encode_images(
            images.people, images.rows, list(images.profiles.values()), list(images.due.values())
        )
        records.append((MARKER_KEY, changelog.encode_marker(marker)))
        outputs = self._outputs(effects)
        if self._log.transactional:
            await self._log.begin()  # 3
            d = await self._log.append(records, outputs)  # 4
            started_s = self._timed("publish", started_s)
            position = Position(n=after.n, d=d, partitions=after.partitions)
            await self._log.offsets(after.offsets, changelog.encode_position(position))  # 5
            await self._log.commit()  # 6
            self._metrics.transaction_seconds.observe(self._clock.monotonic_s() - begun_s)
        else:
            d = await self._append(self._meta.d, records, outputs)
            started_s = self._timed("publish", started_s)
        before, self._meta = self._meta, replace(after, d=d)
        self._cache.store(effects.people, effects.rows, effects.profiles)
        self._due.update(due, effects.parked)
        self._delays(effects)
        changed = Changes(images.people, images.rows, effects.profiles, due)
        await self._view.apply(before, self._meta, changed)  # 7
        if not self._log.transactional:
            await self._log.offsets(after.offsets, "")
        self._timed("commit", started_s)

    def _images(self, effects: Effects, due: Mapping[str, int | None]) -> Changes:
        """The whole post-image of everyone the step changed, those included of whom only the timer changed."""
        people, rows = list(effects.people), encode_many(effects.rows)
        changed = set(people)
        assert len(changed) == len(rows)
        assert effects.profiles.keys() <= changed
        others = [person for person in due if person not in changed and due[person] != self._due.get(person)]
        if others:
            people += others
            rows += encode_many(self._cache.rows.gather(others))
        known, get_due = self._cache.profiles.get, self._due.get
        profiles = {person: known(person, b"") for person in people} | effects.profiles
        return Changes(people, rows, profiles, {p: due[p] if p in due else get_due(p) for p in people})

    def _outputs(self, effects: Effects) -> dict[str, Sequence[Outgoing]]:
        outputs: dict[str, Sequence[Outgoing]] = {
            "decisions": effects.decisions,
            "decision-log": effects.log,
            "examples": effects.examples,
            "internal": effects.internal,
            "catalog": effects.catalog,
            "dead-letters": [publishable(letter) for letter in effects.dead_letters],
        }
        return {name: records for name, records in outputs.items() if records}

    # Figures

    def _timed(self, stage: str, started_s: float) -> float:
        now_s = self._clock.monotonic_s()
        self._metrics.batch_seconds.labels(stage).observe(now_s - started_s)
        return now_s

    def _delays(self, effects: Effects) -> None:
        now_s = self._clock.now_ms() / 1e3
        for campaign, fire_at_ms in effects.fired:
            self._metrics.decision_delay_seconds.labels(campaign).observe(max(0.0, now_s - fire_at_ms / 1e3))

    def _report(self) -> None:
        self._metrics.timers_pending.labels(self._label).set(len(self._due))
