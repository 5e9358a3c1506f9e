"""Guardrails: what they see, and that a variant that breaks one sleeps while a metric says why."""

# a row of a table is one line
from __future__ import annotations

from typing import Any

import pytest

from decisioning import content, guardrails
from decisioning.guardrails import STANDARD_SPAM, Limits
from tests.play import config, play, track


@pytest.mark.parametrize(
    ("slot", "text", "kind"),
    [("subject", "a\nb", "line"), ("preheader", "a", "line"), ("preheader", "a\n", "line"), ("body", "a\nb", "text")],
)
def test_a_slot_is_one_line_unless_its_author_wrote_several(slot: str, text: str, kind: str) -> None:
    """So no value adds a line to what may become a header, in whatever slot."""
    assert content.kind_of(slot, text) == kind


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("Hi {{ name }}", "braces"),
        ("Hi name }}", "braces"),
        ("{% if %}", "braces"),
        ("{name} 100 %", None),
        ("ACT NOW, Ann", "spam:act now"),
        ("Buy!!!", "spam:!!!"),
        ("LAST CHANCE for you", "all_caps"),
        ("IKEA", None),
        ("NASA, IKEA and the others", None),
    ],
)
def test_more_guardrails(text: str, broken: str | None) -> None:
    """Braces always; spam phrases and capitals as configured."""
    limits = Limits(spam_phrases=STANDARD_SPAM, max_caps=0.5)
    assert guardrails.breaks("subject", text, limits) == broken
    assert guardrails.breaks("subject", text, Limits()) == (broken if broken == "braces" else None)


@pytest.mark.parametrize(
    ("markup", "broken"),
    [
        ("<p>g<b>uarante</b>ed</p>", "banned:guaranteed"),
        ("<p>g&#117;aranteed</p>", "banned:guaranteed"),
        ("<p>guaran</p><p>teed</p>", None),
        ('<p class="guaranteed">x</p><!-- guaranteed --><style>.guaranteed{}</style>', None),
        ("<style>@media x{.a{b:c}}</style>ok", None),
        ('<a href="{{ x }}">x</a>', "braces"),
        ('<a href="javascript:alert(1)">x</a>', "unsafe_link"),
        ("<a href=' java\nscript:alert(1)'>x</a>", "unsafe_link"),
        ('<a href="&#106;avascript:alert(1)">x</a>', "unsafe_link"),
        ('<img src="data:text/html,x">', "unsafe_link"),
        ('<img src="data:image/png;base64,AA==">', None),
        ('<a href="https://x.example/?javascript:">x</a>', None),
        ("<b>" + "x" * 20 + "</b>", None),
        ("<b>" + "x" * 21 + "</b>", "too_long"),
    ],
)
def test_guardrails_see_what_a_reader_sees(markup: str, broken: str | None) -> None:
    """No tags, comments and styles, entities as characters; links lead somewhere."""
    assert guardrails.breaks("body", markup, Limits(("guaranteed",), {"body": 20}), is_html=True) == broken


@pytest.mark.parametrize(
    ("first", "events", "reason"),
    [
        ({"text": "{{ event.properties.name }}"}, {"name": "GUARANTEED"}, "banned"),
        ({"text": "{{ event.properties.name }}"}, {"name": "{{ user.email }}"}, "braces"),
        ({"text": "{{ event.properties.name }}"}, {"name": "BUY THIS OR ELSE"}, "all_caps"),
        ({"text": "{{ event.properties.name }}"}, {"name": "click here"}, "spam"),
        ({"text": "{{ event.properties.name }}"}, {"name": "x" * 41}, "too_long"),
        ({"text": "{{ event.properties.name }}"}, {}, "missing"),
        ({"text": "x", "blocks": {"body": "<p>{{ event.properties.name }}</p>"}}, {"name": "guaranteed"}, "banned"),
        (
            {"text": "x", "blocks": {"body": '<a href="{{ event.properties.name }}">'}},
            {"name": "javascript:x"},
            "unsafe_link",
        ),
        ({"text": "x", "blocks": {"body": {"text": "{{ event.properties.name }}"}}}, {"name": "guaranteed"}, "banned"),
        ({"text": "x", "when": "event.properties.name == 'y'"}, {"name": "x"}, "when"),
    ],
)
def test_a_failing_variant_sleeps_and_a_metric_says_why(
    first: dict[str, Any], events: dict[str, Any], reason: str
) -> None:
    """The other arm is sent with certainty; the count has campaign, slot and reason; well-behaved values wake it up."""
    limits = {"banned": ["guaranteed"], "max_caps": 0.5, "spam_phrases": "standard", "max_length": {"subject": 40}}
    arms = {"subject": [{"id": "odd", **first}, {"id": "even", "text": "Second"}]}
    setup = config(guardrails=limits, campaign={"variants": arms})
    played = play([track("10:00", "t1", properties=events)], setup=setup)
    (record,) = [entry for entry in played.log if entry["action"] == "send"]
    assert record["arms"]["subject"] == {"even": 1.0}
    assert "odd" in record["asleep"]["subject"]
    assert played.counts["asleep_variants_total", "cart", "subject", reason] == 1
    well = play([track("10:00", "t1", properties={"name": "y"})], setup=setup)
    assert set(well.log[-1]["arms"]["subject"]) == {"odd", "even"}


def test_blocks_are_sent_beside_the_subject() -> None:
    """By name, HTML escaped, MJML compiled, plain text plain; a value cannot forge a header in any of the lines."""
    blocks = {
        "body": "<p>{{ event.properties.name }}</p>",
        "mail": "<mjml><mj-body><mj-raw>{{ event.properties.name }}</mj-raw></mj-body></mjml>",
        "plain": {"text": "a\n{{ event.properties.name }}"},
    }
    arms = {
        "subject": [{"id": "a", "text": "{{ event.properties.name }}", "blocks": blocks}],
        "preheader": [{"id": "p", "text": "{{ event.properties.name }}"}],
    }
    played = play(
        [track("10:00", "t1", properties={"name": "<T&J>\r\nBcc: x"})], setup=config(campaign={"variants": arms})
    )
    made = played.decisions[0]["content"]
    assert made["subject"] == made["preheader"] == "<T&J> Bcc: x"
    assert made["blocks"]["body"] == "<p>&lt;T&amp;J&gt;\nBcc: x</p>"
    assert "&lt;T&amp;J&gt;\nBcc: x" in made["blocks"]["mail"]
    assert "<mj" not in made["blocks"]["mail"]
    assert made["blocks"]["plain"] == "a\n<T&J>\nBcc: x"
