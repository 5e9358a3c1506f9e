"""HTML and MJML: values stay values, Liquid survives, and no markup is too much."""

# ruff: noqa: E501  # a row of a table is one line
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisioning import content, guardrails
from decisioning.content import RenderError
from decisioning.guardrails import Limits
from decisioning.liquid_setup import HTML_ENVIRONMENT
from tests.test_content import PIECES, values


@given(st.text(max_size=20), st.lists(st.sampled_from(sorted(HTML_ENVIRONMENT.filters)), max_size=3))
def test_no_value_becomes_markup(value: str, filters: list[str]) -> None:
    """Whatever filters it passes, what an event holds neither opens a tag nor closes the quotes around it."""
    evil = f"{value}\"><script>{value}'&lt;b&gt;%3Ci%3E"
    chain = "".join(f" | {name}" for name in filters)
    for text in (
        f'<a title="{{{{ event.properties.x{chain} }}}}">',
        f'{{% capture c %}}{{{{ event.properties.x }}}}{{% endcapture %}}<a title="{{{{ c{chain} }}}}">',
        f'{{% assign c = "-" | append: event.properties.x %}}<a title="{{{{ c{chain} }}}}">',
        '<a title="{{ event.properties.list }}{% cycle event.properties.x %}{% echo event.properties.x %}">',
    ):
        if content.problems(text, "html"):  # a filter that needs arguments
            continue
        try:
            made = content.compile(text, "html").render({"event": {"properties": {"x": evil, "list": [evil, [evil]]}}})
        except RenderError:
            continue
        written = made.removeprefix('<a title="').removesuffix('">').replace("<br />", "")  # of newline_to_br
        assert not set(written) & set("<>\"'"), (text, made)


@pytest.mark.parametrize(
    ("text", "kind", "made"),
    [
        ("<b>{{ event.properties.x }}</b>", "html", "<b>&lt;i&gt; &amp; &#34;</b>"),
        ("{{ event.properties.x }}", "text", '<i> & "'),
        ("{{ event.properties.x }}", "line", '<i> & "'),
        ("<b>{{ event.properties.y | default: '<i>' }}</b>", "html", "<b><i></b>"),  # the author's own
        ("{{ event.properties.x | escape }}", "html", "&lt;i&gt; &amp; &#34;"),  # once
        ('<a href="?q={{ event.properties.x | url_encode }}">', "html", '<a href="?q=%3Ci%3E+%26+%22">'),
        ("{% if event.properties.x == '<i> & \"' %}same{% endif %}", "html", "same"),
    ],
)  # fmt: skip
def test_values_are_escaped_in_html_alone(text: str, kind: content.Kind, made: str) -> None:
    """Escaped once in HTML, as they are in plain text; what the author wrote is never escaped."""
    assert content.compile(text, kind).render({"event": {"properties": {"x": '<i> & "'}}}) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<a href={{ user.id }}>", "quotes around it"),
        ("<a title='x' href = {{ user.id }}>", "quotes around it"),
        ("<script>var x = '{{ user.id }}'</script>", "within <script>"),
        ("<p>{{ user.id | safe }}</p>", 'unknown filter "safe"'),
    ],
)
def test_html_that_escaping_cannot_protect_is_refused(text: str, message: str) -> None:
    """Before anything is sent."""
    assert message in content.problems(text, "html")[0].message


def test_html_that_looks_alike_is_accepted() -> None:
    """Equals signs within quotes and texts, and attributes in quotes, are fine."""
    for text in (
        '<a href="?a={{ user.id }}">',
        "a = {{ user.id }}",
        "<p title='x={{ user.id }}'>",
        "<p>x={{ user.id }}",
    ):
        assert content.problems(text, "html") == ()


MJML = """<mjml><mj-head><mj-preview>For {{ user.id }}</mj-preview></mj-head><mj-body>
{% if user.orders_30d < 5 and user.id != "<x>" %}<mj-section><mj-column>
{% for tag in event.properties.tags %}<mj-text>{{ tag | default: "a's <b>" }}</mj-text>{% endfor %}
<mj-button href="https://shop.example/?q={{ event.properties.x | url_encode }}&amp;u={{ user.id }}">Go</mj-button>
</mj-column></mj-section>{% endif %}</mj-body></mjml>"""


def test_liquid_survives_mjml() -> None:
    """Outputs in texts and links, tags around elements, quotes and angle brackets in them; values are escaped."""
    template = content.compile(MJML, "mjml")
    made = template.render(
        {"event": {"properties": {"tags": ["<i>", "two"], "x": '"'}}, "user": {"id": '"u"', "orders_30d": 1}}
    )
    assert "<mj-" not in made
    assert "{" not in guardrails.visible(made)
    assert guardrails.visible(made) == 'For "u" <i> two Go'
    assert 'href="https://shop.example/?q=%22&amp;u=&#34;u&#34;"' in made
    none = template.render({"event": {"properties": {"tags": []}}, "user": {"id": "u", "orders_30d": 9}})
    assert guardrails.visible(none) == "For u"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("<mjml><mj-body><mj-foo/></mj-body></mjml>", (1, 16), "there is no element mj-foo"),
        ("<mjml><mj-body>{{ user.id }}\n<mj-foo/></mj-body></mjml>", (2, 1), "there is no element mj-foo"),
        ('<mjml><mj-body><mj-include path="/etc/passwd"/></mj-body></mjml>', (1, 16), "no other files"),
        ("<mjml><mj-body>{{ usr.id }}</mj-body></mjml>", (1, 19), 'unknown name "usr"'),
        ("<mjml><mj-body><mj-text>x</mj-body></mjml>", (1, 1), "expected MJML"),
        ("<mjml>", (1, 1), "expected MJML"),
        ("<mjml><mj-body>" + "<mj-wrapper>" * 5_000, (1, 16 + 58 * 12), "more than 60 elements"),
        ("<mjml><mj-body>" + "<mj-raw><b>" * 5_000, (1, 16 + 29 * 11), "more than 60 elements"),
        ('<mjml><mj-body><mj-section><mj-column><mj-image src="x" width="{{ user.id }}"/></mj-column></mj-section></mj-body></mjml>', (1, 64), "the compiler drops this"),
        ("<mjml>{% if user.id %}<mj-body></mj-body>{% endif %}</mjml>", (1, 1), "expected MJML"),
    ],
)  # fmt: skip
def test_mjml_that_cannot_be_compiled_is_refused(text: str, place: tuple[int, int], message: str) -> None:
    """With its place in the source; nothing is dropped silently, and no depth ends the process."""
    problem = content.problems(text, "mjml")[0]
    assert message in problem.message
    assert (problem.line, problem.column) == place


MARKUP = [*PIECES, "<mjml>", "<mj-body>", "<mj-section>", "<mj-column>", "<mj-text>", "</mj-text>", "</mj-column>", "</mj-section>", "</mj-body>",
          "</mjml>", "<mj-raw>", '<a href="', '">', "<!--", "-->", "<style>", "</style>", "&amp;", "<", ">", "'", "=", "<script>", "liquid0z1z"]  # fmt: skip


@given(st.lists(st.sampled_from(MARKUP), max_size=24).map("".join), st.sampled_from(["html", "mjml"]), values)
def test_no_markup_makes_another_exception_escape(text: str, kind: content.Kind, value: object) -> None:
    """Any markup is a template or problems, any data a rendered text or a RenderError."""
    content.fixed_parts(text, kind)
    if content.problems(text, kind):
        return
    try:
        content.compile(text, kind).render({"event": {"properties": {"x": value}}, "user": {"id": value}, "now": value})
    except RenderError as error:
        assert error.reason in ("missing", "mistyped", "too_large")  # noqa: PT017  # either outcome is right


@pytest.mark.parametrize(
    "text",
    [
        "{% for x in (1..1000) %}" + "{% if true %}{% endif %}" * 700 + "{% endfor %}",
        "{% for x in (1..1000) %}" + "{{ '' }}" * 2_000 + "{% endfor %}",
        "{% assign a = 'aaaaaaaaaa' %}{% for x in (1..1000) %}" + "{% assign b = a | upcase | downcase %}" * 400 + "{% endfor %}",
        "{% for x in (1..999) %}{% assign b = event.properties.most" + " | upcase" * 50 + " %}{% endfor %}",
    ],
)  # fmt: skip
def test_work_is_bounded_by_counting(text: str) -> None:
    """What writes little, loops within bounds and yet does much is too large, always after the same amount of work."""
    template = content.compile(text)
    with pytest.raises(RenderError) as caught:
        template.render({"event": {"properties": {"most": "x" * 4_000}}})
    assert (caught.value.reason, "too much work" in str(caught.value)) == ("too_large", True)


@pytest.mark.parametrize(
    "text",
    [
        '<a "',
        "<a ='",
        "<style",
        "<style>",
        "{{",
        "{%",
        "<",
        "<a ",
        "<!--",
        "<script>",
        '<b href="',
        "<mjml>",
        "{% raw %}",
        "{{ 'a' }}",
        "<a b='",
    ],
)
@pytest.mark.parametrize("kind", ["html", "mjml"])
def test_no_markup_takes_long(text: str, kind: content.Kind) -> None:
    """100,000 characters of what makes searches go back are judged well within the time a test may take."""
    whole = text * (100_000 // len(text))
    content.problems(whole, kind)
    content.fixed_parts(whole, kind)
    guardrails.breaks("body", whole, Limits(("x",)), is_html=True)
