"""The configuration: what it means, what is off when it is absent, and that reading it never fails otherwise."""

from __future__ import annotations

import json
from pathlib import Path as File

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decisioning import config, durations, yaml_source
from decisioning.config import Config
from decisioning.findings import ConfigError
from decisioning.paths import Path, key_text

SHOP = (File(__file__).parent / "configs" / "shop.yaml").read_text("utf-8")
LEAST = """
version: 1
channels: {push: {address: push_token}, email: {address: email}}
campaigns:
  - id: welcome
    trigger: {event: Signed Up}
    variants: {subject: [{id: a, text: Hello}]}
"""


def least(**more: object) -> str:
    return LEAST + "".join(f"{name}: {json.dumps(value)}\n" for name, value in more.items())


def loaded(*replacements: tuple[str, str], text: str = SHOP) -> Config:
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return config.load(text)


def test_the_whole_file_of_the_documentation() -> None:
    """Every field of a full configuration arrives, durations in milliseconds and times of day in minutes."""
    shop = config.load(SHOP, "shop.yaml")
    campaign = shop.campaigns[0]
    assert shop.timezone == "Europe/Berlin"
    assert (shop.quiet_hours.from_minute, shop.quiet_hours.to_minute) == (21 * 60, 8 * 60)  # type: ignore[union-attr]
    assert list(shop.channels) == ["email", "push", "sms", "in_app"]
    assert [(cap.per_ms, cap.calendar) for cap in shop.caps] == [(86_400_000, None), (None, "day")]
    assert shop.fatigue is not None
    assert (shop.fatigue.half_life_ms, shop.fatigue.limit) == (7 * 86_400_000, 0.8)
    assert (shop.holdout.share, shop.holdout.salt) == (0.05, "winter-2026")  # type: ignore[union-attr]
    assert shop.rules[0].campaigns == ("cart-abandonment",)
    assert shop.guardrails.banned == ("guaranteed",)
    assert shop.guardrails.max_length == {"subject": 78}
    assert shop.event_aliases == {"Added To Cart": "Product Added"}
    assert shop.retention.profile_ms == 400 * 86_400_000
    trigger = campaign.trigger
    assert trigger.events == ("Product Added",)
    assert (trigger.delay_ms, trigger.max_wait_ms) == (1_800_000, 10_800_000)
    assert trigger.per == Path(("properties", "cart_id"))
    assert trigger.restart_on == ("Product Added", "Product Removed", "Cart Viewed")
    assert trigger.cancel_on == ("Order Completed",)
    assert campaign.channels == ("email", "push")
    assert (campaign.send_time.within_ms, campaign.expires_after_ms, campaign.cooldown_ms) == (
        0,
        43_200_000,
        86_400_000,
    )
    assert [variant.id for variant in campaign.variants["subject"]] == ["plain", "offer"]
    assert campaign.goal is not None
    assert (campaign.goal.events, campaign.goal.within_ms) == (("Order Completed",), 259_200_000)
    assert (campaign.policy.algorithm, campaign.policy.explore) == ("thompson", 0.05)


def test_what_is_absent_is_off() -> None:
    """A file with only what is required has no caps, rules, quiet hours, holdout, fatigue, expiry or cooldown."""
    least_config = config.load(LEAST)
    campaign = least_config.campaigns[0]
    assert least_config.timezone == "UTC"
    assert least_config.quiet_hours is None
    assert least_config.caps == ()
    assert least_config.rules == ()
    assert least_config.fatigue is None
    assert least_config.holdout is None
    assert least_config.consent.default == "granted"
    assert least_config.retention.profile_ms == 400 * 86_400_000
    assert campaign.kind == "marketing"
    assert campaign.counts
    assert campaign.trigger.delay_ms == 0
    assert campaign.trigger.cancel_on == ()
    assert campaign.expires_after_ms is None
    assert campaign.cooldown_ms == 0
    assert campaign.send_time.within_ms == 0
    assert campaign.holdout is None
    assert (campaign.policy.algorithm, campaign.policy.explore) == ("thompson", 0.05)
    assert campaign.variants["subject"][0].status == "approved"
    assert least_config.channels_of(campaign) == ("push", "email")  # all, in the order of the file


def test_a_channels_own_quiet_hours_win_and_null_switches_them_off() -> None:
    """A channel without the field has the global quiet hours, one with null has none."""
    shop = loaded(("in_app: {address: id}", "in_app: {address: id, quiet_hours: null}"))
    assert shop.quiet_hours_of("email") == shop.quiet_hours
    assert shop.quiet_hours_of("sms").from_minute == 20 * 60  # type: ignore[union-attr]
    assert shop.quiet_hours_of("in_app") is None


def test_transactional_campaigns_count_only_when_told() -> None:
    """`count: true` makes the sends of a transactional campaign count towards caps."""
    assert not loaded(("kind: marketing", "kind: transactional")).campaigns[0].counts
    assert loaded(("kind: marketing", "kind: transactional\n    count: true")).campaigns[0].counts


@pytest.mark.parametrize("where", ["trigger", "campaign"])
def test_exclude_variants_stands_on_the_trigger_or_the_campaign(where: str) -> None:
    """Either place means the same, and `event.` before the path may be there or not."""
    path = "exclude_variants: event.properties.variants"
    text = LEAST.replace(
        "{event: Signed Up}", f"{{event: Decision Sent, {path}}}" if where == "trigger" else "{event: Decision Sent}"
    )
    if where == "campaign":
        text += f"    {path}\n"
    assert config.load(text).campaigns[0].excluded == Path(("properties", "variants"))


def test_one_name_or_a_list_of_events() -> None:
    """`event`, `cancel_on` and `restart_on` take one name or a list."""
    shop = loaded(
        ("cancel_on: [Order Completed]", "cancel_on: Order Completed"), ("event: Product Added\n", "event: [A, B]\n")
    )
    assert shop.campaigns[0].trigger.cancel_on == ("Order Completed",)
    assert shop.campaigns[0].trigger.events == ("A", "B")


def test_yaml_words_stay_what_they_look_like() -> None:
    """Unquoted 21:00, on, no, dates, 1_000 and 0x10 are text; true and null are what they say, in any YAML."""
    text = "a: 21:00\nb: on\nc: no\nd: 2026-01-01\ne: 1_000\nf: 0x10\n"
    text += "g: true\nh: null\ni: 1e-05\nj: '7'\nk: -5\non: x\nm: .inf\n"
    assert yaml_source.parse(text).data == {
        "a": "21:00", "b": "on", "c": "no", "d": "2026-01-01", "e": "1_000", "f": "0x10", "g": True, "h": None,
        "i": 1e-05, "j": "7", "k": -5, "on": "x", "m": ".inf",
    }  # fmt: skip


def test_unquoted_quiet_hours_are_read_right() -> None:
    """`from: 21:00` without quotes is nine in the evening, not a number to the base of 60."""
    hours = loaded(('from: "21:00", to: "08:00"', "from: 21:00, to: 8:00")).quiet_hours
    assert hours is not None
    assert (hours.from_minute, hours.to_minute, hours.length_ms) == (1260, 480, 11 * 3_600_000)


def test_json_with_tabs_and_emoji_is_yaml() -> None:
    """JSON as programs write it loads: indented by tabs, with characters outside the BMP as two escapes."""
    data = yaml_source.parse(LEAST).data
    data["event_aliases"] = {"Gekauft \U0001f600": "Order Completed"}
    assert "\\ud83d\\ude00" in json.dumps(data)
    from_json = config.load(json.dumps(data, indent="\t"))
    assert from_json.event_aliases == {"Gekauft \U0001f600": "Order Completed"}


def test_anchors_and_merges() -> None:
    """`&`, `*` and `<<` work; keys of the mapping itself win over merged ones wherever they stand."""
    source = yaml_source.parse("base: &b {x: 1, y: 2}\nall:\n  y: 3\n  <<: *b\n")
    assert source.findings == []
    assert source.data["all"] == {"x": 1, "y": 3}


def test_the_version_hash_is_of_the_meaning() -> None:
    """Comments, layout, order of keys, spelling of durations and spelled-out defaults change nothing; values do."""
    shop = config.load(SHOP)
    same = loaded(
        ("7d", "168h"),
        ("    kind: marketing\n", ""),
        ("# rolling", "# over 24 hours"),
        ("0.8}", "0.80}"),
    )
    assert same.version_hash == shop.version_hash
    assert len(shop.version_hash) == 16
    assert loaded(("delay: 30m", "delay: 31m")).version_hash != shop.version_hash
    assert loaded(("sms:   {address: phone", "sms:   {address: id")).version_hash != shop.version_hash
    swapped = LEAST.replace(
        "{push: {address: push_token}, email: {address: email}}",
        "{email: {address: email}, push: {address: push_token}}",
    )
    assert config.load(swapped).version_hash != config.load(LEAST).version_hash  # the order of channels is a preference


def test_null_and_inherited_quiet_hours_have_different_hashes() -> None:
    """Switching quiet hours off on one channel is a change of meaning."""
    hours = {"from": "21:00", "to": "08:00"}
    off = least(quiet_hours=hours).replace("{address: email}", "{address: email, quiet_hours: null}")
    assert config.load(least(quiet_hours=hours)).version_hash != config.load(off).version_hash


def test_models_are_frozen() -> None:
    """Nobody changes a configuration by accident."""
    with pytest.raises(ValueError, match="frozen"):
        config.load(LEAST).timezone = "UTC"  # type: ignore[misc]


def test_an_error_carries_every_finding() -> None:
    """`load` raises once, with all errors, and no warnings among them."""
    with pytest.raises(ConfigError) as caught:
        loaded(("delay: 30m", "delay: soon"), ("max: 3", "max: 0"), ("limit: 0.8", "limit: much"))
    assert [finding.field for finding in caught.value.findings] == ["fatigue.limit", "campaigns[0].trigger.delay"]
    assert {finding.severity for finding in caught.value.findings} == {"error"}


@given(st.integers(0, durations.LONGEST_MS // 1000))
def test_durations_round_trip(length_s: int) -> None:
    """What is spelled is read back, for every whole number of seconds."""
    assert durations.parse(durations.spell(length_s * 1000)) == length_s * 1000


@pytest.mark.parametrize(
    ("text", "length_ms"), [("0s", 0), ("30s", 30_000), ("15m", 900_000), ("2h", 7_200_000), ("7d", 604_800_000)]
)
def test_durations_of_the_documentation(text: str, length_ms: int) -> None:
    """The four units."""
    assert durations.parse(text) == length_ms


@pytest.mark.parametrize(
    ("text", "remedy"),
    [("30", '"30m"'), ("1w", '"7d"'), ("2 h", '"2h"'), ("2hours", '"2h"'), ("1.5h", '"90m"'), ("30M", '"30m"'),
     ("500ms", '"30s"'), ("-1s", '"30s"'), ("", '"30s"'), ("9999999999d", "3650d"), ("٣m", '"30s"')],
)  # fmt: skip
def test_a_wrong_duration_names_the_right_one(text: str, remedy: str) -> None:
    """The message of a refused duration is what to write instead."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        durations.parse(text)
    assert remedy in str(caught.value)


@given(st.integers(0, 1439))
def test_clock_times_round_trip(minute: int) -> None:
    """Every minute of the day."""
    assert durations.parse_clock(durations.spell_clock(minute)) == minute


@pytest.mark.parametrize(
    ("value", "key"),
    [(7, "7"), (7.0, "7"), ("7", "7"), (7.5, "7.5"), (None, ""), (True, "true"), ("", ""), ([1, "a"], '[1,"a"]'),
     ({"b": 1, "a": 2}, '{"a":2,"b":1}'), (1e300, "1e+300"), (2**60, str(2**60))],
)  # fmt: skip
def test_equal_values_have_equal_keys(value: object, key: str) -> None:
    """7, 7.0 and "7" are one cart; what is absent is the empty key."""
    assert key_text(value) == key


def test_long_keys_are_bounded() -> None:
    """A value of any length gives a key of at most 256 characters, different ones different keys."""
    assert len(key_text("x" * 100_000)) <= 256
    assert key_text("x" * 100_000) != key_text("x" * 100_001)


def test_paths_stop_where_the_event_does() -> None:
    """A path through something that is no object finds nothing."""
    path = Path.parse("event.properties.cart.id")
    assert str(path) == "properties.cart.id"
    assert path.of({"properties": {"cart": {"id": 7}}}) == 7
    assert path.of({"properties": {"cart": "x"}}) is None
    assert path.of({}) is None
    assert path.key({"properties": []}) == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
FIELDS = sorted({str(part) for path in yaml_source.parse(SHOP).values for part in path if isinstance(part, str)})


def read_quietly(text: str | bytes) -> None:
    found, findings = config.read(text)
    assert (found is None) == any(finding.severity == "error" for finding in findings)
    for finding in findings:
        assert finding.line >= 1
        assert finding.column >= 1
        assert finding.expected
        assert finding.remedy
        assert "\n" not in str(finding)


@given(st.text() | st.binary())
def test_any_text_is_a_config_or_a_config_error(text: str | bytes) -> None:
    """Whatever the file holds, there is no other exception, and every finding is one line with a place and a remedy."""
    read_quietly(text)


@given(json_values)
def test_any_json_is_a_config_or_a_config_error(value: object) -> None:
    """The same for well-formed JSON."""
    read_quietly(json.dumps(value))


@settings(max_examples=200)
@given(st.data())
def test_any_field_may_hold_anything(data: st.DataObject) -> None:
    """The same for a good file in which one value, anywhere, was replaced or renamed."""
    whole = json.loads(json.dumps(yaml_source.parse(SHOP).data))
    here, keys = whole, []
    while isinstance(here, dict | list) and here:
        keys.append(data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here)))))
        here = here[keys[-1]]
        if data.draw(st.booleans()):
            break
    owner = whole
    for key in keys[:-1]:
        owner = owner[key]
    if isinstance(owner, dict) and data.draw(st.booleans()):
        owner[data.draw(st.sampled_from(FIELDS) | st.text(max_size=8))] = owner.pop(keys[-1])
    else:
        owner[keys[-1]] = data.draw(json_values)
    read_quietly(json.dumps(whole))


def test_aliases_that_are_a_list_are_an_error_and_no_crash() -> None:
    """A list that names its own entry is told what was expected."""
    document = {**yaml_source.parse(SHOP).data, "event_aliases": ["Added", "Added"]}
    findings = config.read(json.dumps(document))[1]
    assert any("event_aliases" in str(finding) for finding in findings if finding.severity == "error")
