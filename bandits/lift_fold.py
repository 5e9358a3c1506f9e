"""The live lift: a fold over examples of the choice between treatment and holdout.

A holdout is a policy with two arms, so its examples and corrections say what treatment does: a unit is a person where
examples carry a pseudonym, else a decision, and it counts as having done it while its rewards add up to more than 0.

What is kept is a function of the set of records, so that neither order nor delay matters, and a record that takes an
example back (its person was erased) leaves what there was without both. It is bounded: where a group outgrows its room,
every other person is dropped, by a hash of who they are and of nothing else, again and again. Before that all is exact;
after it the groups are fair samples, and the share of the treated among those kept is put right.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from bandits.learner import key_of
from bandits.lift import ALPHA, NOTHING, Count, Interval, Lift, is_mismatched, mismatch_evidence, rate_lift
from bandits.snapshot import SnapshotError

ARMS: Final = ("treatment", "holdout")
SUFFIX: Final = "/holdout"
SCHEMA: Final = 1
MAX_PEOPLE: Final = 8192  # of a group; about 130 KB of it in a snapshot
MAX_SHARES: Final = 2  # of a campaign: the one in force, and one that is coming or going
MAX_CAMPAIGNS: Final = 200  # 2.5 MB of memory each, where both groups are full
DIGITS: Final = 9  # a share is told from another by so many
SETTLED: Final = 1e-9  # rewards that were taken back again add up to less than this
_BITS: Final = 64
_NUMBERS, _COUNTS = np.dtype(">u8"), np.dtype(">i4")


class _Example(msgspec.Struct):
    policy: str
    arm: str
    propensity: float
    decision_id: str
    reward: float = 0.0
    correction: bool = False
    delta: float = 0.0
    forget: bool = False
    pseudonym: str | None = None
    at: str = ""

    @property
    def earned(self) -> float:
        return self.delta if self.correction else self.reward

    @property
    def decisions(self) -> int:
        """How many more decisions a person has by it."""
        return -1 if self.forget else 0 if self.correction else 1


class _Arm(msgspec.Struct):
    level: int
    people: str  # base64 of their sorted 64-bit numbers
    decisions: str  # base64 of 32-bit numbers, one of each
    earned: dict[str, float]  # number -> sum of rewards, where it is not 0


class _Trial(msgspec.Struct):
    campaign: str
    share: float
    latest: str
    arms: list[_Arm]


class _Snapshot(msgspec.Struct):
    schema: int
    kind: str
    versions: dict[str, int]
    trials: list[_Trial]


@dataclass(slots=True)
class Group:
    """The people of one arm: those whose number, a hash, is below 2^(64 - level).

    Attributes
    ----------
    decisions
        Number -> decisions about the person; 0 where only a correction was seen so far.
    earned
        Number -> sum of their rewards, of the same people.
    """

    level: int = 0
    decisions: dict[int, int] = field(default_factory=dict)
    earned: dict[int, float] = field(default_factory=dict)

    def add(self, number: int, decisions: int, earned: float) -> None:
        """Add to a person's decisions and to what those earned; who has neither is forgotten."""
        if number >> (_BITS - self.level):
            return
        decisions += self.decisions.get(number, 0)
        earned += self.earned.get(number, 0.0)
        if not decisions and abs(earned) < SETTLED:
            self.decisions.pop(number, None)
            self.earned.pop(number, None)
            return
        self.decisions[number], self.earned[number] = decisions, earned
        while len(self.decisions) > MAX_PEOPLE:
            self.level += 1
            for dropped in [each for each in self.decisions if each >> (_BITS - self.level)]:
                del self.decisions[dropped], self.earned[dropped]

    @property
    def count(self) -> Count:
        """People kept, and how many of them did it."""
        here = [self.earned[number] > SETTLED for number, decisions in self.decisions.items() if decisions > 0]
        return Count(len(here), sum(here))

    @property
    def people(self) -> int:
        """People there are, about; exact while all are kept."""
        return self.count.people << self.level


@dataclass(slots=True)
class Trial:
    """A campaign under one share of treatment; another share is another split of the people, and another trial."""

    share: float
    latest: str = ""
    groups: tuple[Group, Group] = field(default_factory=lambda: (Group(), Group()))

    def lift(self) -> Lift:
        """Rate of treatment against rate of holdout."""
        treated, held = self.groups
        # Each level is a sequence of its own, and all of them together may miss with probability alpha: sum 6/(pi n)^2.
        level = 1 + treated.level + held.level
        alpha = ALPHA * 6.0 / (math.pi * level) ** 2
        kept = self.share * 2.0**-treated.level, (1.0 - self.share) * 2.0**-held.level
        return rate_lift(treated.count, held.count, kept[0] / sum(kept), alpha)

    def is_mismatched(self) -> bool:
        """Whether the groups' sizes contradict the share."""
        treated, held = self.groups
        return is_mismatched(mismatch_evidence(treated.people, held.people, self.share))


class LiftFold:
    """Lift of every campaign that has a holdout, from records of `examples` in any order.

    Attributes
    ----------
    versions
        Campaign -> offset of the next record that is to be taken, where offsets were given.
    """

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self._trials: dict[str, list[Trial]] = {}

    def take(self, record: Mapping[str, Any], offset: int | None = None) -> str | None:
        """Fold one decoded example or correction.

        Parameters
        ----------
        record
            As it was published.
        offset
            Its place in the log, if each shall count once however often the log is read.

        Returns
        -------
        str or None
            Why a record was refused, in one word, with nothing changed: `schema, arm, propensity, reward, campaigns`.
            None where it was taken, or is about another choice.
        """
        policy = record.get("policy")
        if not (isinstance(policy, str) and policy.endswith(SUFFIX) and len(policy) > len(SUFFIX)):
            return None
        try:
            example = msgspec.convert(record, _Example, strict=True)
        except msgspec.ValidationError:
            return "schema"
        wrong = _wrong(example)
        if wrong is not None:
            return wrong
        campaign = policy.removesuffix(SUFFIX)
        if offset is not None and offset < self.versions.get(campaign, 0):
            return None
        trial = self._trial(campaign, example)
        if isinstance(trial, str):
            return trial
        if offset is not None:
            self.versions[campaign] = offset + 1
        if trial is not None:
            trial.latest = max(trial.latest, example.at)
            number = key_of(example.pseudonym or example.decision_id)
            trial.groups[ARMS.index(example.arm)].add(number, example.decisions, example.earned)
        return None

    def _trial(self, campaign: str, example: _Example) -> Trial | str | None:
        """The trial of an example; None for one of a share that is long gone, or of which there is nothing to learn."""
        treated = example.arm == ARMS[0]
        share = round(example.propensity if treated else 1.0 - example.propensity, DIGITS)
        if not 0.0 < share < 1.0:
            return None
        trials = self._trials.get(campaign)
        if trials is None:
            if len(self._trials) >= MAX_CAMPAIGNS:
                return "campaigns"
            trials = self._trials[campaign] = []
        found = next((trial for trial in trials if trial.share == share), None)
        if found is not None:
            return found
        if len(trials) >= MAX_SHARES:
            oldest = min(trials, key=lambda trial: trial.latest)
            if oldest.latest >= example.at:
                return None
            trials.remove(oldest)
        trials.append(Trial(share))
        return trials[-1]

    def campaigns(self) -> list[str]:
        """Campaigns that have a lift, in order of their names."""
        return sorted(self._trials)

    def bounds(self, campaign: str) -> Interval:
        """Share of people who reached the goal, treatment - holdout, at 95 % over all times; of the latest share."""
        trial = self.trial(campaign)
        return NOTHING if trial is None else trial.lift().difference

    def mismatch(self, campaign: str) -> float:
        """1.0 where the groups' sizes contradict the share (sample-ratio mismatch), else 0.0."""
        trial = self.trial(campaign)
        return float(trial is not None and trial.is_mismatched())

    def trial(self, campaign: str) -> Trial | None:
        """The trial that has the latest example."""
        return max(self._trials.get(campaign, []), key=lambda trial: (trial.latest, trial.share), default=None)

    def to_bytes(self, campaign: str | None = None) -> bytes:
        """All of it, or one campaign's, as JSON; the same state gives the same bytes."""
        names = self.campaigns() if campaign is None else [campaign]
        trials = [
            {"campaign": name, "share": trial.share, "latest": trial.latest, "arms": [_packed(g) for g in trial.groups]}
            for name in names
            for trial in sorted(self._trials.get(name, []), key=lambda trial: trial.share)
        ]
        versions = {name: self.versions[name] for name in names if name in self.versions}
        return orjson.dumps({"schema": SCHEMA, "kind": "lift", "versions": versions, "trials": trials})

    @classmethod
    def from_bytes(cls, *snapshots: bytes) -> LiftFold:
        """State from what `to_bytes` wrote, in one piece or one for each campaign.

        Raises
        ------
        SnapshotError
            They are something else, or damaged.
        """
        fold = cls()
        for data in snapshots:
            try:
                snapshot = msgspec.json.decode(data, type=_Snapshot)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                raise SnapshotError(f"{len(data)} bytes are no snapshot of a lift; start it anew") from None
            if snapshot.schema != SCHEMA or snapshot.kind != "lift":
                said = f"schema {snapshot.schema} of kind {snapshot.kind!r}"
                raise SnapshotError(f"{said}; this release reads schema {SCHEMA} of kind 'lift': upgrade first")
            fold.versions |= snapshot.versions
            for trial in snapshot.trials:
                fold._trials.setdefault(trial.campaign, []).append(_unpacked(trial))
        return fold


def _wrong(example: _Example) -> str | None:
    """Which part of an example cannot be, in one word."""
    if example.arm not in ARMS:
        return "arm"
    if not 0.0 < example.propensity <= 1.0:
        return "propensity"
    return None if math.isfinite(example.earned) else "reward"


def _packed(group: Group) -> dict[str, Any]:
    people = sorted(group.decisions)
    return {
        "level": group.level,
        "people": _text(np.array(people, _NUMBERS)),
        "decisions": _text(np.array([group.decisions[number] for number in people], _COUNTS)),
        "earned": {str(number): group.earned[number] for number in people if group.earned[number]},
    }


def _text(values: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _unpacked(trial: _Trial) -> Trial:
    if not 0.0 < trial.share < 1.0 or len(trial.arms) != len(ARMS):
        raise SnapshotError(f"a lift with share {trial.share} and {len(trial.arms)} groups; start it anew")
    groups = []
    for arm in trial.arms:
        try:
            people, decisions = (
                np.frombuffer(base64.b64decode(text, validate=True), kind).tolist()
                for text, kind in ((arm.people, _NUMBERS), (arm.decisions, _COUNTS))
            )
            earned = dict.fromkeys(people, 0.0) | {int(number): total for number, total in arm.earned.items()}
        except ValueError:
            raise SnapshotError("the people of a lift do not decode; start it anew") from None
        if not len(set(people)) == len(decisions) == len(earned) <= MAX_PEOPLE or not 0 <= arm.level <= _BITS:
            raise SnapshotError("the people of a lift contradict each other; start it anew")
        groups.append(Group(arm.level, dict(zip(people, decisions, strict=True)), earned))
    return Trial(trial.share, trial.latest, (groups[0], groups[1]))
