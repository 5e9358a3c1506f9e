"""A campaign made ready to run: expressions and templates compiled once, names turned into look-ups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bandits.spec import PolicySpec
from decisioning import content, expressions
from decisioning.aims import Goal, Policy
from decisioning.config import Campaign, Config
from decisioning.content import Template
from decisioning.durations import DAY_MS
from decisioning.expressions import Expression
from decisioning.paths import Path
from decisioning.triggers import Timing


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant of a slot that may be sent (drafts are not among them)."""

    id: str
    text: Template
    when: Expression | None
    blocks: dict[str, Template]


@dataclass(frozen=True, slots=True)
class Rule:
    """A hard constraint."""

    name: str
    when: Expression


@dataclass(frozen=True, slots=True)
class Worth:
    """What an event adds to the reward of the message it is credited to, within a time after it."""

    weight: float
    within_ms: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign and everything of the configuration that concerns it."""

    campaign: Campaign
    timing: Timing
    triggers: frozenset[str]
    where: Expression | None
    when: Expression | None
    rules: tuple[Rule, ...]
    channels: tuple[str, ...]
    slots: dict[str, tuple[Arm, ...]]
    worth: dict[str, Worth]  # by name of the event; a goal's own is its factor
    penalties: dict[str, float]  # by reason code of a suppression
    spec: PolicySpec
    credited_ms: int  # how long after a message an outcome that does not name it is credited to it; 0: nothing ever is

    @property
    def id(self) -> str:
        """Id of the campaign."""
        return self.campaign.id

    @property
    def events(self) -> frozenset[str]:
        """Names of all events that mean something to the campaign."""
        timing = self.timing
        return self.triggers | timing.restart_on | timing.cancel_on | timing.goals | self.worth.keys()

    @property
    def marketing(self) -> bool:
        """Whether consent, caps, quiet hours and holdout apply."""
        return self.campaign.kind == "marketing"

    @property
    def goal(self) -> Goal | None:
        """What the campaign wants."""
        return self.campaign.goal

    def per(self, body: dict[str, Any]) -> str:
        """Value that separates this person's timers, empty where the event has none."""
        path = self.campaign.trigger.per
        return "" if path is None else path.key(body)

    def per_or_any(self, body: dict[str, Any]) -> str | None:
        """The same for a cancel, restart or goal event: without the value it matches all (None)."""
        path = self.campaign.trigger.per
        return "" if path is None else path.key(body) or None


FELT_MS = 7 * DAY_MS
"""Window of outcomes for which the file gives none: unsubscriptions, complaints, rewards of a campaign without goal."""


def plans_of(config: Config) -> dict[str, Plan]:
    """Every campaign by id, in the order of the file."""
    return {campaign.id: _plan(config, campaign) for campaign in config.campaigns}


def by_event(plans: Iterable[Plan]) -> dict[str, list[Plan]]:
    """Name of an event -> the campaigns to which it means something, in the order of the file."""
    found: dict[str, list[Plan]] = {}
    for plan in plans:
        for name in plan.events:
            found.setdefault(name, []).append(plan)
    return found


def value_at(path: Path | None, body: dict[str, Any], default: float) -> float:
    """A goal's value: the number at `path`, `default` where there is none."""
    value = default if path is None else path.of(body)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    return float(value)


def _plan(config: Config, campaign: Campaign) -> Plan:
    trigger, goal, policy = campaign.trigger, campaign.goal, campaign.policy
    penalties = {code: cost for code, cost in policy.penalties.model_dump().items() if cost}
    worth = {
        one.event: Worth(one.weight, one.within_ms or (goal.within_ms if goal else FELT_MS)) for one in policy.rewards
    }
    windows = [one.within_ms for one in worth.values()] + [FELT_MS] * bool(penalties)
    return Plan(
        campaign=campaign,
        timing=Timing(
            trigger.delay_ms,
            trigger.max_wait_ms,
            frozenset(trigger.restart_on),
            frozenset(trigger.cancel_on),
            frozenset(goal.events if goal else ()),
            "" if trigger.per is None else str(trigger.per),
        ),
        triggers=frozenset(trigger.events),
        where=_compiled(trigger.where),
        when=_compiled(campaign.when),
        rules=tuple(
            Rule(rule.name, expressions.compile(rule.when))
            for rule in config.rules
            if rule.campaigns is None or campaign.id in rule.campaigns
        ),
        channels=config.channels_of(campaign),
        slots={
            slot: tuple(
                Arm(
                    variant.id,
                    content.compile(variant.text, content.kind_of(slot, variant.text)),
                    _compiled(variant.when),
                    {name: content.compile(made.source, made.kind) for name, made in variant.blocks.items()},
                )
                for variant in variants
                if variant.status == "approved"
            )
            for slot, variants in campaign.variants.items()
        },
        worth=worth,
        spec=_spec(policy),
        penalties=penalties,
        credited_ms=max([*windows, goal.within_ms if goal else 0]),
    )


def _spec(policy: Policy) -> PolicySpec:
    half_life_s = None if policy.half_life_ms is None else policy.half_life_ms / 1e3
    return PolicySpec(policy.algorithm, policy.explore, half_life_s, policy.horizon)


def _compiled(text: str | None) -> Expression | None:
    return None if text is None else expressions.compile(text)
