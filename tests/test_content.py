"""Texts: what they become, when they cannot be made, and what no text may do."""

# ruff: noqa: E501  # a row of a table is one line
from __future__ import annotations

import datetime as dt
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisioning import content, guardrails
from decisioning.content import ContentError, RenderError
from decisioning.guardrails import Limits

ENV: dict[str, Any] = {
    "event": {
        "event": "Product Added",
        "properties": {
            "name": "Boots",
            "price": 19.9,
            "tags": ["new", "warm"],
            "size": {"eu": 42},
            "evil": "Boots\r\nBcc: all@example.com\x00\u2028x",
            "long": "x" * 5_000,
            "half": "a\ud800",
            "list": list(range(2_000)),
            "when": "2026-03-01T08:00:00Z",
            "none": None,
        },
    },
    "user": {"id": "u-1", "traits": {"city": "Bonn"}, "country": "DE", "orders_30d": 2, "first_name": None},
    "campaign": {"id": "cart"},
    "now": datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Hello", "Hello"),
        ("", ""),
        ("100 % of {you}", "100 % of {you}"),
        ("Still there, {{ user.first_name | default: 'friend' }}?", "Still there, friend?"),
        ("{{ user.email | default: user.traits.city }}", "Bonn"),
        ("{{ user.first_name | capitalize | default: 'friend' }}", "friend"),  # what is absent stays so through filters
        ("{% if user.first_name %}{{ user.first_name }}{% else %}friend{% endif %}", "friend"),
        ("{% unless user.first_name %}friend{% endunless %}", "friend"),
        ("{% if user.first_name == nil %}nobody{% endif %}", "nobody"),
        ("{% case user.country %}{% when 'DE' %}Moin{% else %}Hi{% endcase %}", "Moin"),
        ("{{ event.properties.name | upcase }} for {{ event.properties.price }}", "BOOTS for 19.9"),
        ("{{ event.properties.tags | join: ' and ' }}", "new and warm"),
        ("{% for tag in event.properties.tags %}{{ forloop.index }}{{ tag }} {% endfor %}", "1new 2warm"),
        ("{{ event.properties.size.eu | plus: user.orders_30d }}", "44"),
        ("{{ event.properties.tags.size }} {{ event.properties.tags.first }}", "2 new"),
        ("{% assign n = user.orders_30d | times: 2 %}{{ n }}", "4"),
        ("{% capture n %}{{ user.id }}{% endcapture %}{{ n | append: '!' }}", "u-1!"),
        ("{{ user['traits']['city'] }}", "Bonn"),
        ("{{ campaign.id }} {{ event.event }}", "cart Product Added"),
        ("{{ 'now' | date: '%d.%m.%Y %H:%M' }}", "24.11.2026 09:30"),
        ("{{ now | date: '%Y' }}", "2026"),
        ("{{ event.properties.when | date: '%d.%m.' }}", "01.03."),
        ("{{ 0 | date: '%Y' }}", "1970"),
        ("{{ true }}", "true"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{% comment %}{{ x }}{% endcomment %}ok", "ok"),
    ],
)  # fmt: skip
def test_texts_are_filled_in(text: str, made: str) -> None:
    """Liquid as its users know it, with absent values replaced by defaults."""
    assert content.compile(text).render(ENV) == made


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ user.first_name }}", "missing"),  # null is absent
        ("{{ user.email }}", "missing"),
        ("{{ user.email | upcase }}", "missing"),
        ("{{ 'a' | append: user.email }}", "missing"),
        ("{{ event.properties.colour }}", "missing"),
        ("{{ event.properties.colour.name.first }}", "missing"),
        ("{% for x in event.properties.colour %}{{ x }}{% endfor %}", "missing"),
        ("{% echo user.email %}", "missing"),
        ("{{ event.properties.size }}", "mistyped"),  # an object has no text
        ("{{ event.properties.name | date: '%Y' }}", "mistyped"),
        ("{% if event.properties.name > 3 %}x{% endif %}", "mistyped"),
        ("{{ event.properties.half }}", "mistyped"),
        ("{{ event.properties.price | divided_by: 0 }}", "mistyped"),
        ("{{ event.properties.long }}", "too_large"),
        ("{% for x in event.properties.list %}.{% endfor %}", "too_large"),
        ("{% for x in (1..100000000) %}.{% endfor %}", "too_large"),
        ("{% for x in (1..900) %}{% for y in (1..900) %}.{% endfor %}{% endfor %}", "too_large"),
        ("{{ (1..100000000) | join: ',' }}", "too_large"),
        ("{{ 10 | times: 99999999999999999999 | times: 99999999999999999999 | times: 9 }}", "too_large"),
        ("{% assign a = 'aaaaaaaaaa' %}" + "{% assign a = a | replace: 'a', 'aaaaaaaaaa' %}" * 8 + "{{ a }}", "too_large"),
        ("{% assign a = 'aaaaaaaaaa' %}" + "{% assign a = a | append: a %}" * 30 + "{{ a }}", "too_large"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_a_render_error(text: str, reason: str) -> None:
    """Absent, odd and excessive data make the text unusable, within bounded time and space, for a countable reason."""
    template = content.compile(text)
    with pytest.raises(RenderError) as caught:
        template.render(ENV)
    assert caught.value.reason == reason


def test_a_render_error_names_the_path_and_no_value() -> None:
    """The message may go to a log: personal data never does."""
    env = {**ENV, "user": {"first_name": "Secret", "traits": {"city": {"secret": "Secret"}}}}
    for text in ("{{ user.email }}", "{{ user.first_name | date: '%Y' }}", "{{ user.traits.city }}"):
        with pytest.raises(RenderError) as caught:
            content.compile(text).render(env)
        assert "Secret" not in str(caught.value)


def test_one_line_cannot_become_two() -> None:
    """A subject with line breaks from an event cannot start another header."""
    assert content.compile("{{ event.properties.evil }}").render(ENV) == "Boots Bcc: all@example.com x"
    assert content.compile(" a\n\n b ").render(ENV) == "a b"


def test_blocks_keep_their_lines_and_lose_other_controls() -> None:
    """Longer texts have lines, in one form."""
    assert (
        content.compile("a\r\n{{ event.properties.evil }}", "text").render(ENV) == "a\nBoots\nBcc: all@example.com\nx"
    )


@given(st.text())
def test_no_value_puts_a_control_character_into_a_line(value: str) -> None:
    """Whatever an event holds, the line holds no line break and no control character."""
    try:
        made = content.compile("-{{ event.properties.name }}-").render({"event": {"properties": {"name": value}}})
    except RenderError:
        return
    assert len(made.splitlines()) == 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in made)


def test_no_text_reads_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The word now is the time of the decision; without one it cannot be used."""

    class NoClock(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            raise AssertionError(tz)

    monkeypatch.setattr("liquid.builtin.filters.misc.dt.datetime", NoClock)
    for word in ("now", "today"):
        template = content.compile(f"{{{{ '{word}' | date: '%Y' }}}}")
        assert template.render(ENV) == "2026"
        with pytest.raises(RenderError):
            template.render({})


REFUSED = [
    ("Hi {{ usr.id }}", 1, 7, 'unknown name "usr"', 'try "user"'),
    ("Hi {{ user.frist_name }}", 1, 7, 'unknown name "user.frist_name"', 'try "user.first_name"'),
    ("{{ user.orders_31d }}", 1, 4, 'unknown name "user.orders_31d"', 'try "user.orders_30d"'),
    ("{{ event.name.x }}", 1, 4, 'unknown name "event.name.x"', ""),
    ("{{ event.propertis.name }}", 1, 4, 'unknown name "event.propertis"', 'try "event.properties"'),
    ("{{ user.zzz }}", 1, 4, 'unknown name "user.zzz"', 'try "user.traits.zzz"'),
    ("{% if usr %}x{% endif %}", 1, 7, 'unknown name "usr"', ""),
    ("a\nb {{ usr }}", 2, 6, 'unknown name "usr"', ""),
    ("{{ x }}{% assign x = 1 %}", 1, 4, 'unknown name "x"', ""),
    ("{{ user.id | upcas }}", 1, 14, 'unknown filter "upcas"', 'try "upcase"'),
    ("{{ user.id | upcase: 1 }}", 1, 14, 'wrong arguments of filter "upcase"', ""),
    ("{{ user.id | default: 'a', 'b' }}", 1, 14, 'wrong arguments of filter "default"', ""),
    ("{{ user.id | default: 'a', maybe: true }}", 1, 14, 'wrong arguments of filter "default"', ""),
    ("{{ user.id", 1, 1, "expected Liquid", "close every {{"),
    ("{{ user.id }", 1, 1, "expected Liquid", "close every {{"),
    ("{% if user.id %}x", 1, 1, "expected Liquid", ""),
    ("{% endif %}", 1, 4, "expected Liquid", ""),
    ("{% if %}x{% endif %}", 1, 4, "expected Liquid", ""),
    ("{% include 'x' %}", 1, 4, "there are no other files to include", "write the text here"),
    ("{% render 'x' %}", 1, 4, "there are no other files to render", "write the text here"),
    ("{{ user.first_name or 'x' }}", 1, 20, "expected Liquid", ""),
    ("x" * 20_001, 1, 1, "at most 20000 characters", "shorten it"),
    ("{% if true %}" * 30 + "{% endif %}" * 30, 1, 277, "expected Liquid", ""),
]


@pytest.mark.parametrize(("text", "line", "column", "message", "remedy"), REFUSED)
def test_what_can_be_known_to_be_wrong_is_refused(text: str, line: int, column: int, message: str, remedy: str) -> None:
    """Syntax, unknown names and filters: with line, column and what was probably meant."""
    with pytest.raises(ContentError) as caught:
        content.compile(text)
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert (caught.value.line, caught.value.column) == (line, column)


def test_all_problems_of_a_text_come_at_once() -> None:
    """Two unknown names are two problems, in order."""
    assert [problem.column for problem in content.problems("{{ usr.a }} {{ usr.b | foo }}")] == [4, 16, 24]


def test_names_made_in_the_text_are_known() -> None:
    """Variables of assign, capture and for, and forloop, are no unknown names."""
    text = "{% assign a = 1 %}{% capture b %}x{% endcapture %}{% for c in event.properties.tags %}{{ a }}{{ b }}{{ c }}{{ forloop.last }}{% endfor %}"
    assert content.problems(text) == ()


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("{{ user.first_name }} {{ user.traits.city }}", ("user.first_name", "user.traits.city")),
        ("{{ user.first_name | default: 'x' }}", ()),
        ("{{ user.first_name | capitalize | default: 'x' }}", ()),
        ("{% if user.first_name %}{{ user.first_name }}{% endif %}", ()),
        ("{{ user.id }} {{ user.orders_30d }} {{ event.properties.name }} {{ campaign.id }}", ()),
        ("{{ usr", ()),
    ],
)  # fmt: skip
def test_values_that_may_be_absent_are_known(text: str, paths: tuple[str, ...]) -> None:
    """Traits without a default and without an `if` around them are worth a warning; ids, counts and the event's are not."""
    assert content.absent(text) == paths


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("A guaranteed win", "banned:guaranteed"),
        ("GUARANTEED!", "banned:guaranteed"),
        ("Unguaranteed, guaranteeds", None),
        ("It is risk   free", "banned:risk   free"),
        ("gu\N{SOFT HYPHEN}aranteed", "banned:guaranteed"),
        ("\N{FULLWIDTH LATIN SMALL LETTER G}uaranteed", "banned:guaranteed"),
        ("STRASSE", "banned:strasse"),
        ("100% off", "banned:100%"),
        ("1100% off", None),
        ("x" * 30, None),
        ("x" * 31, "too_long"),
    ],
)  # fmt: skip
def test_guardrails(text: str, broken: str | None) -> None:
    """Banned words are whole words, in any case and disguise; lengths count characters."""
    limits = Limits(("guaranteed", "risk free", "Straße", "100%"), {"subject": 30})
    assert guardrails.breaks("subject", text, limits) == broken
    if broken == "too_long":
        assert guardrails.breaks("body", text, limits) is None


def test_no_guardrails_break_nothing() -> None:
    """Without banned words and lengths every text passes, and blank banned words are nothing."""
    assert guardrails.breaks("subject", "guaranteed", Limits((), {})) is None
    assert guardrails.breaks("subject", "guaranteed", Limits((" ",), {})) is None


def test_a_template_is_compiled_once() -> None:
    """The same text gives the same template."""
    assert content.compile("Hi {{ user.id }}") is content.compile("Hi {{ user.id }}")


PIECES = [
    "{{", "}}", "{%", "%}", " user.id ", " event.properties.x ", "| default: ", "'a'", "| upcase ", "if ", "endif ", "for x in ",
    "endfor ", "assign x = ", "x", "case ", "when ", "endcase ", "capture ", "endcapture ", "1", "(1..9)", " ", "| date: ",
    "| plus: 1", "raw ", "endraw ", "comment ", "endcomment ", "liquid ", "\n", "-", "cycle 'a', 'b' ", "tablerow x in ",
    "endtablerow ", "else ", "break ", "increment x ", "echo ", "ifchanged ", "doc ", "#", ": ", "[", "]", ".", "and ", "contains ",
]  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join) | st.text(max_size=40), values)
def test_no_text_and_no_data_makes_another_exception_escape(text: str, value: object) -> None:
    """Any text is a template or problems, any data a rendered text or a RenderError."""
    content.absent(text)
    content.fixed_parts(text)
    if content.problems(text):
        return
    try:
        content.compile(text).render({"event": {"properties": {"x": value}}, "user": {"id": value}, "now": value})
    except RenderError as error:
        reason = error.reason
        assert reason in ("missing", "mistyped", "too_large")  # either outcome is right
