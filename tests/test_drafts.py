"""Drafts: how they come into the file, what keeps them out of it, and that nothing unreviewed is ever sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from decisioning import config as configuration
from decisioning import drafts, yaml_edit, yaml_source
from decisioning.config import Guardrails
from decisioning.findings import ConfigError
from decisioning.grammar import Grammar, GrammarError, rules_of
from decisioning.screening import Screen
from decisioning.yaml_edit import EditError
from tests.play import config, play, track

SHOP = (Path(__file__).parent / "configs" / "shop.yaml").read_text("utf-8")

# Writing into the file


ITEM = {"id": "new", "text": 'a "b": #c é', "status": "draft", "provenance": {"generator": "g"}}
LAYOUTS = [
    "a:\n  - {id: x}   # one\n  # two\nb: 1  # three\n",
    "a:\n- id: x\n  text: |\n    two\n    lines\n\n# end\nb: 1\n",
    "a:\n    - id: x\n      blocks:\n        body: >-\n          folded\n          text\n\nb: 1\n",
    "a: [{id: x}]  # one\nb: 1\n",
    "a: [\n  {id: x},  # one\n]\nb: 1",
    '{"a": [{"id": "x"}], "b": 1}',
    '{\n\t"a": [\n\t\t{"id": "x"}\n\t],\n\t"b": 1\n}\n',
    "b: 1\na:\n  - id: x",
    "\ufeffb: 1\r\na:\r\n  - id: x  # one\r\n",
    'a:\n  - {id: x, text: "]}"}\nb: 1\n',
]


@pytest.mark.parametrize("text", LAYOUTS)
def test_an_entry_is_added_and_nothing_else_changes(text: str) -> None:
    """What was there is there still, character by character and in order, and the parsed list has one entry more."""
    made = yaml_edit.append(text, ("a",), ITEM)
    data = yaml_source.parse(made).data
    before = yaml_source.parse(text).data
    assert data == {**before, "a": (*before["a"], ITEM)}
    rest = iter(made)
    assert all(character in rest for character in text)
    assert ("\r\n" in text) == ("\r\n" in made)
    other = json.loads(made) if text.startswith("{") else yaml.safe_load(made)
    assert other["a"][-1] == ITEM  # other readers agree


@pytest.mark.parametrize(
    ("path", "value"),
    [(("a", 0, "id"), "other"), (("a", 0, "note"), "two\nlines"), (("a", 0, "more"), {"by": "Ann: B"})],
)
@pytest.mark.parametrize("text", LAYOUTS)
def test_a_field_is_set_and_nothing_else_changes(text: str, path: tuple[Any, ...], value: Any) -> None:
    """A scalar is replaced, a missing field added."""
    before, after = yaml_source.parse(text).data, yaml_source.parse(yaml_edit.assign(text, path, value)).data
    assert after["a"][0] == {**before["a"][0], path[-1]: value}
    assert {**after, "a": 0} == {**before, "a": 0}


@pytest.mark.parametrize(
    "text",
    ["a: &x [{id: 1}]\nb: *x\n", "a: *x\n", "b: 1\n", "a: []\n", "a: 1\n", "base: &m {a: [{id: 1}]}\n<<: *m\n", "a: ["],
)
def test_what_cannot_be_added_to_is_refused(text: str) -> None:
    """Shared lists and what is no list stay as they are."""
    with pytest.raises(EditError):
        yaml_edit.append(text, ("a",), ITEM)


@given(st.text(max_size=30), st.sampled_from(LAYOUTS))
def test_any_text_arrives_as_it_is(value: str, layout: str) -> None:
    """Whatever is written into the file is read from it again, or refused."""
    try:
        made = yaml_edit.append(layout, ("a",), {"id": "n", "text": value})
    except EditError:
        return
    assert yaml_source.parse(made).data["a"][-1]["text"] == value


# What is proposed, and what is refused


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Your boots are waiting", None),
        ("Hi {{ user.first_name | default: 'there' }}", None),
        ("Save 10% on boots", None),  # the brief promises it
        ("Save 20% on boots", "intent: the number 20% is nobody's"),
        ("", "form"),
        ("two\nlines", "form"),
        ("bell \x07", "form"),
        ("Hi {{ user.frist_name }}", "liquid: unknown name"),
        ("Hi {{ user.first_name }}", "liquid: user.first_name has no default"),
        ("Hi {{ user.first_name", "liquid"),
        ("Hi first_name }}", "guardrail: braces"),
        ("{% for x in (1..9) %}{% include 'x' %}{% endfor %}", "liquid"),
        ("known  TEXT!", "duplicate"),
        ("A guaranteed fit", "guardrail: banned:guaranteed"),
        ("Click here now", "guardrail: spam:click here"),
        ("LOOK AT YOUR BOOTS", "guardrail: all_caps"),
        ("x" * 79, "guardrail: too_long"),
        ("This is sh1t", "profanity"),
        ("What the f**k", "profanity"),
        ("SCHEISSE gelaufen heute", "profanity"),
        ("Re: your boots", "intent: a false reply"),
        ("Your account will be suspended", "intent: a false alarm"),
        ("Verify your account, please", "intent: a false alarm"),
        ("Tell us your password", "intent: asking for a secret"),
        ("You've won new boots", "intent: a prize"),
        ("Boots that heal", "intent: a promise of health"),
        ("Gratis für dich: Stiefel", "intent: a gift"),
        ("Boots, today only", "intent: a deadline"),
        ("Only 3 left of your boots", "intent: scarcity"),
        ("See https://evil.example", "intent: a link"),
        ("Boots for $5", "intent: the number $5"),
    ],
)
def test_screening(text: str, why: str | None) -> None:
    """A proposed text is refused for what it is, and for what it promises without licence."""
    screen = Screen("subject", Guardrails(banned=("guaranteed",)), ("Known text",), "Say that they save 10%")
    found = screen.refusal(text)
    assert found is None if why is None else (found or "").startswith(why), found


@given(st.text(max_size=60))
def test_screening_judges_any_text(text: str) -> None:
    """No text a server may answer makes it fail, and what passes is usable as it is."""
    if Screen("subject", Guardrails(), (), "").refusal(text) is None:
        assert text.isprintable()
        assert text == text.strip() != ""


def test_the_grammar_repeats_itself_and_knows_the_campaign() -> None:
    """Same seed, same texts; another seed, others; all of them pass the screen."""
    loaded = configuration.load(SHOP)
    campaign = loaded.campaigns[0]
    brief = drafts.brief_of(loaded, campaign, "subject", "")
    made = [Grammar(seed=seed).propose(brief, 8) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert [why for _, why in drafts.screened(loaded, campaign, brief, made[0].texts)] == [None] * 8


@pytest.mark.parametrize(
    "data", [None, {}, {"x": ("a",)}, {"any": "a"}, {"any": ()}, {"any": (1,)}, {"any": ("[nope]",)}]
)
def test_a_grammar_that_is_none_is_refused(data: Any) -> None:
    """With what was expected."""
    with pytest.raises(GrammarError):
        rules_of(data)


def test_a_grammar_that_never_ends_is_refused() -> None:
    """It does not hang."""
    loaded = configuration.load(SHOP)
    brief = drafts.brief_of(loaded, loaded.campaigns[0], "subject", "")
    with pytest.raises(GrammarError, match="never ends"):
        Grammar(rules_of({"any": ("[any] again",)})).propose(brief, 1)


# Nothing unreviewed is sent


def variant(**fields: Any) -> dict[str, Any]:
    return {"id": "b", "text": "Second", **fields}


MADE = {"generator": "http", "model": "m", "prompt_hash": "0" * 16, "created_at": "2026-11-24T10:00:00Z"}
REVIEW = {"reviewed_by": "ann", "reviewed_at": "2026-11-24T10:00:00Z"}


def text_hash(text: str) -> str:
    return configuration.Variant(id="x", text=text).text_hash


@pytest.mark.parametrize(
    "made",
    [
        variant(provenance=MADE),
        variant(status="approved", provenance=MADE),
        variant(status="approved", provenance=MADE | REVIEW),
        variant(status="approved", provenance=MADE | REVIEW | {"reviewed_text": text_hash("Other")}),
        variant(status="approved", provenance=MADE | {"reviewed_text": text_hash("Second")}),
        variant(status="approved", provenance=REVIEW | {"reviewed_text": text_hash("Other")}),
        variant(blocks={"body": "new"}, provenance=MADE | REVIEW | {"reviewed_text": text_hash("Second")}),
    ],
)
def test_what_a_generator_wrote_is_no_variant_without_a_review_of_these_words(made: dict[str, Any]) -> None:
    """Neither by leaving out the status, nor by writing `approved`, nor by changing the words afterwards."""
    with pytest.raises(ConfigError, match="review"):
        config(campaign={"variants": {"subject": [{"id": "a", "text": "First"}, made]}})


@pytest.mark.parametrize("status", ["draft", "rejected"])
def test_what_is_not_approved_is_never_sent(status: str) -> None:
    """Over many people only the approved arm is drawn, with certainty; a slot of drafts alone sends nothing."""
    waiting = variant(status=status, provenance=MADE)
    events = [track("10:00", f"t{number}", userId="u1", properties={"cart_id": str(number)}) for number in range(40)]
    trigger = {"per": "properties.cart_id"}
    mixed = config(campaign={"variants": {"subject": [{"id": "a", "text": "First"}, waiting]}, "trigger": trigger})
    played = play(events, setup=mixed)
    assert len(played.decisions) == 40
    assert {decision["variants"]["subject"] for decision in played.decisions} == {"a"}
    assert all(record["arms"]["subject"] == {"a": 1.0} for record in played.log)
    alone = play(events, setup=config(campaign={"variants": {"subject": [waiting]}, "trigger": trigger}))
    assert (alone.decisions, {record["action"] for record in alone.log}) == ([], {"suppress"})


def test_drafts_and_provenance_leave_the_version_as_it_is() -> None:
    """Nothing about decisions depends on them; an approval does change it."""
    first = {"id": "a", "text": "First"}
    reviewed = variant(provenance=MADE | REVIEW | {"reviewed_text": text_hash("Second")})
    plain, waiting, approved, bare = (
        config(campaign={"variants": {"subject": [first, *more]}}).version_hash
        for more in ([], [variant(status="draft", provenance=MADE)], [reviewed], [variant()])
    )
    assert plain == waiting != approved == bare
