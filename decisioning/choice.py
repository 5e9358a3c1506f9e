"""Choosing: treatment or holdout, channel, send time, and one arm of every slot, each from exact probabilities.

Every draw is a keyed hash of the decision's id and the choice's name, so it can be repeated from the log alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from bandits.policy import Uniform, draw, uniform_number
from decisioning import guardrails
from decisioning.config import Campaign, Config, Holdout
from decisioning.content import RenderError
from decisioning.eligibility import Case
from decisioning.learning import Advice, rule_of
from decisioning.plan import Arm
from decisioning.profile import Chosen
from decisioning.slots import NOW, week_hour

_UNIFORM = Uniform()
NO_CONTACT = "none"  # arm of the channel
MAX_CONTENT_CHARACTERS = 200_000  # of all slots and blocks: a record holds 1 MB, and a character up to 4 bytes


@dataclass(slots=True)
class Choices:
    """What was chosen, from what, and with what probability.

    Attributes
    ----------
    arms
        Choice -> eligible arm -> probability.
    chosen
        Choice -> arm.
    random_draw
        Choice -> the number in [0, 1) that decided it.
    content
        Slot -> rendered text, of the chosen arms.
    blocks
        Block name -> rendered text.
    asleep
        Slot -> why arms were not eligible, by arm.
    failures
        (slot, reason in one word) -> number of such arms.
    versions
        Policy -> version of the model that made the probabilities, where one did.
    """

    arms: dict[str, dict[str, float]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    random_draw: dict[str, float] = field(default_factory=dict)
    content: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    asleep: dict[str, dict[str, str]] = field(default_factory=dict)
    failures: dict[tuple[str, str], int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def propensity(self) -> dict[str, float]:
        """Probability with which each choice fell as it did."""
        return {name: self.arms[name][arm] for name, arm in self.chosen.items()}

    def take(self, name: str, arms: dict[str, float], decision_id: str) -> str:
        """Draw one arm of a choice and record how."""
        names = list(arms)
        key = draw_key(decision_id, name)
        arm = names[draw(np.array(list(arms.values())), key)] if len(names) > 1 else names[0]
        self.arms[name], self.chosen[name], self.random_draw[name] = arms, arm, uniform_number(key)
        return arm


def draw_key(decision_id: str, choice: str) -> bytes:
    """Key of a draw."""
    return f"{decision_id}/{choice}".encode()


def holdout_number(holdout: Holdout, scope: str, person: str) -> float:
    """A person's number in [0, 1) for a holdout, by a salted hash."""
    return uniform_number(f"holdout\0{holdout.salt}\0{scope}\0{person}".encode())


def held_out(holdout: Holdout, scope: str, person: str) -> bool:
    """Whether a person is in a holdout: their number is below `share`, so a growing share only adds people."""
    return holdout_number(holdout, scope, person) < holdout.share


def holdouts_of(config: Config, campaign: Campaign | None) -> list[tuple[Holdout, str]]:
    """The holdouts that concern a campaign, each with its scope: the global one (empty scope) and its own."""
    own = campaign and campaign.holdout
    return [(h, scope) for h, scope in ((config.holdout, ""), (own, campaign.id if campaign else "")) if h]


def choose_group(choices: Choices, case: Case) -> bool:
    """Treatment or holdout; True for treatment. Both holdouts, the global and the campaign's, must let it pass."""
    holdouts = holdouts_of(case.config, case.plan.campaign)
    if not holdouts or not case.plan.marketing:
        return True
    treated = not any(held_out(holdout, scope, case.person) for holdout, scope in holdouts)
    share = math.prod(1.0 - holdout.share for holdout, _ in holdouts)
    arms = {"treatment": share, "holdout": 1.0 - share}
    choices.arms["holdout"] = {arm: p for arm, p in arms.items() if p > 0.0}
    choices.chosen["holdout"] = "treatment" if treated else "holdout"
    return treated


def choose_channel(choices: Choices, channels: list[str], case: Case, advice: Advice) -> str | None:
    """One of the channels that may be used: before anything is learned the preferred one, and a share to explore.

    None where the choice fell on sending nothing, which is an arm where messages have a cost.
    """
    policy = case.plan.campaign.policy
    names = channels if policy.contact_cost is None else [*channels, NO_CONTACT]
    arms = advice.probabilities("channel", names)
    if arms is None:
        explore = 1.0 if policy.algorithm == "uniform" else policy.explore
        arms = dict.fromkeys(names, explore / len(names))
        arms[names[0]] += 1.0 - explore
    chosen = choices.take("channel", arms, case.decision_id)
    return None if chosen == NO_CONTACT else chosen


def choose_slot(case: Case, open_ms: dict[str, int], shares: dict[str, float], advice: Advice) -> Chosen:
    """One of the hours that are open, when the decision is due; before anything is learned all are alike.

    Parameters
    ----------
    open_ms
        Arm -> its time, at least one.
    shares
        Arm -> share of the person's own habit, where there is one.
    """
    base, names = week_hour(case.now_ms, case.zone), list(open_ms)
    arms = advice.hours("send_time", names, base, shares)
    version = None if arms is None else advice.versions[f"{case.plan.id}/send_time"]
    rule = {} if arms is None else rule_of(case.plan.spec)
    arms = arms or _alike(names)
    key = draw_key(case.decision_id, "send_time")
    arm = names[draw(np.array(list(arms.values())), key)] if len(names) > 1 else names[0]
    return Chosen(arm, case.now_ms, base, arms, uniform_number(key), shares, version, rule)


def choose_send_time(choices: Choices, case: Case) -> None:
    """The hour that was chosen when the decision was due; else as soon as allowed: the one arm there is."""
    chosen = case.pending.chosen
    if chosen is None:
        choices.arms["send_time"], choices.chosen["send_time"] = {NOW: 1.0}, NOW
        return
    choices.arms["send_time"], choices.chosen["send_time"] = chosen.arms, chosen.arm
    choices.random_draw["send_time"] = chosen.number
    if chosen.version is not None:
        choices.versions[f"{case.plan.id}/send_time"] = chosen.version


def choose_variants(choices: Choices, case: Case, advice: Advice) -> bool:
    """One arm of every slot among those that are awake; False where a slot has none, or all is too large to publish."""
    for slot, arms in case.plan.slots.items():
        awake = _awake(choices, slot, arms, case)
        if not awake:
            return False
        names = list(awake)
        probabilities = advice.probabilities(slot, names) or _alike(names)
        chosen = choices.take(slot, probabilities, case.decision_id)
        choices.content[slot], blocks = awake[chosen]
        choices.blocks |= blocks
    texts = (*choices.content.values(), *choices.blocks.values())
    return sum(map(len, texts)) <= MAX_CONTENT_CHARACTERS


def _alike(names: list[str]) -> dict[str, float]:
    """Before anything is learned all are alike; of one arm every policy is certain."""
    count = len(names)
    probabilities = [1.0] if count == 1 else _UNIFORM.probabilities(np.zeros((count, 1))).tolist()
    return dict(zip(names, probabilities, strict=True))


def _awake(choices: Choices, slot: str, arms: tuple[Arm, ...], case: Case) -> dict[str, tuple[str, dict[str, str]]]:
    """Arms that may be sent by id, each with its rendered text and blocks: rendering comes before the draw."""
    excluded = _excluded(case, slot)
    awake: dict[str, tuple[str, dict[str, str]]] = {}
    for arm in arms:
        reason = ""
        why = "excluded" if arm.id == excluded else None
        if why is None and arm.when is not None and not arm.when.test(case.env)[0]:
            why = "when"
        if why is None:
            try:
                text = arm.text.render(case.env)
                blocks = {name: template.render(case.env) for name, template in arm.blocks.items()}
            except RenderError as error:
                why, reason = str(error), error.reason
            else:
                why = _broken(slot, arm, text, blocks, case)
                if why is None:
                    awake[arm.id] = text, blocks
        if why is not None:
            choices.asleep.setdefault(slot, {})[arm.id] = why
            key = slot, reason or why.partition(":")[0]
            choices.failures[key] = choices.failures.get(key, 0) + 1
    return awake


def _broken(slot: str, arm: Arm, text: str, blocks: dict[str, str], case: Case) -> str | None:
    """Which guardrail a rendered variant breaks, in its text or in any block."""
    limits = case.config.guardrails
    why = guardrails.breaks(slot, text, limits)
    for name, made in blocks.items():
        why = why or guardrails.breaks(name, made, limits, is_html=arm.blocks[name].is_html)
    return why


def _excluded(case: Case, slot: str) -> str | None:
    path = case.plan.campaign.excluded
    found = path.of(case.env["event"]) if path is not None else None
    value = found.get(slot) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None
