"""A configuration in plain sentences: everything it says, and nothing it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decisioning.config import load
from decisioning.describe import ALL, describe, duration_in_words
from tests.play import config

SHOP = (Path(__file__).parent / "configs" / "shop.yaml").read_text("utf-8")


GOAL = {"event": "Order Completed", "within": "3d"}


def _policy(**fields: Any) -> dict[str, Any]:
    return {"campaign": {"goal": GOAL, "policy": fields}}


def told(**changes: Any) -> str:
    """All sentences about the usual configuration with some changes."""
    return "\n".join(sentence for said in describe(config(**changes)).values() for sentence in said)


def test_the_full_example_in_full() -> None:
    """Every field of the example has its sentence."""
    said = describe(load(SHOP))
    assert list(said) == [ALL, "cart-abandonment"]
    assert said[ALL] == [
        (
            "People can be reached by email, push, sms and in_app, in this order of preference unless something better"
            " has been learned."
        ),
        "Whose time zone is unknown is taken to live in Europe/Berlin.",
        (
            "No marketing is sent by email, push or in_app from 21:00 to 08:00, by the person's own clock; it waits"
            " until then."
        ),
        "No marketing is sent by sms from 20:00 to 09:00, by the person's own clock; it waits until then.",
        "Who has said nothing about a channel may be written to there.",
        "A person gets at most 3 messages of marketing over all channels in any 1 day (cap daily).",
        "A person gets at most 1 message of marketing by email in a calendar day of theirs (cap email-day).",
        (
            "Nobody is written to whose fatigue is above 0.8: it rises with every message without a reaction, and an"
            " unanswered one counts half after 7 days."
        ),
        "5% of all people, always the same ones, are never written to.",
        "Nothing of cart-abandonment is sent where user.traits.age < 18 (rule no-minors).",
        "No text may say 'guaranteed'.",
        "A subject has at most 78 characters.",
    ]
    assert said["cart-abandonment"] == [
        (
            "It begins with Product Added where event.properties.price >= 20, and is decided 30 minutes later,"
            " once for each properties.cart_id."
        ),
        (
            "The wait begins anew with Product Added, Product Removed or Cart Viewed, but no longer than 3 hours after"
            " the first event."
        ),
        "It is called off by Order Completed.",
        "They get one message, by email (e-mail address) or push (push token).",
        "Only those get it for whom user.orders_30d < 5 holds at that moment.",
        "It is not sent where the product at properties.product_id is known to be out of stock.",
        "It is not sent any more 12 hours after it was due.",
        "Nobody gets it again within 1 day.",
        (
            "Its subject is one of plain \"Still thinking it over, {{ user.first_name | default: 'there' }}?\" or"
            ' offer "{{ event.properties.name }} is waiting" (only where user.orders_total == 0), chosen by thompson.'
        ),
        "It has succeeded with Order Completed within 3 days of the message, worth its properties.revenue.",
    ]


def test_what_is_absent_is_not_told() -> None:
    """A configuration without caps, quiet hours, holdout or goal says nothing of them."""
    assert not {word for word in ("at most", "marketing", "never written", "succeeded", "anew") if word in told()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"consent": {"default": "denied"}}, "Who has said nothing about a channel is not written to there."),
        ({"quiet_hours": {"from": "21:00", "to": "08:00"}}, "No marketing is sent from 21:00 to 08:00"),
        ({"caps": [{"name": "c", "channel": "push", "max": 1, "per": "week"}]}, "by push in a calendar week of theirs"),
        ({"rules": [{"name": "r", "when": "true"}]}, "Nothing is sent where true (rule r)."),
        ({"campaign": {"kind": "transactional", "count": True}}, "it counts towards the caps of others."),
        (
            {"campaign": {"holdout": {"share": 0.125}}},
            "12.5% of its people, always the same ones, are never written to",
        ),
        ({"campaign": {"trigger": {"delay": "0s"}}}, "It begins with Product Added, and is decided at once."),
        ({"campaign": {"trigger": {"cancel_on": ["Email Opened"]}}}, "Opens and clicks of machines call nothing off."),
        ({"campaign": {"send_time": {"within": "24h"}}}, "The hour is picked within 1 day."),
        ({"campaign": {"goal": GOAL | {"clip": 200}}}, "No success counts for more than 200."),
        (_policy(rewards=[{"event": "Order Completed", "weight": 0.5}]), "Order Completed counts 0.5 times its worth."),
        (
            _policy(rewards=[{"event": "Email Opened", "weight": 2}]),
            "Email Opened within 3 days of a message counts 2, once.",
        ),
        (
            _policy(penalties={"complained": 5}),
            "Whoever marks it as spam after a message takes 5 off what it is worth.",
        ),
        (
            _policy(contact_cost=0.5),
            "A message counts as costing 0.5: where nothing at all is expected to be worth more",
        ),
        (_policy(half_life="30d"), "What was learned counts half after 30 days."),
        (_policy(horizon=3600), "About 3,600 messages are expected in all"),
    ],
)
def test_each_setting_has_its_sentence(changes: dict[str, Any], said: str) -> None:
    """Those that the example does not have."""
    assert said in told(**changes)


def test_a_follow_up_says_what_it_follows() -> None:
    """And that nobody is sent the same again."""
    trigger = {"event": "Decision Sent", "delay": "48h", "cancel_on": [], "exclude_variants": "properties.variants"}
    texts = [{"id": "a", "text": "A\nB"}, {"id": "b", "text": "B", "status": "draft"}]
    said = told(campaign={"trigger": trigger, "variants": {"subject": texts}})
    assert "It begins with any message sent, and is decided 2 days later" in said
    assert (
        'one of a "A B" or b "B" (a draft, never sent), chosen by thompson, but never what properties.variants' in said
    )


@pytest.mark.parametrize(("length_ms", "said"), [(1_000, "1 second"), (7_200_000, "2 hours"), (90_000, "90 seconds")])
def test_durations_are_spelled_out(length_ms: int, said: str) -> None:
    """In the largest unit that divides them."""
    assert duration_in_words(length_ms) == said
