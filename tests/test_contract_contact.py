"""Sentences of the contract on who is written to, and when: each row is one, with a story in which it decides.

`docs/contract-tests.md` says which test holds which sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisioning import backtest
from decisioning.eligibility import fatigue_of
from decisioning.localtime import zone
from decisioning.profile import Profile
from decisioning.zones import known
from tests.play import at, config, identify, play, track

AT_ONCE = {"trigger": {"delay": "0s"}}
QUIET = {"from": "21:00", "to": "08:00"}
PUSH = identify("09:00", "push", traits={"push_token": "tok"})
GOAL = {"event": "Order Completed", "within": "72h", "value": "properties.revenue"}


@dataclass(frozen=True)
class Scenario:
    """A sentence, events of `u1`, the configuration, and the outcome of every decision in order."""

    sentence: str
    events: list[dict[str, Any]]
    outcomes: list[str]
    setup: dict[str, Any] = field(default_factory=dict)
    until: str = "+3d 00:00"


def alias(clock: str, message_id: str, previous: str, user: str = "u1") -> dict[str, Any]:
    """`previous` is `user`."""
    return {**track(clock, message_id, user=user), "type": "alias", "previousId": previous}


def bounce(kind: str) -> dict[str, Any]:
    """An e-mail came back before the trigger."""
    return track("09:30", "b", "Email Bounced", properties={"bounce_type": kind})


TRANSACTIONAL = {"kind": "transactional", **AT_ONCE}
REFUSED = identify("09:00", "i", traits={"consent": {"email": False}})
CAP = [{"name": "one", "channel": "any", "max": 1, "per": "24h"}]
SCENARIOS = [
    Scenario("transactional skips marketing consent", [REFUSED, track("10:00", "t")], ["send"],
             {"campaign": TRANSACTIONAL}),
    Scenario("transactional skips caps", [track("10:00", "t1"), track("10:05", "t2")], ["send", "send"],
             {"campaign": TRANSACTIONAL, "caps": CAP}),
    Scenario("transactional skips fatigue", [track("10:00", "t1"), track("10:05", "t2")], ["send", "send"],
             {"campaign": TRANSACTIONAL, "fatigue": {"half_life": "7d", "limit": 0.1}}),
    Scenario("transactional skips quiet hours", [track("22:00", "t")], ["send"],
             {"campaign": TRANSACTIONAL, "quiet_hours": QUIET}),
    Scenario("transactional skips holdout", [track("10:00", "t")], ["send"],
             {"campaign": TRANSACTIONAL, "holdout": {"share": 1.0}}),
    Scenario("fatigue suppresses marketing above the limit", [track("10:00", "t1"), track("11:00", "t2")],
             ["send", "fatigue"], {"campaign": AT_ONCE, "fatigue": {"half_life": "7d", "limit": 0.4}}),
    Scenario("a human open lowers fatigue",
             [track("10:00", "t1"), track("10:30", "o", "Email Opened"), track("11:00", "t2")],
             ["send", "send"], {"campaign": AT_ONCE, "fatigue": {"half_life": "7d", "limit": 0.4}}),
    Scenario("a machine open lowers no fatigue",
             [track("10:00", "t1"), track("10:30", "o", "Email Opened", properties={"machine_open": True}),
              track("11:00", "t2")],
             ["send", "fatigue"], {"campaign": AT_ONCE, "fatigue": {"half_life": "7d", "limit": 0.4}}),
    Scenario("a soft bounce keeps nothing from being sent", [bounce("soft"), track("10:00", "t")], ["send"]),
    Scenario("a complaint stops transactional, too",
             [track("09:00", "s", "Email Marked as Spam"), track("10:00", "t")], ["complained"],
             {"campaign": TRANSACTIONAL}),
    Scenario("unsubscribed true concerns all channels",
             [PUSH, identify("09:30", "i", traits={"unsubscribed": True}), track("10:00", "t")],
             ["unsubscribed,no_channel"], {"campaign": {"channels": ["email", "push"]}}),
    Scenario("Unsubscribed means the channel in properties.channel",
             [track("09:30", "x", "Unsubscribed", properties={"channel": "push"}), track("10:00", "t")], ["send"]),
    Scenario("an unsubscription is not taken back by a consent given before it and read after it",
             [track("09:00", "x1", "Unsubscribed"), track("09:30", "x2", "Unsubscribed"),
              identify("09:15", "i", traits={"consent": {"email": True}}, receivedAt=at("09:40")),
              track("10:00", "t")], ["unsubscribed"]),
    Scenario("there is room for unsubscribed beside any number of traits",
             [identify("09:00", "i", traits={f"t{n}": n for n in range(200)}),
              identify("09:30", "j", traits={"unsubscribed": True}), track("10:00", "t")], ["unsubscribed"]),
    Scenario("on a merge unsubscribed of either id wins",
             [identify("09:00", "i", "u2", traits={"unsubscribed": True}),
              identify("09:10", "j", traits={"unsubscribed": False}), alias("09:20", "a", "u2"),
              track("10:00", "t")], ["unsubscribed"]),
    Scenario("caps of a week are of the ISO week in the person's own zone",
             # 2 March 2026 is a Monday; in Auckland the next one begins on Sunday at 11:00 UTC
             [identify("09:00", "z", traits={"timezone": "Pacific/Auckland"}), track("10:00", "t1"),
              track("+6d 10:59", "t2"), track("+6d 11:00", "t3")], ["send", "frequency_cap:week", "send"],
             {"campaign": AT_ONCE, "caps": [{"name": "week", "channel": "any", "max": 1, "per": "week"}]},
             until="+8d 00:00"),
    Scenario("caps count over all campaigns' ids: on a merge they add",
             [identify("08:00", "e", "u2"), track("10:00", "t1", user="u2"), alias("10:10", "a", "u2"),
              track("10:20", "t2")], ["send", "frequency_cap:one"], {"campaign": AT_ONCE, "caps": CAP}),
    Scenario("a cap of one channel leaves the other",
             [PUSH, track("10:00", "t1"), track("10:05", "t2")], ["send", "send"],
             {"campaign": {**AT_ONCE, "channels": ["email", "push"]},
              "caps": [{"name": "mail", "channel": "email", "max": 0, "per": "24h"}]}),
    Scenario("quiet hours of a channel are its own",
             [PUSH, track("22:00", "t1")], ["send"],
             {"campaign": {**AT_ONCE, "channels": ["email", "push"]}, "quiet_hours": QUIET,
              "channels": {"email": {"address": "email"}, "push": {"address": "push_token", "quiet_hours": None}}}),
    Scenario("a deferred decision is checked again: unsubscribed in the night",
             [track("22:00", "t1"), track("23:00", "x", "Unsubscribed")], ["unsubscribed"], {"quiet_hours": QUIET}),
    Scenario("a deferred decision is checked again: goal reached in the night",
             [track("22:00", "t1"), track("23:00", "v", "Page Liked")], ["goal_reached"],
             {"quiet_hours": QUIET, "campaign": {"goal": {"event": "Page Liked", "within": "72h"}}}),
    Scenario("a timer of an id merged into somebody erased since is erased",
             [identify("08:00", "e", "u2"), track("10:00", "t1", user="u2"),
              {**track("10:10", "d"), "type": "delete"}, alias("10:20", "a", "u2")], ["erased", "erased"]),
    Scenario("a campaign's cooldown outlives any number of other campaigns' sends",
             [track("08:00", "t0"), *[track(f"10:{n:02}", f"v{n}", "Product Viewed") for n in range(40)],
              track("12:00", "t1")], ["send", *["send"] * 40, "cooldown"],
             {"campaigns": [
                 {"id": "cart", "trigger": {"event": "Product Added", "delay": "0s"}, "channels": ["email"],
                  "cooldown": "7d", "variants": {"subject": [{"id": "a", "text": "Hello"}]}},
                 {"id": "seen", "trigger": {"event": "Product Viewed", "delay": "0s"}, "channels": ["email"],
                  "goal": GOAL, "variants": {"subject": [{"id": "a", "text": "Hello"}]}}]}),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.sentence for scenario in SCENARIOS])
def test_the_contract(scenario: Scenario) -> None:
    """The sentence that names the row."""
    played = play(scenario.events, until=scenario.until, setup=config(**scenario.setup))
    assert [e["action"] if e["action"] == "send" else ",".join(e["reasons"]) for e in played.log] == scenario.outcomes


def test_transactional_counts_in_caps_only_when_told() -> None:
    """`count: true` takes room from marketing; without it, none."""
    both: list[dict[str, Any]] = [
        {"id": "thanks", "kind": "transactional", "trigger": {"event": "Order Completed"}, "channels": ["email"]},
        {"id": "cart", "trigger": {"event": "Product Added"}, "channels": ["email"]},
    ]
    for campaign in both:
        campaign["variants"] = {"subject": [{"id": "a", "text": "Hello"}]}
        campaign["trigger"]["delay"] = "0s"
    events = [track("10:00", "o", "Order Completed"), track("10:10", "t")]
    assert len(play(events, setup=config(campaigns=both, caps=CAP)).sent) == 2
    both[0]["count"] = True
    assert play(events, setup=config(campaigns=both, caps=CAP)).reasons == [["frequency_cap:one"]]


@pytest.mark.parametrize(
    ("name", "day", "hours", "trigger", "decided"),
    [
        # From 02:00 to 03:00 there is no time: quiet until 02:30 ends at 03:00, which is 01:00 UTC
        ("Europe/Berlin", "2026-03-29", ("23:00", "02:30"), "00:30:00", "01:00:00"),
        # 02:30 comes twice: the first one counts, 00:30 UTC
        ("Europe/Berlin", "2026-10-25", ("23:00", "02:30"), "00:10:00", "00:30:00"),
        # Half an hour: 02:00 becomes 02:30, at 15:30 UTC of the day before
        ("Australia/Lord_Howe", "2026-10-03", ("23:00", "02:15"), "15:00:00", "15:30:00"),
        # Two hours: 01:00 becomes 03:00, at 01:00 UTC
        ("Antarctica/Troll", "2026-03-29", ("23:00", "02:15"), "00:30:00", "01:00:00"),
        # A quarter of an hour off: 08:00 is 02:15 UTC
        ("Asia/Kathmandu", "2026-06-10", ("21:00", "08:00"), "01:00:00", "02:15:00"),
    ],
)
def test_gap_and_fold_of_quiet_hours(name: str, day: str, hours: tuple[str, str], trigger: str, decided: str) -> None:
    """Gap: the first valid instant after it; fold: the first occurrence."""
    setup = config(campaign=AT_ONCE, timezone=name, quiet_hours={"from": hours[0], "to": hours[1]})
    who = {**identify("00:00", "i"), "timestamp": f"{day}T00:00:00Z"}
    lines = [who, {**track("10:00", "t"), "timestamp": f"{day}T{trigger}Z"}]
    out = backtest.run(setup, [orjson.dumps(line) for line in lines], 2_000_000_000_000)
    found = [orjson.loads(record.value)["decided_at"] for effects in out for record in effects.decisions]
    assert found == [f"{day}T{decided}.000Z"]


def test_the_configuration_knows_the_zones_that_decisions_know() -> None:
    """Both read the pinned package: what `check` lets pass can be resolved, every one of them."""
    assert "Europe/Berlin" in known()
    assert [name for name in known() if zone(name) is None] == []


def test_an_experiment_is_a_policy_with_two_arms_and_goals_are_counted_for_both() -> None:
    """A campaign's holdout is treatment against nothing: each person's group is an example, and so is its goal."""
    setup = config(campaign={**AT_ONCE, "holdout": {"share": 0.5, "salt": "x"}, "goal": GOAL})
    events: list[dict[str, Any]] = []
    for n in range(20):
        buy = track("12:00", f"b{n}", "Order Completed", f"p{n}", properties={"revenue": 10 + n})
        events += [identify("09:00", f"i{n}", f"p{n}"), track("10:00", f"t{n}", user=f"p{n}"), buy]
    events.sort(key=lambda event: str(event["timestamp"]))
    played = play(events, setup=setup)
    groups = {e["user_id"]: e["experiment"]["group"] for e in played.log}
    assert set(groups.values()) == {"treatment", "holdout"}
    examples = [e for e in played.examples if e["policy"] == "cart/holdout"]
    assert [(e["arm"], e["propensity"]) for e in examples if not e["correction"]] == [
        (group, 0.5) for group in groups.values()
    ]
    assert sum(e["delta"] for e in examples if e["correction"]) == sum(range(10, 30))
    assert {e["arm"] for e in examples if e["correction"]} == {"treatment", "holdout"}


def test_fatigue_is_in_every_context_but_a_neutral_one() -> None:
    """Every choice of a sent decision is made from a context that names fatigue; without consent, from none."""
    setup = config(campaign=AT_ONCE, fatigue={"half_life": "7d", "limit": 0.9})
    twice = [track("10:00", "t1"), track("11:00", "t2")]
    assert [entry["context"].get("fatigue") for entry in play(twice, setup=setup).log] == [None, 0.5]  # 0 is left out
    examples = play(twice, setup=setup).examples
    assert {e["context"]["fatigue"] for e in examples if e["at"] == at("11:00")} == {0.5}
    refuse = identify("09:00", "i", traits={"consent": {"personalization": False}})
    assert [entry["context"] for entry in play([refuse, *twice], setup=setup).log] == [{}, {}]


DAYS = st.dictionaries(
    st.integers(20_000, 20_029),
    st.tuples(*[st.integers(0, 40).map(float)] * 5).map(list),
    max_size=30,
)


@given(DAYS, st.integers(20_000, 20_040), st.integers(20_000, 20_029), st.sampled_from(["1h", "7d", "60d"]))
def test_fatigue_is_monotone(days: dict[int, list[float]], today: int, day: int, half_life: str) -> None:
    """In [0, 1]; one more send never lowers it, one more open or click never raises it, whenever they were; a send of
    today weighs at least what the same one weighs a day earlier.
    """
    setup = config(fatigue={"half_life": half_life, "limit": 0.8})

    def fatigue(column: int | None = None, when: int = day) -> float:
        changed = {number: list(values) for number, values in days.items()}
        if column is not None:
            changed.setdefault(when, [0.0] * 5)[column] += 1.0
        return fatigue_of(setup, Profile(days=changed), today * 86_400_000)

    assert 0.0 <= fatigue() <= 1.0
    assert fatigue() <= fatigue(2) <= 1.0
    assert 0.0 <= fatigue(3) <= fatigue()
    assert 0.0 <= fatigue(4) <= fatigue()
    assert fatigue(2, min(day, today) - 1) <= fatigue(2, min(day, today)) + 1e-12


def test_events_that_mean_nothing_to_a_campaign_touch_no_profile() -> None:
    """Only the feature row changes."""
    lines = [orjson.dumps(track(f"10:{n:02}", f"v{n}", "Product Viewed")) for n in range(20)]
    assert [effects.profiles for effects in backtest.run(config(), lines)] == [{}] * 20
