"""The working set of one step: own copies of the rows and profiles it reads, and what it changed.

The step is pure because it only ever changes these copies; `Effects` carries them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from decisioning import profile as profiles
from decisioning.effects import Effects, State
from decisioning.partitioner import partition_of
from decisioning.profile import Profile
from features import rows as feature_rows
from features.layout import ring_ids
from features.rows import AWAITED, ERASED, KNOWN, MOVED
from features.signals import Signals
from features.vector import vectors

_NEVER = (-1, np.zeros(0))


class Work:
    """Rows and profiles of the people one step may read or change.

    Parameters
    ----------
    state
        What the shell loaded; never changed here.
    people
        Everyone the step may touch, each once; all are in `state.rows`.
    held
        Campaigns whose timers do not fire.
    """

    def __init__(self, state: State, people: list[str], held: frozenset[str] = frozenset()) -> None:
        self.state = state
        self.held = held
        self.people = people
        self.slot = {person: slot for slot, person in enumerate(people)}
        self.rows: NDArray[np.void] = state.rows.gather(people)
        self.changed_rows = np.zeros(len(people), dtype=np.bool_)
        self.effects = Effects()
        self._profiles: dict[str, Profile] = {}
        self._changed_profiles: set[str] = set()
        self._signals: dict[int, list[tuple[int, float, float, int]]] = {}
        self._evaluated: dict[int, tuple[int, NDArray[np.float64]]] = {}

    @staticmethod
    def moved_to(state: State, person: str) -> str | None:
        """Where an id's forwarding address points, straight from what was loaded."""
        return profiles.decode(state.profiles.get(person)).moved_to

    def is_home(self, person: str) -> bool:
        """Whether this partition is where the person lives."""
        return person in self.slot or partition_of(person, self.state.partitions) == self.state.partition

    def profile(self, person: str) -> Profile:
        """The step's own copy of a profile, to read; whoever changes it says so by `touch`."""
        found = self._profiles.get(person)
        if found is None:
            found = self._profiles[person] = profiles.decode(self.state.profiles.get(person))
        return found

    def replace(self, person: str, profile: Profile) -> None:
        """Put another profile in the place of a person's."""
        self._profiles[person] = profile
        self.touch(person)

    def touch(self, person: str) -> None:
        """Note that the profile of this person was changed."""
        self._changed_profiles.add(person)

    def vector(self, person: str, now_ms: int) -> NDArray[np.float64]:
        """The person's row as numbers named by `features.vector.NAMES`, with all signals so far in it."""
        slot = self.slot[person]
        if slot in self._signals:
            self._fold_outcomes(slot)
        at_ms, vector = self._evaluated.get(slot, _NEVER)
        return vector if at_ms == now_ms else vectors(self.rows[slot : slot + 1], now_ms)[0]

    def evaluate(self, people: Sequence[str], now_ms: int) -> None:
        """Have the vectors of many people ready at a fraction of what they cost one by one; only signals may follow."""
        self.fold_signals()
        slots = [self.slot[person] for person in people]
        self._evaluated = {
            slot: (now_ms, vector) for slot, vector in zip(slots, vectors(self.rows[slots], now_ms), strict=True)
        }

    def is_known(self, person: str) -> bool:
        """Whether the id was ever seen as a user's own."""
        return bool(self.rows["flags"][self.slot[person]] & KNOWN)

    def mark(
        self,
        person: str,
        *,
        moved: bool | None = None,
        erased: bool | None = None,
        known: bool | None = None,
        awaited: bool | None = None,
        clear: bool = False,
    ) -> None:
        """Set the flags of a row, or clear what was learned (message ids stay, so that repeats stay known)."""
        slot = self.slot[person]
        for flag, wanted in ((MOVED, moved), (ERASED, erased), (KNOWN, known), (AWAITED, awaited)):
            if wanted is not None:
                kept = self.rows["flags"][slot] & ~np.uint32(flag)
                self.rows["flags"][slot] = kept | (np.uint32(flag) if wanted else np.uint32(0))
        if clear:
            self._signals.pop(slot, None)
            self._evaluated.pop(slot, None)
            self.rows["values"][slot] = 0.0
            self.rows["at_ms"][slot] = 0.0
            self.rows["zone"][slot] = 0
        self.changed_rows[slot] = True

    def forget_messages(self, person: str) -> None:
        """Let nothing be known of the messages a person sent."""
        slot = self.slot[person]
        self.rows["ring"][slot] = 0
        self.rows["count"][slot] = 0
        self.changed_rows[slot] = True

    def is_new(self, person: str, message_id: str) -> bool:
        """Whether a person never sent this message; it is remembered. For events that were kept under another id."""
        slot = self.slot[person]
        new, self.rows[slot : slot + 1] = feature_rows.fresh(
            self.rows[slot : slot + 1], np.zeros(1, np.int64), ring_ids([message_id])
        )
        self.changed_rows[slot] = True
        return bool(new[0])

    def absorb_row(self, person: str, other: NDArray[np.void]) -> None:
        """Add another row's decayed sums to a person's."""
        slot = self.slot[person]
        self.rows[slot : slot + 1] = feature_rows.merge(self.rows[slot : slot + 1], other)
        self.changed_rows[slot] = True

    def signal(self, person: str, kind: int, at_ms: int, value: float, channel: int = -1) -> None:
        """Collect a signal that only the per-event path knows; many are folded at once, before their row is read."""
        slot = self.slot[person]
        self._signals.setdefault(slot, []).append((kind, float(at_ms), value, channel))
        self._evaluated.pop(slot, None)

    def fold_signals(self) -> None:
        """Fold what was collected since the last time."""
        if not self._signals:
            return
        collected = [(slot, *signal) for slot, signals in self._signals.items() for signal in signals]
        self._signals.clear()
        slots, kinds, times, values, channels = zip(*collected, strict=True)
        touched, where = np.unique(np.array(slots, np.int64), return_inverse=True)
        signals = Signals(
            slot=where.astype(np.int64),
            kind=np.array(kinds, np.int16),
            at_ms=np.array(times, np.float64),
            value=np.array(values, np.float64),
            channel=np.array(channels, np.int8),
        )
        self.rows[touched] = feature_rows.fold(self.rows[touched], signals)
        self.changed_rows[touched] = True

    def _fold_outcomes(self, slot: int) -> None:
        """Fold what was collected of one person: mostly a send, of somebody who is decided on twice in a step."""
        left = self._signals[slot]
        while left and feature_rows.fold_outcome(self.rows, slot, left[0][0], left[0][1], left[0][3]):
            del left[0]
        self.changed_rows[slot] = True
        if left:
            self.fold_signals()
        else:
            del self._signals[slot]

    def touched(self) -> Iterable[str]:
        """Whose profile this step has changed so far, in a stable order."""
        return sorted(self._changed_profiles)

    def count(self, *labels: str, by: float = 1) -> None:
        """Add to a counter: the metric's name without prefix, then its label values."""
        if by:
            self.effects.counts[labels] += by  # type: ignore[assignment]

    def finish(self, due: Iterable[str]) -> Effects:
        """The effects with all changed rows and profiles in them; whoever was said to be `due` gets a next time too."""
        self.fold_signals()
        effects = self.effects
        for person in due:
            if person in self.slot:
                effects.due[person] = self.profile(person).next_fire_ms()
        for person in self.touched():
            profile = self._profiles[person]
            encoded = profiles.encode(profile)
            if encoded == self.state.profiles.get(person, b""):
                continue
            effects.profiles[person] = encoded
            effects.due[person] = profile.next_fire_ms()
            self.changed_rows[self.slot[person]] = True
        if self.held:
            self._park()
        changed = np.flatnonzero(self.changed_rows)
        effects.people = [self.people[slot] for slot in changed.tolist()]
        effects.rows = self.rows[changed]
        return effects

    def _park(self) -> None:
        """Say when those fire next whose earliest timer is held."""
        effects = self.effects
        for person, due_ms in effects.due.items():
            free = [timer.fire_ms for timer in self.profile(person).pending if timer.campaign not in self.held]
            free_ms = min(free, default=None)
            if free_ms != due_ms:
                effects.parked[person] = free_ms
