"""What a campaign wants, and how it learns which choices bring it."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from decisioning import durations
from decisioning.fields import Duration, EventName, EventNames, Model, PathField


class Goal(Model):
    """What the campaign wants: an event within a time after the send, worth the number at `value` (None: 1).

    No reward is taken for more than `clip`, so that a single large order does not decide alone.
    """

    events: EventNames = Field(alias="event", min_length=1)
    within_ms: Duration = Field(alias="within", gt=0)
    value: PathField | None = None
    clip: float | None = Field(default=None, gt=0, le=1e12)


class Worth(Model):
    """What another event than the goal adds to a message's reward, once; for the goal's own event, its factor.

    `within` is the goal's unless it is given.
    """

    event: EventName
    weight: float = Field(ge=-1e6, le=1e6)
    within_ms: Duration | None = Field(alias="within", default=None, gt=0)


class Penalties(Model):
    """What it costs a message's reward, once each, that the person unsubscribed or marked it as spam."""

    unsubscribed: float = Field(default=0.0, ge=0, le=1e6)
    complained: float = Field(default=0.0, ge=0, le=1e6)


class Policy(Model):
    """How arms are chosen, and from which rewards that is learned.

    Attributes
    ----------
    algorithm, explore
        The rule, and the least share of draws that stays uniform, so that no propensity is 0.
    half_life_ms
        After which time what was learned counts half; None: never.
    horizon
        How many messages the campaign will send in all, about: it bounds what exploring may cost. None: not known.
    contact_cost
        What a message costs, in the unit of rewards. With it, sending nothing is an arm of the channel.
    rewards, penalties
        What counts beside the goal.
    """

    algorithm: Literal["thompson", "squarecb", "epsilon_greedy", "softmax", "uniform"] = "thompson"
    explore: float = Field(default=0.05, ge=0.001, le=1)
    half_life_ms: Duration | None = Field(alias="half_life", default=None, ge=durations.UNIT_MS["m"])
    horizon: int | None = Field(default=None, ge=1, le=1_000_000_000)
    contact_cost: float | None = Field(default=None, ge=0, le=1e6)
    rewards: tuple[Worth, ...] = Field(default=(), max_length=20)
    penalties: Penalties = Penalties()


NEW_IN_GOAL: Final[dict[str, Any]] = {"clip": None}
NEW_IN_POLICY: Final[dict[str, Any]] = {
    "half_life": None,
    "horizon": None,
    "contact_cost": None,
    "rewards": [],
    "penalties": Penalties().model_dump(mode="json", by_alias=True),
}
"""Fields that came later than the first hashes of configurations, and what they are where they are off."""
