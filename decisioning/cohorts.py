"""Who is compared: every person from their first eligible trigger on, in the group they were meant for.

By intention to treat: a person counts in a campaign from when its first decision about them was due, as one of the
group that the salted hash of the configuration puts them in, whatever stood against a message then or later (caps,
fatigue, cooldown, quiet hours, an unsubscription, no variant awake). What messages bring about cannot move anybody out
of the comparison, nor can what only the treated wait for: a better hour. Triggers that end when they are due, or before
it, for a reason of another kind do not count: the person could not have been written to, or did by themselves what the
message would have asked for.

A person's outcome is known once its window has passed; until then they wait and are in neither group.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from decisioning import events
from decisioning.aims import Goal
from decisioning.backtest import Line, timed
from decisioning.choice import held_out, holdouts_of
from decisioning.config import Config, Holdout
from decisioning.events import Event
from decisioning.lifecycle import ENGAGEMENT, LEFT
from decisioning.localtime import DAY_MS
from decisioning.plan import value_at

EVERYTHING: Final = "all campaigns"
CHUNK: Final = 512  # lines decoded at once
BEFORE_MS: Final = 30 * DAY_MS  # how far back a value before the first trigger counts
NOT_YET: Final = frozenset(
    ("erased", "not_eligible", "no_address", "no_consent", "out_of_stock", "cancelled", "goal_reached")
)
"""Reasons that end a trigger for both groups alike, when it is due; `rule:…` does, too. A variant asleep gives one of
them, but to the treated alone; and who is held out is not there any more when the treated wait for an hour."""

Metric = Literal["conversion", "value", "retention", "unsubscribed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One person whose window has passed."""

    at_ms: int  # when it had
    treated: bool
    value: float  # 1 or 0 where it is about whether, not how much
    before: float = 0.0  # the value before the first trigger


@dataclass(slots=True)
class Cohort:
    """The people of one campaign.

    Attributes
    ----------
    name
        Of the campaign, or `EVERYTHING`.
    share
        Probability with which a person is treated.
    groups
        Whether each person is treated, in the order in which they came in.
    outcomes
        Metric -> people whose window has passed, in that order.
    waiting
        Metric -> how many wait.
    contradicted
        Share of held-out people that the log treats otherwise than this configuration would.
    """

    name: str
    share: float
    groups: list[bool] = field(default_factory=list)
    outcomes: dict[Metric, list[Outcome]] = field(default_factory=dict)
    waiting: dict[Metric, int] = field(default_factory=dict)
    contradicted: float = 0.0


@dataclass(slots=True)
class _Doings:
    """What one id did, as far as it is asked for; times in milliseconds."""

    active: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    goals: dict[str, dict[str, tuple[int, float]]] = field(
        default_factory=dict
    )  # campaign -> message id -> when, worth


def has_holdout(config: Config) -> bool:
    """Whether there is anything to compare."""
    return any(holdouts_of(config, campaign) for campaign in config.campaigns if campaign.kind == "marketing")


class _People:
    """Which id is whose, by the rules of `identity`, from the events of a file."""

    def __init__(self) -> None:
        self._now: dict[str, str] = {}  # whom later events of an id count for
        self._first: dict[str, str] = {}  # whom its earlier ones do
        self._known: set[str] = set()

    def owner(self, event: Event) -> str:
        """Whom an event counts for, as far as is known now."""
        if event.user_id is not None:
            self._known.add(event.user_id)
        name = event.person
        other = event.previous_id if event.type == "alias" else event.anonymous_id
        joins = event.type in ("identify", "alias") and event.user_id is not None
        if joins and other and other != name and (event.type == "alias" or other not in self._known):
            self._now[other] = name
            self._first.setdefault(other, name)
        return self._followed(name, self._now)

    def canonical(self, name: str) -> str:
        """Who somebody turned out to be."""
        return self._followed(name, self._first)

    @staticmethod
    def _followed(name: str, goals: dict[str, str]) -> str:
        passed = {name}
        while (goal := goals.get(name)) is not None and goal not in passed:
            passed.add(goal)
            name = goal
        return name


class Cohorts:
    """Collects decisions and events, then says who is compared and what they did.

    Parameters
    ----------
    config
        What the decisions were made with: who is in which group is computed from it.
    days
        A person is retained if they are active, of their own accord, `days` to twice `days` after their first trigger;
        an unsubscription counts within `days` of it.
    """

    def __init__(self, config: Config, days: int = 7) -> None:
        self.config = config
        self.days = days
        self.until_ms = 0  # up to where outcomes are known
        self._since_ms: int | None = None
        self._campaigns = [c for c in config.campaigns if c.kind == "marketing"]
        self._by_goal: dict[str, list[tuple[str, Goal]]] = defaultdict(list)
        for campaign in self._campaigns:
            for name in campaign.goal.events if campaign.goal else ():
                self._by_goal[name].append((campaign.id, campaign.goal))  # type: ignore[arg-type]  # it has one
        self._people = _People()
        self._doings: defaultdict[str, _Doings] = defaultdict(_Doings)
        self._came_ms: defaultdict[str, dict[str, int]] = defaultdict(dict)  # campaign -> id -> first trigger
        self._acted: defaultdict[str, list[tuple[str, bool]]] = defaultdict(list)  # campaign -> (id, written to)
        self._erased: set[str] = set()

    def decide(self, record: Mapping[str, Any]) -> None:
        """Take a record of `decision-log`; in any order.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is none.
        """
        person, reasons = str(record["user_id"]), record["reasons"]
        campaign = record["campaign"]
        if campaign is None:
            if "erased" in reasons:
                self._erased.add(person)
            return
        action = record["action"]
        if record["kind"] != "marketing":
            return
        due, fire = record["due_at"], record["fire_at"]
        if action == "suppress" and due == fire and not record.get("asleep") and not _of_messages(reasons):
            return
        at_ms = _milliseconds(due)
        came = self._came_ms[campaign]
        came[person] = min(at_ms, came.get(person, at_ms))
        if action != "suppress":
            self._acted[campaign].append((person, action == "send"))

    def read(self, lines: Iterable[bytes]) -> None:
        """Take the events of a file, in order of arrival; what is no event is passed over."""
        chunk: list[Line] = []
        for offset, (value, arrived_ms) in enumerate(timed(lines)):
            chunk.append(Line(offset, value, arrived_ms))
            if len(chunk) == CHUNK:
                self._take(chunk)
                chunk = []
        self._take(chunk)

    def _take(self, chunk: Sequence[Line]) -> None:
        decoded = events.decode(chunk, self.config.event_aliases)
        for event, record in zip(decoded.events, decoded.records, strict=True):
            self.until_ms = max(self.until_ms, event.record_ms)
            self._since_ms = event.at_ms if self._since_ms is None else min(self._since_ms, event.at_ms)
            doings = self._doings[self._people.owner(event)]
            name = event.event or ""
            if event.type == "identify":
                if event.traits.get("unsubscribed") is True:
                    doings.left.append(event.at_ms)
            elif name in ENGAGEMENT:
                if ENGAGEMENT[name][1] == LEFT:
                    doings.left.append(event.at_ms)
            elif event.type in ("track", "page", "screen"):
                doings.active.append(event.at_ms)
            goals = self._by_goal.get(name, ())
            body = events.body(record, self.config.event_aliases) if goals else {}
            for campaign, goal in goals:
                reached = event.at_ms, _worth(goal, body)
                doings.goals.setdefault(campaign, {}).setdefault(event.message_id, reached)

    def cohorts(self) -> list[Cohort]:
        """Every campaign that has a holdout, in the order of the file; all of them together first."""
        merged = self._merged()
        found = []
        if self.config.holdout is not None and len(self._campaigns) > 1:
            own: dict[str, dict[str, int]] = {c.id: self._came_ms[c.id] for c in self._campaigns}
            goal = _shared([c.goal for c in self._campaigns])
            everything = _first_of(own.values())
            found.append(self._cohort(EVERYTHING, everything, [(self.config.holdout, "")], goal, merged))
        found += [
            self._cohort(c.id, self._came_ms[c.id], holdouts_of(self.config, c), c.goal, merged)
            for c in self._campaigns
        ]
        return [cohort for cohort in found if 0.0 < cohort.share < 1.0]

    def _merged(self) -> dict[str, _Doings]:
        """What every person did, under whatever id."""
        merged: dict[str, _Doings] = {}
        for name, doings in self._doings.items():
            person = self._people.canonical(name)
            mine = merged.setdefault(person, _Doings())
            mine.active += doings.active
            mine.left += doings.left
            for campaign, reached in doings.goals.items():
                mine.goals[campaign] = reached | mine.goals.get(campaign, {})
        return merged

    def _cohort(
        self,
        name: str,
        came_ms: Mapping[str, int],
        holdouts: Sequence[tuple[Holdout, str]],
        goal: Goal | None,
        merged: Mapping[str, _Doings],
    ) -> Cohort:
        cohort = Cohort(name, math.prod(1.0 - holdout.share for holdout, _ in holdouts))
        erased = {self._people.canonical(one) for one in self._erased}
        people = _first_of([{self._people.canonical(one): at_ms} for one, at_ms in came_ms.items()])
        since_ms = self._since_ms or 0
        order = sorted((at_ms, one) for one, at_ms in people.items() if at_ms >= since_ms and one not in erased)
        held = {one for _, one in order if any(held_out(holdout, scope, one) for holdout, scope in holdouts)}
        cohort.groups = [one not in held for _, one in order]
        cohort.contradicted = self._contradicted(name, held)
        campaign, nobody = name if name != EVERYTHING else self._goal_of_all(), _Doings()
        for metric, window_ms in self._windows(goal):
            cohort.outcomes[metric] = []
            for at_ms, one in order:
                if at_ms + window_ms <= self.until_ms:
                    found = _outcome(metric, at_ms, window_ms, merged.get(one, nobody), campaign)
                    cohort.outcomes[metric].append(Outcome(at_ms + window_ms, one not in held, *found))
            cohort.waiting[metric] = len(order) - len(cohort.outcomes[metric])
        return cohort

    def _windows(self, goal: Goal | None) -> list[tuple[Metric, int]]:
        """What is asked of a person, and how long after their first trigger the answer is known."""
        span_ms = self.days * DAY_MS
        windows: list[tuple[Metric, int]] = [] if goal is None else [("conversion", goal.within_ms)]
        if goal is not None and goal.value is not None:
            windows.append(("value", goal.within_ms))
        return [*windows, ("retention", 2 * span_ms), ("unsubscribed", span_ms)]

    def _goal_of_all(self) -> str:
        return next((campaign.id for campaign in self._campaigns if campaign.goal), "")

    def _contradicted(self, name: str, held: set[str]) -> float:
        """How many of those held out, by the log or by the configuration, are so by one of them only."""
        names = [campaign.id for campaign in self._campaigns] if name == EVERYTHING else [name]
        if name == EVERYTHING and any(campaign.holdout for campaign in self._campaigns):
            return 0.0  # a campaign's own holdout is no contradiction to the global one
        acted = [(self._people.canonical(one), sent) for each in names for one, sent in self._acted[each]]
        wrong = {one for one, sent in acted if sent == (one in held)}
        concerned = {one for one, sent in acted if one in held or not sent}
        return len(wrong) / len(concerned) if concerned else 0.0


def _outcome(metric: Metric, at_ms: int, window_ms: int, did: _Doings, campaign: str) -> tuple[float, float]:
    """What a person did within the window, as a number, and the same before it."""
    end_ms = at_ms + window_ms
    reached = did.goals.get(campaign, {}).values()
    match metric:
        case "conversion":
            return float(any(at_ms < then <= end_ms for then, _ in reached)), 0.0
        case "value":
            before = sum(worth for then, worth in reached if at_ms - BEFORE_MS < then <= at_ms)
            return sum(worth for then, worth in reached if at_ms < then <= end_ms), before
        case "retention":
            return float(any(at_ms + window_ms // 2 <= then < end_ms for then in did.active)), 0.0
        case "unsubscribed":
            return float(any(at_ms < then <= end_ms for then in did.left)), 0.0


def _worth(goal: Goal, body: dict[str, Any]) -> float:
    value = value_at(goal.value, body, 1.0)
    return value if goal.clip is None else min(max(value, -goal.clip), goal.clip)


def _of_messages(reasons: Sequence[str]) -> bool:
    """Whether a trigger ended for something that messages, too, bring about."""
    against = [code for code in reasons if code != "no_channel"]
    return any(code not in NOT_YET and not code.startswith("rule:") for code in against)


def _shared(goals: Sequence[Goal | None]) -> Goal | None:
    """The goal of all campaigns that have one, if it is the same event and value; its longest window."""
    given = [goal for goal in goals if goal is not None]
    if not given or len({(goal.events, goal.value) for goal in given}) > 1:
        return None
    return max(given, key=lambda goal: goal.within_ms)


def _first_of(times: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in times:
        for one, at_ms in each.items():
            found[one] = min(at_ms, found.get(one, at_ms))
    return found


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
