"""Findings: each names the right line, column, field, value, expectation and remedy, and all come at once."""

# ruff: noqa: E501  # a row of a table is one line
from __future__ import annotations

from pathlib import Path as File

import pytest

from decisioning import check, yaml_source
from decisioning.findings import Finding, closest, field_name

SHOP = (File(__file__).parent / "configs" / "shop.yaml").read_text("utf-8")


def findings(*replacements: tuple[str, str]) -> list[Finding]:
    text = SHOP
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    return check.check(text, "shop.yaml")


def test_a_good_file_has_no_findings() -> None:
    """The full example is neither wrong nor odd."""
    assert findings() == []


# what is replaced, by what, where the finding stands, its field, what it says
ERRORS = [
    ("version: 1", "version: 2", "1:10", "version", "2: expected 1; write 1"),
    ("version: 1", 'version: "1"', "1:10", "version", '"1": expected 1; write 1'),
    ("Europe/Berlin", "Europe/Berln", "2:11", "timezone", '"Europe/Berln": expected an IANA time zone; try "Europe/Berlin"'),
    ("Europe/Berlin", "berlin", "2:11", "timezone", '"berlin": expected an IANA time zone; try "Europe/Berlin"'),
    ("Europe/Berlin", "UTC\0", "2:14", "", "expected printable text; remove the control character"),
    ('to: "08:00"', 'to: "21:00"', "3:14", "quiet_hours", "from and to differ"),
    ('to: "08:00"', 'to: "24:00"', "3:34", "quiet_hours.to", 'write midnight as "00:00"'),
    ('to: "08:00"', "to: 8", "3:34", "quiet_hours.to", '8: expected a time of day; write hours and minutes, such as "21:00"'),
    ("sms:  ", "smss: ", "7:3", "channels.smss", 'expected email or push or sms or in_app; write "sms"'),
    ("address: id", "address: ip", "8:21", "channels.in_app.address", '"ip": expected email or phone or push_token or id; write "email"'),
    ("default: granted", "default: yes", "9:20", "consent.default", "expected granted or denied"),
    ("max: 3", "max: -1", "11:38", "caps[0].max", "-1: expected at least 0"),
    ("max: 3", "max: 2.5", "11:38", "caps[0].max", "2.5: expected a whole number"),
    ("max: 3", 'max: "3"', "11:38", "caps[0].max", '"3": expected a whole number; write a whole number without quotes'),
    ("max: 3", "max: .nan", "11:38", "caps[0].max", '".nan": expected a whole number'),
    ("per: 24h", "per: month", "11:46", "caps[0].per", '"month": expected a duration such as 30s, 15m, 2h or 7d'),
    ("per: 24h", "per: 1w", "11:46", "caps[0].per", 'try "7d"'),
    ("channel: any", "channel: emal", "11:28", "caps[0].channel", 'write "email"'),
    ("name: email-day", "name: daily", "12:12", "caps[1].name", "caps must differ; line 11 has the same"),
    ("half_life: 7d", "half_life: 0s", "13:22", "fatigue.half_life", '"0s": expected more than 0s'),
    ("limit: 0.8", "limit: true", "13:33", "fatigue.limit", "true: expected a number"),
    ("explore: 0.05}", "half_life: 1s}", "42:46", "campaigns[0].policy.half_life", '"1s": expected at least 1m'),
    ("explore: 0.05}", "horizon: 0}", "42:44", "campaigns[0].policy.horizon", "0: expected at least 1"),
    ("explore: 0.05}", "contact_cost: -1}", "42:49", "campaigns[0].policy.contact_cost", "-1: expected at least 0"),
    ("explore: 0.05}", "penalties: {spam: 1}}", "42:47", "campaigns[0].policy.penalties.spam", "unknown field; expected one of unsubscribed, complained"),
    ("explore: 0.05}", "rewards: [{event: X}]}", "42:45", "campaigns[0].policy.rewards[0].weight", "the field is required"),
    ("value: properties.revenue}", "clip: .inf}", "41:55", "campaigns[0].goal.clip", "expected a number"),
    ("share: 0.05", "share: 5", "14:18", "holdout.share", "5: expected at most 1.0"),
    ("campaigns: [cart-abandonment]", "campaigns: [cart]", "16:35", "rules[0].campaigns[0]", '"cart": expected a campaign of this file (cart-abandonment)'),
    ("user.traits.age < 18", "user.trait.age < 18", "16:60", "rules[0].when", 'unknown name "user.trait" (at character 1); try "user.traits"'),
    ("then: suppress", "then: send", "16:90", "rules[0].then", '"send": expected suppress; write "suppress"'),
    ("subject: 78}", "subject: 0}", "17:60", "guardrails.max_length.subject", "0: expected at least 1"),
    ("400d", "400", "19:22", "retention.profile", '400: expected a duration such as 30s, 15m, 2h or 7d; name the unit: "400s"'),
    ("400d", "1h", "19:22", "retention.profile", '"1h": expected at least 1d'),
    ("id: cart-abandonment", "id: cart/abandonment", "21:9", "campaigns[0].id", 'rename it, such as "cart-abandonment"'),
    ("kind: marketing", "kind: promo", "22:11", "campaigns[0].kind", "expected marketing or transactional"),
    ("      event: Product Added\n", "", "24:7", "campaigns[0].trigger.event", 'the field is required; add "event:" to campaigns[0].trigger'),
    ("event: Product Added\n", "event: []\n", "24:14", "campaigns[0].trigger.event", "expected a length of at least 1"),
    ("price >= 20", "price >=", "25:14", "campaigns[0].trigger.where", "expected CEL: the expression ends too early (at character 26)"),
    ("delay: 30m", "delay: 30x", "26:14", "campaigns[0].trigger.delay", '"30x": expected a duration such as 30s, 15m, 2h or 7d; try "30s"'),
    ("per: properties.cart_id", "per: cart_id", "27:12", "campaigns[0].trigger.per", "try properties.cart_id"),
    ("orders_30d < 5", "orders_31d < 5", "31:11", "campaigns[0].when", 'unknown name "user.orders_31d" (at character 1); try "user.orders_30d"'),
    ("orders_30d < 5", "orders_30d < '5'", "31:11", "campaigns[0].when", "a number < a string never holds (at character 1); write 5 without quotes"),
    ("orders_30d < 5", "orders_30d", "31:11", "campaigns[0].when", "expected a condition, this is a number"),
    ("[email, push]", "[email, pusch]", "32:23", "campaigns[0].channels[1]", 'write "push"'),
    ("[email, push]", "[email, email]", "32:23", "campaigns[0].channels[1]", "entries of this list must differ"),
    ("[email, push]", "email", "32:15", "campaigns[0].channels", '"email": expected a list; put it in brackets: [a, b]'),
    ("within: 0h", "within: 300h", "33:25", "campaigns[0].send_time.within", '"300h": expected at most 7d'),
    ("cooldown: 24h", "cooldwn: 24h", "35:5", "campaigns[0].cooldwn", 'try "cooldown"'),
    ("{id: offer", "{id: plain", "40:16", "campaigns[0].variants.subject[1].id", "variants of a slot must differ; line 39 has the same"),
    ("properties.name }} is", "propertis.name }} is", "40:29", "campaigns[0].variants.subject[1].text", 'unknown name "event.propertis" (at character 4 of the text); try "event.properties"'),
    ("properties.name }} is", "properties.name | upcas }} is", "40:29", "campaigns[0].variants.subject[1].text", 'unknown filter "upcas"'),
    ("properties.name }} is", "properties.name } is", "40:29", "campaigns[0].variants.subject[1].text", "expected Liquid"),
    ("is waiting", "is GUARANTEED", "40:29", "campaigns[0].variants.subject[1].text", '"guaranteed" is banned (guardrails.banned)'),
    ("is waiting", "is " + "w" * 90, "40:29", "campaigns[0].variants.subject[1].text", "expected at most 78 characters (guardrails.max_length)"),
    ("is waiting", "is waiting }}", "40:29", "campaigns[0].variants.subject[1].text", "braces stand in the text"),
    ('is waiting",', 'is waiting", blocks: {body: [x]},', "40:86", "campaigns[0].variants.subject[1].blocks.body", "expected HTML, MJML or {text: …}"),
    ('is waiting",', 'is waiting", blocks: {body: "<p>guarante<b>ed</b>"},', "40:86", "campaigns[0].variants.subject[1].blocks.body", '"guaranteed" is banned'),
    ('is waiting",', 'is waiting", blocks: {body: "<mjml><mj-foo/>"},', "40:86", "campaigns[0].variants.subject[1].blocks.body", "there is no element mj-foo (at character 7 of the text)"),
    ('is waiting",', 'is waiting", blocks: {body: "<a href=\'javascript:x\'>"},', "40:86", "campaigns[0].variants.subject[1].blocks.body", "a link runs a script"),
    ('is waiting",', 'is waiting", blocks: {body: "<a href={{ user.id }}>"},', "40:86", "campaigns[0].variants.subject[1].blocks.body", "quotes around it"),
    ('is waiting",', 'is waiting", status: "sent",', "40:79", "campaigns[0].variants.subject[1].status", "expected draft or approved or rejected"),
    ('is waiting",', 'is waiting", provenance: {generator: g},', "40:11", "campaigns[0].variants.subject[1]", "expected a review of what a generator wrote"),
    ('is waiting",', 'is waiting", provenance: {reviewed_at: "soon"},', "40:97", "campaigns[0].variants.subject[1].provenance.reviewed_at", "expected a time in UTC"),
    ('is waiting",', 'is waiting", provenance: {prompt_hash: "soon"},', "40:97", "campaigns[0].variants.subject[1].provenance.prompt_hash", "expected 16 hex digits"),
    ("subject: 78}", "subject: 78}, spam_phrases: [waiting]", "40:29", "campaigns[0].variants.subject[1].text", '"waiting" reads as spam'),
    ("subject: 78}", "subject: 78}, max_caps: 2", "17:75", "guardrails.max_caps", "expected at most 1"),
    ("within: 72h, ", "", "41:11", "campaigns[0].goal.within", "the field is required"),
    ("thompson", "tompson", "42:25", "campaigns[0].policy.algorithm", 'write "thompson"'),
    ("explore: 0.05", "explore: 0", "42:44", "campaigns[0].policy.explore", "0: expected at least 0.001"),
    ("      subject:\n", "      channel:\n", "38:7", "campaigns[0].variants.channel", 'rename the slot "channel"'),
    ("retention:", "version: 2\nretention:", "19:1", "version", "the key is already on line 1; keep one of the two"),
    ("consent: {default: granted}", "consent: {default: granted", "10:5", "", "expected YAML"),
    ("  push:  ", "\tpush:  ", "6:1", "", "indent with spaces, not tabs"),
    ("consent: {default: granted}", "consent: !!python/name:os.system", "9:10", "consent", "tags are not used here"),
    ("consent: {default: granted}", "consent: *nothing", "9:10", "", "define every anchor once"),
    ("version: 1", "version: 1\n---\nversion: 1", "2:1", "", "keep one document"),
    ("consent: {default: granted}", "consent: " + "[" * 60 + "]" * 60, "9:49", "", "more than 40 levels"),
    ("consent: {default: granted}", "consent: &me {default: *me}", "9:10", "consent.default", "aliases make the file endless"),
    ('"Product Added"}', '"Added To Cart"}', "18:34", 'event_aliases["Added To Cart"]', "is an alias itself"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "place", "field", "said"), ERRORS)
def test_an_error_names_place_field_and_remedy(old: str, new: str, place: str, field: str, said: str) -> None:
    """One mistake gives one finding (or its like first), at the line and column of the value, with what to do."""
    found = findings((old, new))
    lines = [str(one) for one in found if (one.severity, one.field) == ("error", field)]
    assert lines, [str(one) for one in found]
    assert lines[0].startswith(f"shop.yaml:{place}: error: ")
    assert said in lines[0]
    assert not check.is_usable(found)


@pytest.mark.parametrize(("old", "new", "place", "field", "said"), ERRORS)
def test_one_mistake_is_said_once(old: str, new: str, place: str, field: str, said: str) -> None:
    """No second finding stands at the place of the first."""
    places = [(found.line, found.column) for found in findings((old, new))]
    assert len(places) == len(set(places))


@pytest.mark.parametrize(
    ("old", "new", "field", "said"),
    [
        ("[email, push]", "[pusch]", "campaigns[0].channels[0]", 'write "push"'),
        ("event: Product Added\n", "event: ['']\n", "campaigns[0].trigger.event[0]", "expected a length of at least 1"),
    ],
)
def test_what_is_wrong_within_a_list_is_not_said_of_the_list(old: str, new: str, field: str, said: str) -> None:
    """A list whose only entry is wrong is not too short as well."""
    (found,) = findings((old, new))
    assert found.field == field
    assert said in str(found)


def test_a_channel_that_is_not_configured_is_one_finding() -> None:
    """Its quiet hours, which nobody knows, are not compared with the campaign's `expires_after`."""
    sms = '  sms:   {address: phone, quiet_hours: {from: "20:00", to: "09:00"}}\n'
    changes = ((sms, ""), ("[email, push]", "[email, sms]"))
    (found,) = findings(*changes)
    assert (found.field, found.value) == ("campaigns[0].channels[1]", '"sms"')
    assert found.expected == "expected a channel of this file (email, push, in_app)"


WARNINGS = [
    (("max: 3", "max: 0"), "11:38", "caps[0].max", "nothing of marketing is ever sent on any channel"),
    (("expires_after: 12h", "expires_after: 2h"), "34:20", "campaigns[0].expires_after", "quiet hours of email last 11h"),
    (("cooldown: 24h", "cooldown: 500d"), "35:15", "campaigns[0].cooldown", "profiles are kept for 400d"),
    (("per: 24h", "per: 500d"), "11:46", "caps[0].per", "profiles are kept for 400d, the cap is forgotten then"),
    (("delay: 30m", "delay: 500d"), "26:14", "campaigns[0].trigger.delay", "the timer is forgotten then"),
    (("within: 72h", "within: 500d"), "41:44", "campaigns[0].goal.within", "the message is forgotten then"),
    (("within: 0h", "within: 24h"), "33:25", "campaigns[0].send_time.within", "hours after expires_after are never picked"),
    (("max_wait: 3h", "max_wait: 5m"), "30:17", "campaigns[0].trigger.max_wait", "shorter than the delay"),
    (("      restart_on: [Product Added, Product Removed, Cart Viewed]\n", ""), "29:17", "campaigns[0].trigger.max_wait", "without restart_on"),
    ((" | default: 'there'", ""), "39:29", "campaigns[0].variants.subject[0].text", "user.first_name may be absent and has no default"),
    (("event: Product Added\n", "event: Added To Cart\n"), "24:7", "campaigns[0].trigger", 'events arrive as "Product Added"'),
    (("share: 0.05", "share: 1"), "14:18", "holdout.share", "everybody is held out"),
    (("policy: {algorithm: thompson, explore: 0.05}", "policy: {algorithm: uniform, horizon: 5}"), "42:43", "campaigns[0].policy.horizon", "uniform learns nothing"),
    (("policy: {algorithm: thompson", "policy: {rewards: [{event: Added To Cart, weight: 1}]"), "42:32", "campaigns[0].policy.rewards[0].event", 'events arrive as "Product Added"'),
    (("policy: {algorithm: thompson", "policy: {rewards: [{event: A, weight: 1}, {event: A, weight: 2}]"), "42:32", "campaigns[0].policy.rewards[0].event", "that one counts"),
    (("{subject: 78}", "{subjct: 78}"), "17:59", "guardrails.max_length.subjct", 'try "subject"'),
]  # fmt: skip


@pytest.mark.parametrize(("change", "place", "field", "said"), WARNINGS)
def test_what_is_legal_and_odd_is_a_warning(change: tuple[str, str], place: str, field: str, said: str) -> None:
    """Warnings name place and remedy as errors do, and the file stays usable."""
    found = findings(change)
    assert found, "no finding"
    assert str(found[0]).startswith(f"shop.yaml:{place}: warning: {field}")
    assert said in str(found[0])
    assert check.is_usable(found)


def test_learning_from_nothing_is_a_warning() -> None:
    """Without a goal and without rewards no knob of learning turns anything."""
    (found,) = findings(
        ("    goal: {event: Order Completed, within: 72h, value: properties.revenue}\n", ""),
        ("explore: 0.05}", "half_life: 30d}"),
    )
    assert (found.severity, found.field) == ("warning", "campaigns[0].policy.half_life")
    assert "nothing is learned: there is no goal and no reward" in found.expected


FOLLOW_UP = """\
  - id: again
    trigger:
      event: Decision Sent
      where: "event.properties.campaign == 'cart-abandonment'"
      delay: 48h
      exclude_variants: event.properties.variants
    channels: [email]
    variants: {subject: [{id: plain, text: Still there}, {id: offer, text: Yours}]}
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((), ""),
        (("cart-abandonment'\"", "cart-abandonmnt'\""), 'no campaign is called "cart-abandonmnt": this one never starts; try "cart-abandonment"'),
        (("== 'cart-abandonment'", "== 'again'"), '"again" is this campaign, which never follows itself up; name another campaign'),
        (("      delay: 48h\n", ""), 'it follows in the same moment as what it follows; give it a delay, such as "48h"'),
        (("{id: plain, text: Still there}, ", ""), '"offer" is the only variant: who got it before gets nothing'),
        (("{id: plain, text", "{id: plain, status: draft, text"), '"offer" is the only variant'),
    ],
)  # fmt: skip
def test_a_follow_up_that_cannot_work_is_a_warning(change: tuple[str, str] | tuple[()], said: str) -> None:
    """It names a campaign that is not there or itself, has no delay, or no other variant to send."""
    text = FOLLOW_UP.replace(*change) if change else FOLLOW_UP
    assert text != FOLLOW_UP or not change
    found = check.check(SHOP + text, "shop.yaml")
    assert [one.severity for one in found] == ["warning"] * bool(said)
    assert all(said in str(one) for one in found)
    assert all(one.line > SHOP.count("\n") for one in found)


def test_two_slots_with_the_same_block_are_a_warning() -> None:
    """Blocks go out by name: only one of them could."""
    two = "      second: [{id: s, text: t, blocks: {body: x}}]\n    goal:"
    (found,) = findings(('is waiting",', 'is waiting", blocks: {body: x},'), ("    goal:", two))
    assert (found.severity, found.field) == ("warning", "campaigns[0].variants.second[0].blocks.body")
    assert 'slot "subject" has a block "body" too' in found.expected


def test_capitals_are_judged_over_the_whole_text() -> None:
    """Parts between values say little each; together they do."""
    changes = (("subject: 78}", "subject: 78}, max_caps: 0.5"), ("is waiting", "WAITS FOR YOU"))
    (found,) = findings(*changes)
    assert (found.severity, found.field) == ("error", "campaigns[0].variants.subject[1].text")
    assert "too many capitals" in found.expected


def test_a_campaign_of_drafts_is_a_warning() -> None:
    """Nothing would ever be sent; guardrails do not hold for drafts."""
    found = findings(
        ("{id: plain,", "{id: plain, status: draft,"),
        ("{id: offer,", "{id: offer, status: draft,"),
        ("is waiting", "is guaranteed"),
    )
    assert [(str(one.severity), one.field) for one in found] == [("warning", "campaigns[0].variants.subject")]


def test_all_findings_come_at_once_in_the_order_of_lines() -> None:
    """Errors of shape, of names, of expressions and of texts are not hidden by one another."""
    found = findings(
        ("delay: 30m", "delay: 30x"), ("Europe/Berlin", "Europe/Berln"), ("[cart-abandonment]", "[cart]"),
        ("orders_30d < 5", "orders_31d < 5"), ("{{ event.properties.name }}", "{{ usr.name }}"), ("cooldown:", "cooldwn:"),
    )  # fmt: skip
    assert [one.line for one in found] == [2, 16, 26, 31, 35, 40]
    assert found == findings(
        ("cooldown:", "cooldwn:"), ("{{ event.properties.name }}", "{{ usr.name }}"), ("orders_30d < 5", "orders_31d < 5"),
        ("[cart-abandonment]", "[cart]"), ("Europe/Berlin", "Europe/Berln"), ("delay: 30m", "delay: 30x"),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "   \n# nothing\n", "null", b"", b"\xef\xbb\xbf"])
def test_an_empty_file_says_how_to_begin(text: str | bytes) -> None:
    """Nothing, comments alone and null."""
    assert [str(one) for one in check.check(text, "f")] == ['f:1:1: error: the file is empty; begin with "version: 1"']


@pytest.mark.parametrize(("text", "place"), [(b"version: 1\nname: \xff", "2:7"), (b"\xff\xfev", "1:1")])
def test_bytes_that_are_not_utf8_have_a_place(text: bytes, place: str) -> None:
    """The first wrong byte is named by line and column."""
    assert [str(one) for one in check.check(text, "f")] == [
        f"f:{place}: error: expected UTF-8 text; save the file as UTF-8"
    ]


def test_a_byte_order_mark_is_nothing() -> None:
    """A file that an editor of Windows saved is read as any other."""
    assert check.check(b"\xef\xbb\xbf" + SHOP.encode().replace(b"\n", b"\r\n")) == []


def test_a_large_file_is_refused_before_it_is_parsed() -> None:
    """One megabyte is the bound."""
    assert "at most 1000000 are read" in str(check.check("#" * 1_000_001)[0])


def test_aliases_cannot_make_much_of_little() -> None:
    """A thousand million elements out of a few lines are one finding, not a dead process."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    source = yaml_source.parse("\n".join(lines))
    assert [one.expected for one in source.findings] == ["aliases make the file endless"]


def test_many_mistakes_stay_bounded() -> None:
    """Ten thousand unknown fields give a bounded number of findings."""
    assert len(check.check("version: 1\n" + "".join(f"f{number}: 1\n" for number in range(10_000)))) <= 300


def test_values_are_shortened_and_on_one_line() -> None:
    """A long or multi-line value does not break the form of a finding."""
    (found,) = findings(("kind: marketing", f'kind: "a\\n{"b" * 200}"'))
    assert len(found.value) == 60
    assert "\n" not in str(found)


def test_field_names_read_as_people_write_them() -> None:
    """Odd keys are quoted, so that a path is never ambiguous."""
    assert field_name(("campaigns", 0, "trigger")) == "campaigns[0].trigger"
    assert field_name(("event_aliases", "a.b c")) == 'event_aliases["a.b c"]'


def test_the_closest_name_is_the_one_with_the_fewest_edits() -> None:
    """Length decides between equals; case does not matter; nothing near is nothing."""
    assert closest("orders_31d", ["orders_1d", "orders_30d"]) == "orders_30d"
    assert closest("europe/berlin", ["Europe/Berlin", "Europe/Dublin"]) == "Europe/Berlin"
    assert closest("zzz", ["email"]) is None
