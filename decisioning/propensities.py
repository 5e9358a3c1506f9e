"""Propensity models in the engine: what is predicted of a send, from what, and how its outcomes become labels.

Only with a `propensity` section in the configuration. Then each send gives one example for each label that is learned,
of policy `propensity/<label>`, and an outcome within the label's window a correction, once:

- ``open``, ``click``: a human opened it, clicked in it, within 3 days;
- ``convert``: the campaign's goal was reached within its window and credited to it;
- ``unsubscribe``: the person unsubscribed from its channel within 14 days;
- ``churn``: the person did nothing at all for 30 days. Its example begins at 1, and the first sign of life takes that
  back: the sum of the records is the label.

Of people who have not agreed to personalization nothing is learned and nothing is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from bandits.propensity_fold import PREFIX
from decisioning import scoring
from decisioning.config import Config
from decisioning.decision import Outcome
from decisioning.effects import Outgoing
from decisioning.eligibility import UNSUBSCRIBED
from decisioning.events import Event, text
from decisioning.learning import Models
from decisioning.lifecycle import CLICKED, ENGAGEMENT, OPENED, Life
from decisioning.localtime import DAY_MS, iso
from decisioning.names import PROPENSITIES
from decisioning.plan import Plan
from decisioning.profile import Profile
from decisioning.tracking import Awaiting, Tracked

OPEN, CLICK, CONVERT, UNSUBSCRIBE, CHURN = PROPENSITIES
WINDOWS_MS: Final = {OPEN: 3 * DAY_MS, CLICK: 3 * DAY_MS, UNSUBSCRIBE: 14 * DAY_MS, CHURN: 30 * DAY_MS}
OPENABLE: Final = ("email", "in_app")
SENT: Final = "sent"
ACTIVE_TYPES: Final = ("track", "page", "screen", "group")


def labels_of(config: Config) -> tuple[str, ...]:
    """What is learned: what the section names, and some campaign has examples of."""
    if config.propensity is None:
        return ()
    has_goals = any(campaign.goal is not None for campaign in config.campaigns)
    can_open = any(name in OPENABLE for name in config.channels)
    can_leave = any(campaign.kind == "marketing" for campaign in config.campaigns)
    has = {CONVERT: has_goals, OPEN: can_open, UNSUBSCRIBE: can_leave}
    return tuple(label for label in PROPENSITIES if label in config.propensity.labels and has.get(label, True))


def of(config: Config) -> Propensities | None:
    """What the configuration says of propensity models; None where it says nothing."""
    return None if config.propensity is None else Propensities(labels_of(config))


class Propensities:
    """Tracks what becomes of sends, and asks the models.

    Parameters
    ----------
    labels
        What is learned.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)

    def scores(self, profile: Profile, context: Mapping[str, float], now_ms: int, models: Models) -> dict[str, float]:
        """Label -> probability, of those whose model has been learned.

        Parameters
        ----------
        context
            The named context of the person, empty without consent to personalization.
        """
        learned = [(label, scored) for label in self._labels if (scored := models.scored(label)) is not None]
        if not learned or not context:
            return {}
        shared = scoring.shared(profile, context, now_ms)
        return {label: scored.scorer.score(scoring.row(profile, label, shared)) for label, scored in learned}

    def sent(
        self, profile: Profile, plan: Plan, outcome: Outcome, channel: str, pseudonym: str | None
    ) -> list[Outgoing]:
        """Examples of a send, which the profile remembers; none without consent to personalization."""
        decision_id, at_ms, context = outcome.decision_id, outcome.decided_ms, outcome.context
        if not context:
            return []
        tracked = profile.tracked = profile.tracked or Tracked()
        _lapse(tracked, at_ms)
        tracked.close(at_ms)
        shared = scoring.shared(profile, context, at_ms)
        until = {label: at_ms + window_ms for label, window_ms in self._windows(plan, channel).items()}
        others = _named(scoring.SHARED, shared)
        found = []
        for label, until_ms in until.items():
            own = _named(scoring.OWN, scoring.own(profile, label))
            record = _record(decision_id, label, at_ms, pseudonym) | {
                "context": orjson.Fragment(b"{" + b",".join(part for part in (own, others) if part) + b"}"),
                "reward": float(label == CHURN),
                "correction": False,
                "mature_at": iso(until_ms),
            }
            found.append(_outgoing(label, record))
        for label in until:
            if label != CHURN:
                tracked.count(label, trials=1.0)
        tracked.add(Awaiting(decision_id, channel, at_ms, until))
        return found

    def happened(
        self, profile: Profile, event: Event, life: Life, plans: Mapping[str, Plan], now_ms: int, pseudonym: str | None
    ) -> list[Outgoing]:  # fmt: skip
        """Corrections by what a `track` event meant to a person."""
        tracked = profile.tracked
        if tracked is None:
            return []
        named, at_ms = text(event.props, "decision_id"), event.at_ms
        found: list[Outgoing] = []
        if life.engaged is not None:
            channel, what = life.engaged
            label = {OPENED: OPEN, CLICKED: CLICK}[what]
            found += self._hit(tracked, label, at_ms, now_ms, pseudonym, channel=channel, named=named)
        if life.refused is not None and life.refused[1] == UNSUBSCRIBED:
            found += self._hit(tracked, UNSUBSCRIBE, at_ms, now_ms, pseudonym, channel=life.refused[0], named=named)
        for reward in life.rewards:
            goal = plans[reward.send.campaign].goal
            if goal is not None and event.event in goal.events:
                named = reward.send.decision_id
                found += self._hit(tracked, CONVERT, at_ms, now_ms, pseudonym, channel=None, named=named)
        return found

    def seen(self, profile: Profile, event: Event, now_ms: int, pseudonym: str | None) -> list[Outgoing]:
        """Corrections by a sign of life: whatever a person does, but what only reports on a message or names them."""
        tracked = profile.tracked
        if tracked is None or event.type not in ACTIVE_TYPES or not _is_alive(event):
            return []
        found = []
        for one in tracked.awaiting:
            if one.at_ms < event.at_ms <= one.until.get(CHURN, 0):
                del one.until[CHURN]
                tracked.count(CHURN, trials=1.0)
                found.append(_correction(one, CHURN, -1.0, now_ms, pseudonym))
        _lapse(tracked, now_ms)
        return found

    def forgotten(self, profile: Profile, now_ms: int, pseudonym: str | None) -> list[Outgoing]:
        """What takes the examples of somebody who is erased away from where they wait to be learned."""
        awaiting = profile.tracked.awaiting if profile.tracked is not None else []
        return [
            _correction(one, label, 0.0, now_ms, pseudonym, forget=True) for one in awaiting for label in self._labels
        ]

    def _windows(self, plan: Plan, channel: str) -> dict[str, int]:
        windows_ms: dict[str, int] = dict(WINDOWS_MS)
        if plan.goal is not None:
            windows_ms[CONVERT] = plan.goal.within_ms
        if channel not in OPENABLE:
            del windows_ms[OPEN]
        if not plan.marketing:
            del windows_ms[UNSUBSCRIBE]
        return {label: windows_ms[label] for label in self._labels if label in windows_ms}

    def _hit(
        self, tracked: Tracked, label: str, at_ms: int, now_ms: int, pseudonym: str | None, *, channel: str | None,
        named: str | None,
    ) -> list[Outgoing]:  # fmt: skip
        """Let a label come true of the send that is named, else of the latest one on the channel."""
        for one in reversed(tracked.awaiting):
            is_meant = one.channel == channel if named is None else one.decision_id == named
            if is_meant and one.at_ms <= at_ms <= one.until.get(label, 0):
                del one.until[label]
                tracked.count(label, successes=1.0)
                return [_correction(one, label, 1.0, now_ms, pseudonym)]
        return []


def awaits_life(profile: Profile) -> bool:
    """Whether the next sign of life of a person means something."""
    return profile.tracked is not None and any(CHURN in one.until for one in profile.tracked.awaiting)


def _lapse(tracked: Tracked, now_ms: int) -> None:
    """Count who did nothing for the whole of churn's window."""
    for one in tracked.awaiting:
        if one.until.get(CHURN, now_ms) < now_ms:
            del one.until[CHURN]
            tracked.count(CHURN, successes=1.0, trials=1.0)


def _named(names: Sequence[str], values: Sequence[float]) -> bytes:
    """What is not 0, as the inside of a JSON object."""
    return orjson.dumps({name: value for name, value in zip(names, values, strict=True) if value})[1:-1]


def _is_alive(event: Event) -> bool:
    if event.props.get("machine_open") is True or event.props.get("machine_click") is True:
        return False
    return ENGAGEMENT.get(event.event or "", ("", OPENED))[1] in (OPENED, CLICKED)


def _correction(
    one: Awaiting, label: str, delta: float, now_ms: int, pseudonym: str | None, *, forget: bool = False
) -> Outgoing:
    record = _record(one.decision_id, label, now_ms, pseudonym) | {
        "context": {},
        "reward": delta,
        "correction": True,
        "delta": delta,
        "sent_at": iso(one.at_ms),
    }
    return _outgoing(label, record | ({"forget": True} if forget else {}))


def _record(decision_id: str, label: str, at_ms: int, pseudonym: str | None) -> dict[str, Any]:
    record = {
        "schema": 1,
        "decision_id": decision_id,
        "policy": PREFIX + label,
        "arm": SENT,
        "propensity": 1.0,
        "at": iso(at_ms),
    }
    return record if pseudonym is None else record | {"pseudonym": pseudonym}


def _outgoing(label: str, record: dict[str, Any]) -> Outgoing:
    return Outgoing((PREFIX + label).encode(), orjson.dumps(record))
