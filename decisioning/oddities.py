"""What is legal and odd beyond a single field: what is forgotten too early, is never known, or never sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from decisioning import cel_syntax, durations, expressions
from decisioning.cel_syntax import Node
from decisioning.cel_types import plain_string
from decisioning.expressions import static_path
from decisioning.findings import closest
from decisioning.followups import DECISION_SENT

if TYPE_CHECKING:
    from decisioning.config import Campaign, Config
    from decisioning.findings import FieldPath

Oddity = tuple["FieldPath", str, str]
"""Path of a field, what is odd about it, and the remedy."""

_CAMPAIGN = ("event", "properties", "campaign")
_PROPENSITY = ("user", "propensity")


def oddities(config: Config) -> Iterator[Oddity]:
    """Everything odd about a checked configuration that this module knows of."""
    kept_ms = config.retention.profile_ms
    for index, cap in enumerate(config.caps):
        if cap.per_ms is not None and cap.per_ms > kept_ms:
            yield _forgotten(("caps", index, "per"), "the cap", kept_ms)
    yield from _never_known(config)
    for index, campaign in enumerate(config.campaigns):
        path: FieldPath = ("campaigns", index)
        if campaign.trigger.delay_ms > kept_ms:
            yield _forgotten((*path, "trigger", "delay"), "the timer", kept_ms)
        if campaign.cooldown_ms > kept_ms:
            yield _forgotten((*path, "cooldown"), "the cooldown", kept_ms)
        if campaign.goal is not None and campaign.goal.within_ms > kept_ms:
            yield _forgotten((*path, "goal", "within"), "the message", kept_ms)
        if DECISION_SENT in campaign.trigger.events:
            yield from _follow_up(config, path, campaign)
        yield from _lessons(config, (*path, "policy"), campaign)


def _lessons(config: Config, path: FieldPath, campaign: Campaign) -> Iterator[Oddity]:
    """What shapes learning where nothing is learned, and rewards that never come."""
    policy = campaign.policy
    shaped = [name for name in ("half_life_ms", "horizon", "contact_cost") if getattr(policy, name) is not None]
    blind = "there is no goal and no reward" if campaign.goal is None and not policy.rewards else ""
    for name in shaped:
        field = name.removesuffix("_ms")
        if policy.algorithm == "uniform" and name != "contact_cost":
            yield (*path, field), "uniform learns nothing: it changes nothing", "choose another algorithm, or remove it"
        elif blind:
            yield (*path, field), f"nothing is learned: {blind}", "add a goal, or remove it"
    for index, worth in enumerate(policy.rewards):
        if worth.event in config.event_aliases:
            actual = config.event_aliases[worth.event]
            said = f'"{worth.event}" is an alias; events arrive as "{actual}"'
            yield (*path, "rewards", index, "event"), said, f'use "{actual}"'
        if worth.event in (later.event for later in policy.rewards[index + 1 :]):
            yield (*path, "rewards", index, "event"), "the event is there again below: that one counts", "keep one"


def _never_known(config: Config) -> Iterator[Oddity]:
    """Conditions that ask for a propensity nobody learns."""
    learned = () if config.propensity is None else config.propensity.labels
    conditions: list[tuple[FieldPath, str | None]] = [
        (("rules", index, "when"), rule.when) for index, rule in enumerate(config.rules)
    ]
    for index, campaign in enumerate(config.campaigns):
        path: FieldPath = ("campaigns", index)
        conditions += [((*path, "when"), campaign.when), ((*path, "trigger", "where"), campaign.trigger.where)]
        for slot, variants in campaign.variants.items():
            conditions += [((*path, "variants", slot, i, "when"), one.when) for i, one in enumerate(variants)]
    for where, condition in conditions:
        for asked in () if condition is None else _paths_of(condition):
            label = asked[2] if asked[:2] == _PROPENSITY and len(asked) > len(_PROPENSITY) else None
            if label is not None and label not in learned:
                remedy = 'add "propensity: {}"' if not learned else f'add "{label}" to the models of propensity'
                yield where, f"{'.'.join(asked)} is never known: no model of it is learned", remedy


def _paths_of(condition: str) -> tuple[tuple[str, ...], ...]:
    try:
        return expressions.compile(condition).paths
    except expressions.ExpressionError:  # it is told elsewhere
        return ()


def _forgotten(path: FieldPath, what: str, kept_ms: int) -> Oddity:
    kept = durations.spell(kept_ms)
    return path, f"profiles are kept for {kept}, {what} is forgotten then", f'use at most "{kept}"'


def _follow_up(config: Config, path: FieldPath, campaign: Campaign) -> Iterator[Oddity]:
    known = [other.id for other in config.campaigns]
    followed = [] if campaign.trigger.where is None else list(_compared(cel_syntax.parse(campaign.trigger.where)))
    where = (*path, "trigger", "where")
    for name in followed:
        if name == campaign.id:
            yield where, f'"{name}" is this campaign, which never follows itself up', "name another campaign"
        elif name not in known:
            likely = closest(name, known)
            remedy = f'try "{likely}"' if likely else "name a campaign of this file"
            yield where, f'no campaign is called "{name}": this one never starts', remedy
    if campaign.trigger.events == (DECISION_SENT,) and not campaign.trigger.delay_ms:
        said = "it follows in the same moment as what it follows"
        yield (*path, "trigger"), said, 'give it a delay, such as "48h"'
    if campaign.excluded is None:
        return
    slots = {slot for other in config.campaigns if other.id in followed for slot in other.variants}
    for slot, variants in campaign.variants.items():
        approved = [variant.id for variant in variants if variant.status == "approved"]
        if slots and slot in slots and len(approved) == 1:
            said = f'"{approved[0]}" is the only variant: who got it before gets nothing (exclude_variants)'
            yield (*path, "variants", slot), said, "add another variant"


def _compared(node: Node) -> Iterator[str]:
    """Texts that a condition compares `event.properties.campaign` with by `==`."""
    if node.kind == "binary" and node.value == "==":
        for side, other in (node.children, node.children[::-1]):
            name = plain_string(other) if other.kind == "string" else None
            if name is not None and static_path(side) == _CAMPAIGN:
                yield name
    for child in node.children:
        yield from _compared(child)
