"""The order in which reasons not to send are looked for: of several that hold, the first of the list is the reason."""

from __future__ import annotations

from typing import Any

import pytest

from tests.play import config, identify, play, track

BLOCKS: dict[str, dict[str, Any]] = {
    "rule:minors": identify("12:00", "young", traits={"age": 12}),
    "not_eligible": identify("12:00", "picky", traits={"choosy": True}),
    "no_consent": identify("12:00", "no", traits={"consent": {"email": False}}),
    "unsubscribed": track("12:00", "left", "Unsubscribed"),
    "no_address": identify("12:00", "gone", traits={"email": None}),
    "out_of_stock": track("12:00", "sold", "Product Out of Stock", "product:boots", properties={"product_id": "boots"}),
}
"""Reason -> the event from which on it holds."""
SETTINGS: dict[str, dict[str, Any]] = {
    "cooldown": {"campaign": {"cooldown": "24h"}},
    "goal_reached": {"campaign": {"goal": {"event": "Checkout Started", "within": "1h"}}},
    "frequency_cap:daily": {"caps": [{"name": "daily", "channel": "any", "max": 1, "per": "24h"}]},
    "fatigue": {"fatigue": {"half_life": "7d", "limit": 0.1}},
    "expired": {"quiet_hours": {"from": "12:00", "to": "20:00"}},
}
"""Reason -> the setting under which it holds for a second decision at 13:30, not for the first at 10:30."""
ORDER = [*BLOCKS, *SETTINGS]
OF_A_CHANNEL = {"no_consent", "unsubscribed", "no_address"}


def reasons(holding: list[str]) -> list[str]:
    """Why a second decision is not to send, where all these reasons hold."""
    changes: dict[str, Any] = {
        "rules": [{"name": "minors", "campaigns": ["cart"], "when": "user.traits.age < 18", "then": "suppress"}],
    }
    campaign: dict[str, Any] = {
        "when": "!(has(user.traits.choosy) && user.traits.choosy)",
        "requires_stock": "properties.product_id",
        "expires_after": "1h",
    }
    for reason in holding:
        setting = SETTINGS.get(reason, {})
        campaign |= setting.get("campaign", {})
        changes |= {key: value for key, value in setting.items() if key != "campaign"}
    boots = {"product_id": "boots"}
    story = [track("10:00", "t1", properties=boots)]
    story += [BLOCKS[reason] for reason in holding if reason in BLOCKS]
    story.append(track("13:00", "t2", properties=boots))
    story += [track("13:10", "goal", "Checkout Started")]
    played = play(story, setup=config(campaign=campaign, **changes))
    assert played.sent[:1] == [("t1", "10:30:00")]
    assert len(played.log) == 2
    return played.reasons[0] if played.reasons else []


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_of_several_reasons_the_first_in_order_is_given(first: int) -> None:
    """With every reason from one on holding, that one is the reason; those of a channel are given together."""
    expected = [ORDER[first]]
    if ORDER[first] in OF_A_CHANNEL:
        expected = [reason for reason in ORDER[first:] if reason in OF_A_CHANNEL]
    assert reasons(ORDER[first:]) == expected


def test_a_decision_with_no_reason_against_it_is_sent() -> None:
    """The story itself blocks nothing."""
    assert reasons([]) == []


def test_the_holdout_is_asked_last() -> None:
    """In quiet hours a held-out person's decision waits like any other, and is held out at their end."""
    setup = config(holdout={"share": 1.0, "salt": "s"}, quiet_hours={"from": "10:00", "to": "12:00"})
    (entry,) = play([track("10:00", "t1")], setup=setup).log
    assert (entry["action"], entry["reasons"], entry["decided_at"][11:16]) == ("holdout", ["holdout"], "12:00")
