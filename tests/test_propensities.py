"""Sends as examples of propensity models, and their scores in rules, texts and choices."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from bandits import propensity_state
from bandits.propensity_fold import PropensityFold, context_version
from bandits.snapshot import Snapshot
from decisioning import backtest
from decisioning.config import Config, read
from decisioning.describe import ALL, describe
from decisioning.findings import ConfigError
from decisioning.learning import Learning, Models
from decisioning.plan import plans_of
from decisioning.profile import decode
from decisioning.scoring import FEATURES, Scored
from tests.letters import newsletter
from tests.play import CONFIG, START, Played, at, config, identify, play, play_raw, track

LABELS = ("open", "click", "convert", "unsubscribe", "churn")
GOAL = {"event": "Order Completed", "within": "24h"}


def setup(**campaign: Any) -> Config:
    return config(propensity={}, campaign={"trigger": {"delay": "0s", "cancel_on": []}, "goal": GOAL} | campaign)


def labels(played: Played) -> dict[str, float]:
    """Label -> sum of the records, of the only send there was."""
    found: dict[str, float] = {}
    for record in played.examples:
        model, _, label = record["policy"].partition("/")
        if model == "propensity":
            found[label] = found.get(label, 0.0) + (record["delta"] if record["correction"] else record["reward"])
    return found


def sent(played: Played) -> str:
    """Id of the first decision."""
    decision: str = played.decisions[0]["decision_id"]
    return decision


def later(*events: dict[str, Any], **campaign: Any) -> dict[str, float]:
    """Labels of a send at 10:00 after what happened next."""
    return labels(play([track("10:00", "m1"), *events], until="+60d 10:00", setup=setup(**campaign)))


NOTHING = {"open": 0.0, "click": 0.0, "convert": 0.0, "unsubscribe": 0.0, "churn": 1.0}
ALIVE = NOTHING | {"churn": 0.0}


def test_without_the_section_there_is_nothing_of_it() -> None:
    """No record, nothing remembered, and the configuration is the one it was."""
    played = play([track("10:00", "m1"), track("10:05", "m2", "Email Opened")], setup=config())
    assert labels(played) == {}
    assert decode(played.memory.profiles["u1"]).tracked is None
    assert "propensity_" not in json.dumps(played.log).replace("joint_propensity", "")
    assert "propensity/" not in json.dumps(played.log + played.examples)
    assert config().version_hash != config(propensity={}).version_hash
    assert config(propensity=None).version_hash == config().version_hash


def test_a_send_is_an_example_for_each_label_that_is_learned() -> None:
    """With its features as context, and the time at which the label is known."""
    played = play([track("10:00", "m1")], setup=setup())
    records = [record for record in played.examples if record["policy"].startswith("propensity/")]
    assert [record["policy"] for record in records] == [f"propensity/{label}" for label in LABELS]
    assert {record["mature_at"] for record in records} == {
        at("+3d 10:00"),
        at("+1d 10:00"),
        at("+14d 10:00"),
        at("+30d 10:00"),
    }
    for record in records:
        assert record["decision_id"] == sent(played)
        assert (record["arm"], record["propensity"], record["correction"]) == ("sent", 1.0, False)
        assert set(record["context"]) <= set(FEATURES)
        assert record["context"]["add_7d"] > 0.0
    two = play([track("10:00", "m1")], setup=config(propensity={"models": ["click", "open"]}))
    assert set(labels(two)) == {"open", "click"}


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (track("10:05", "m2", "Email Opened"), {"open": 1.0}),
        (track("10:05", "m2", "Email Link Clicked"), {"click": 1.0}),
        (track("10:05", "m2", "Order Completed"), {"convert": 1.0}),
        (track("+3d 10:00", "m2", "Email Opened"), {"open": 1.0}),
        (track("+3d 10:01", "m2", "Email Opened"), {}),
        (track("+1d 10:01", "m2", "Order Completed"), {}),
        (track("10:05", "m2", "Product Viewed"), {}),
        (track("10:05", "m2", "Push Tapped"), {}),
        ({**track("10:05", "m2"), "type": "page"}, {}),
    ],
)
def test_what_a_person_does_comes_true(event: dict[str, Any], changes: dict[str, float]) -> None:
    """Within the label's window, on its channel; and whatever a person does is a sign of life."""
    assert later(event) == ALIVE | changes


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (track("10:05", "m2", "Email Opened", properties={"machine_open": True}), {}),
        (track("10:05", "m2", "Email Link Clicked", properties={"machine_click": True}), {}),
        (track("10:05", "m2", "Email Delivered"), {}),
        (track("10:05", "m2", "Email Bounced", properties={"bounce_type": "soft"}), {}),
        (track("+2d 10:05", "m2", "Unsubscribed"), {"unsubscribe": 1.0}),
        (track("+15d 10:05", "m2", "Unsubscribed"), {}),
        (identify("10:05", "m2"), {}),
        (track("+31d 10:05", "m2", "Product Viewed"), {}),
    ],
)
def test_what_says_nothing_of_a_person_is_no_sign_of_life(event: dict[str, Any], changes: dict[str, float]) -> None:
    """Machines, reports on the message, somebody else's word; and after 30 days it is too late."""
    assert later(event) == NOTHING | changes


def test_a_label_comes_true_once() -> None:
    """However often a message is opened, and its person comes back."""
    opens = [track(f"10:0{n}", f"o{n}", "Email Opened") for n in range(1, 6)]
    assert later(*opens) == ALIVE | {"open": 1.0}


def test_an_outcome_belongs_to_the_send_it_names_else_to_the_latest() -> None:
    """Two sends: an open of the first by name, one without a name of the second, none of a third."""
    story = [track("10:00", "m1"), track("11:00", "m2")]
    first, second = [decision["decision_id"] for decision in play(story, setup=setup()).decisions]
    opens = [
        track("12:00", "o1", "Email Opened", properties={"decision_id": first}),
        track("12:01", "o2", "Email Opened"),
        track("12:02", "o3", "Email Opened", properties={"decision_id": "unknown"}),
    ]
    played = play([*story, *opens], setup=setup())
    opened = [r["decision_id"] for r in played.examples if r["policy"] == "propensity/open" and r["correction"]]
    assert opened == [first, second]


def test_a_persons_record_is_a_feature() -> None:
    """Successes and trials so far; who did nothing for 30 days has churned once."""
    story = [track("10:00", "m1"), track("10:05", "o1", "Email Opened"), track("+40d 10:00", "m2")]
    story += [track("+90d 10:00", "m3")]
    played = play(story, until="+90d 11:00", setup=setup())
    contexts = {
        (record["decision_id"], record["policy"].partition("/")[2]): record["context"]
        for record in played.examples
        if record["policy"].startswith("propensity/") and not record["correction"]
    }
    third = played.decisions[2]["decision_id"]
    assert (contexts[third, "open"]["successes"], contexts[third, "open"]["trials"]) == (1.0, 2.0)
    assert contexts[third, "churn"]["trials"] == 2.0
    assert contexts[third, "churn"]["successes"] == 1.0


def test_without_consent_to_personalization_nothing_is_learned_or_predicted() -> None:
    """No example, and no score."""
    refused = identify("09:00", "c1", traits={"consent": {"personalization": False}})
    played = play([refused, track("10:00", "m1"), track("10:05", "o1", "Email Opened")], setup=setup())
    assert len(played.decisions) == 1
    assert labels(played) == {}
    assert decode(played.memory.profiles["u1"]).tracked is None


def test_a_merge_keeps_the_record_of_both() -> None:
    """Trials and successes add, and a sign of life of either id counts for both."""
    first = {**identify("00:00", "m0"), "timestamp": "2026-03-01T08:00:00.000Z"}
    other = {**identify("00:00", "n0", "u2"), "timestamp": "2026-03-01T08:00:00.000Z"}
    story = [
        first,
        other,
        track("10:00", "m1"),
        track("10:01", "n1", user="u2"),
        track("10:05", "o1", "Email Opened", user="u2"),
        {"type": "alias", "messageId": "a1", "timestamp": at("10:10"), "userId": "u1", "previousId": "u2"},
        track("10:20", "v1", "Product Viewed"),
    ]
    played = play_raw(story, setup=setup())
    tracked = decode(played.memory.profiles["u1"]).tracked
    assert tracked is not None
    assert tracked.of("open") == (1.0, 2.0)
    assert len(tracked.awaiting) == 2
    alive = [r["decision_id"] for r in played.examples if r["policy"] == "propensity/churn" and r["correction"]]
    assert sorted(alive) == sorted(decision["decision_id"] for decision in played.decisions)


def test_a_sign_of_life_after_a_merge_counts_for_what_was_sent_to_the_other_id() -> None:
    """Also where the person had nothing that waited for one."""
    first = {**identify("00:00", "m0", "u2"), "timestamp": "2026-03-01T08:00:00.000Z"}
    alias = {"type": "alias", "messageId": "a1", "timestamp": at("10:10"), "userId": "u1", "previousId": "u2"}
    story = [first, track("10:01", "n1", user="u2"), alias, track("10:20", "v1", "Product Viewed")]
    assert labels(play_raw(story, setup=setup())) == ALIVE


def test_who_is_erased_is_taken_out_of_what_waits() -> None:
    """Also where their labels are known already."""
    leave = {"type": "delete", "messageId": "x1", "timestamp": at("11:00"), "userId": "u1"}
    played = play([track("10:00", "m1"), track("10:05", "o1", "Email Opened"), leave], setup=setup())
    forgotten = {r["policy"] for r in played.examples if r.get("forget") and r["policy"].startswith("propensity/")}
    assert forgotten == {f"propensity/{label}" for label in LABELS}
    fold = PropensityFold(LABELS, FEATURES)
    for offset, record in enumerate(played.examples):
        fold.take(orjson.dumps(record), offset)
    assert not any(one.waiting for one in fold._labels.values())
    assert fold.taken == 5 + 2 + 5


def snapshot_of(label: str) -> Snapshot:
    """A model that has learned something: whoever opened often opens."""
    x, y = newsletter(1, people=100, letters=10)
    model = propensity_state.model(propensity_state.encode(_learned(x, y)), len(FEATURES))
    data = propensity_state.encode(model)
    return Snapshot(f"propensity/{label}", "propensity", 77, data, context_version(FEATURES))


def _learned(x: Any, y: Any) -> Any:
    import numpy as np

    from bandits.propensity import PropensityModel

    wide = np.zeros((len(x), len(FEATURES)))
    wide[:, :3] = x[:, :3]
    model = PropensityModel(len(FEATURES))
    model.learn(wide, y)
    return model


def decided(setup: Config, models: Models, events: list[dict[str, Any]]) -> Played:
    """A story with these models."""

    class Known(Learning):
        def take(self, examples: Any) -> None:
            del examples

    learning = Known(plans_of(setup))
    learning.models = models
    first = {**identify("00:00", "m0"), "timestamp": "2026-03-01T08:00:00.000Z"}
    played = Played()
    lines = [orjson.dumps(event) for event in [first, *events]]
    until_ms = int(START.timestamp() * 1e3) + 80_000_000
    for effects in backtest.run(setup, lines, until_ms, learning=learning):
        played.decisions += [orjson.loads(record.value) for record in effects.decisions]
        played.log += [orjson.loads(record.value) for record in effects.log]
        played.counts += effects.counts
    return played


def test_rules_texts_and_choices_know_the_scores() -> None:
    """`user.propensity.open` in a condition and a text, and the same number in the context, by its model's version."""
    scored = Models(scored={"open": Scored.of(snapshot_of("open"))})
    text = "{{ user.propensity.open }}"
    asking = setup(when="user.propensity.open > 0.0001", variants={"subject": [{"id": "a", "text": text}]})
    played = decided(asking, scored, [track("10:00", "m1")])
    [record] = played.log
    assert record["action"] == "send"
    assert 0.0 < record["context"]["propensity_open"] < 1.0
    assert float(played.decisions[0]["content"]["subject"]) == record["context"]["propensity_open"]
    assert record["model_versions"]["propensity/open"] == 77
    assert "propensity_click" not in record["context"]
    unlikely = decided(setup(when="user.propensity.open > 0.9999"), scored, [track("10:00", "m1")])
    assert unlikely.log[0]["reasons"] == ["not_eligible"]


def test_nothing_is_predicted_of_who_did_not_agree_to_it() -> None:
    """Neither in a condition nor in the context, though there is a model."""
    scored = Models(scored={"open": Scored.of(snapshot_of("open"))})
    refused = identify("09:00", "c1", traits={"consent": {"personalization": False}})
    asking = decided(setup(when="user.propensity.open > 0.0001"), scored, [refused, track("10:00", "m1")])
    assert asking.log[0]["reasons"] == ["not_eligible"]
    [record] = decided(setup(), scored, [refused, track("10:00", "m1")]).log
    assert (record["action"], record["context"], record["model_versions"]) == ("send", {}, {})


def test_the_more_often_somebody_opened_the_likelier_they_do() -> None:
    """The direction of what was learned."""
    one = Scored.of(snapshot_of("open")).scorer
    row = [0.0] * len(FEATURES)
    scores = [one.score([successes, 8.0, 2.2, *row[3:]]) for successes in (0.0, 2.0, 5.0, 8.0)]
    assert scores == sorted(scores)
    assert scores[-1] > 3 * scores[0]


@pytest.mark.parametrize("section", [None, {}])
def test_a_score_that_is_not_known_is_absent(section: dict[str, Any] | None) -> None:
    """A condition on it is false and a metric says so; a text needs a default."""
    when = config(propensity=section, campaign={"when": "user.propensity.churn < 0.5"})
    played = play([track("10:00", "m1")], setup=when)
    assert played.reasons == [["not_eligible"]]
    assert played.counts["expression_errors_total", "cart.when"] == 1
    text = "{{ user.propensity.click | default: 'none' }}"
    written = config(propensity=section, campaign={"variants": {"subject": [{"id": "a", "text": text}]}})
    assert play([track("10:00", "m1")], setup=written).decisions[0]["content"]["subject"] == "none"


def test_a_backtest_learns_them_on_its_way() -> None:
    """Twice the same, with snapshots at the end; and without learning no score."""
    events = [{**identify("00:00", f"i{u}", f"u{u}"), "timestamp": "2026-03-01T08:00:00.000Z"} for u in range(20)]
    for day in range(8):
        for u in range(20):
            events.append(track(f"+{day}d 10:{u:02}", f"m{day}.{u}", user=f"u{u}"))
            if u < 10:
                events.append(track(f"+{day}d 11:{u:02}", f"o{day}.{u}", "Email Opened", user=f"u{u}"))
    events.sort(key=lambda event: event["timestamp"])
    lines = [orjson.dumps(event) for event in events]
    chosen = setup()
    runs = []
    for _ in range(2):
        learning = Learning(plans_of(chosen), LABELS)
        log = [record.value for effects in backtest.run(chosen, lines, learning=learning) for record in effects.log]
        runs.append((log, learning.snapshots()))
    assert runs[0] == runs[1]
    log, made = runs[0]
    assert {name for name in made if name.startswith("propensity/")} >= {"propensity/open", "propensity/click"}
    last = {record["user_id"]: record["context"] for record in map(orjson.loads, log)}
    assert last["u1"]["propensity_open"] > 0.5 > last["u15"]["propensity_open"]
    unlearned = [record.value for effects in backtest.run(chosen, lines) for record in effects.log]
    assert b"propensity_open" not in b"".join(unlearned)


def test_check_tells_of_a_propensity_that_nobody_learns() -> None:
    """Without the section, and where its model is not among those named; not where it is learned."""

    def warnings(**changes: Any) -> list[str]:
        document = CONFIG | {"campaigns": [CONFIG["campaigns"][0] | {"when": "user.propensity.click > 0.1"}]} | changes
        return [str(finding) for finding in read(json.dumps(document))[1] if "propensity" in str(finding)]

    assert "user.propensity.click is never known" in warnings()[0]
    assert 'add "propensity: {}"' in warnings()[0]
    assert 'add "click" to the models of propensity' in warnings(propensity={"models": ["open"]})[0]
    assert warnings(propensity={}) == []
    assert warnings(propensity={"models": ["click"]}) == []
    with pytest.raises(ConfigError, match="propensity"):
        config(propensity={"models": ["loyalty"]})


def test_a_configuration_says_in_words_what_is_learned() -> None:
    """For whoever has to agree to it."""
    said = "\n".join(describe(config(propensity={"models": ["click", "churn"]}))[ALL])
    assert "how likely everybody who agrees to personalization is to click in it or to do nothing for 30 days" in said
    assert "personalization" not in "\n".join(describe(config())[ALL])


def test_a_campaign_cannot_have_the_name_of_the_models() -> None:
    """Its policies would be taken for models."""
    with pytest.raises(ConfigError, match="rename the campaign"):
        config(propensity={}, campaign={"id": "propensity"})
    assert config(campaign={"id": "propensity"}).campaigns[0].id == "propensity"
