"""Conditions: what they give, what is refused before anything runs, and that running them never fails or hangs."""

# ruff: noqa: E501  # a row of a table is one line
from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisioning import cel_syntax, cel_types, expressions, names
from decisioning.expressions import ExpressionError
from features import vector

ENV: dict[str, Any] = {
    "event": {
        "type": "track",
        "event": "Product Added",
        "properties": {
            "price": 20.0,
            "quantity": 3,
            "name": "Boots",
            "tags": ["new", "warm"],
            "gift": False,
            "none": None,
            "products": [{"price": 5, "sizes": [41, 42]}, {"price": 25.5, "sizes": []}],
            "odd name": 1,
        },
        "context": {"device": {"type": "ios"}},
    },
    "user": {
        "id": "u-1",
        "traits": {"age": 17, "city": "Bonn"},
        "first_name": "Ann",
        "country": "DE",
        "consent": {"email": True},
        "orders_30d": 2,
        "revenue_30d": 40.5,
        "fatigue": 0.25,
        "propensity": {"open": 0.5},
        "features": {"view_7d": 1.5},
    },
    "campaign": {"id": "cart"},
    "now": datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("event.properties.price >= 20", True),
        ("event.properties.price >= 20.0", True),
        ("event.properties.price == 20", True),
        ("event.properties.quantity == 3.0", True),
        ("20 == event.properties.price && 3.0 == event.properties.quantity", True),
        ("event.properties.price * 2 > 39", True),
        ("event.properties.quantity * 1.5 == 4.5", True),
        ("event.properties.price * event.properties.quantity == 60", True),
        ("event.properties.price - 1 < 20", True),
        ("user.revenue_30d / user.orders_30d > 20", True),
        ("size(event.properties.tags) * event.properties.price == 40", True),
        ("event.properties.tags[0] == 'new' && event.properties.price * 2 > 1", True),
        ("event.properties.quantity % 2 == 1", True),
        ("user.orders_30d / 2 == 1", True),
        ("event.properties.price in [10, 20]", True),
        ("'warm' in event.properties.tags", True),
        ("event.properties.products.exists(p, p.price > 25)", True),
        ("event.properties.products.all(p, p.price > 25)", False),
        ("event.properties.products.exists(p, p.sizes.exists(s, s == 42))", True),
        ("event.properties.products.filter(p, p.price > 10).size() == 1", True),
        ("event.properties.products.map(p, p.price)[0] == 5", True),
        ("event.properties.tags.exists_one(user, user == 'new')", True),  # a variable may have any name
        ("event.properties['odd name'] == 1", True),
        ("has(event.properties.colour)", False),
        ("has(event.properties.price) && event.properties.price > 1", True),
        ("event.properties.none == null", True),
        ("event.properties.name.startsWith('Bo')", True),
        ("event.properties.name.matches('^B.*s$')", True),
        ("event.context.device.type == 'ios'", True),
        ("event.event == 'Product Added' && campaign.id == 'cart'", True),
        ("user.traits.age < 18", True),
        ("user.country == 'DE' ? user.traits.age < 18 : false", True),
        ("user.consent.email && !event.properties.gift", True),
        ("user.fatigue < 0.5 && user.propensity.open >= 0.5 && user.features.view_7d > 1", True),
        ("now.getHours() == 9 && now.getFullYear() == 2026", True),
        ("now - duration('24h') < now && now > timestamp('2026-01-01T00:00:00Z')", True),
        ("timestamp('2026-11-24T00:00:00Z') + duration('10h') > now", True),
        ("user.traits.missing == 'x' || true", True),
        ("string(user.orders_30d) == '2' && int(event.properties.price) == 20", True),
        ("-event.properties.quantity < 0 // of course", True),
        ("event.properties.name == \"Boots\" && '''Boots''' == event.properties.name && r'Boots' == event.properties.name", True),
        ("{'a': 1}['a'] == 1 && {'a': [1]}.a.size() == 1", True),
    ],
)  # fmt: skip
def test_conditions_hold_or_not(text: str, holds: bool) -> None:  # an expected value
    """Whole numbers and decimals compare and calculate as people expect; nothing fails."""
    assert expressions.compile(text).test(ENV) == (holds, None)


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("user.traits.height > 1", "missing"),
        ("!(user.traits.height > 1)", "missing"),
        ("event.properties.a.b.c == 1", "missing"),
        ("event.properties.tags[7] == 'x'", "missing"),
        ("user.email == 'x'", "missing"),
        ("event.properties.name > 5", "mistyped"),
        ("event.properties.name * 2 > 5", "mistyped"),
        ("event.properties.none > 5", "mistyped"),
        ("event.properties.gift > 5", "mistyped"),
        ("event.properties.price.exists(x, x > 1)", "mistyped"),
        ("event.properties.name", "not_boolean"),
        ("event.properties.quantity / 0 == 1", "failed"),
        ("event.properties.quantity * 9223372036854775807 > 1", "failed"),
        ("int(event.properties.name) == 1", "failed"),
    ],
)  # fmt: skip
def test_missing_and_mistyped_data_is_false_and_counted(text: str, failure: str) -> None:
    """The reason is a word that can label a metric; also a negation of what is missing is false."""
    holds, why = expressions.compile(text).test(ENV)
    assert not holds
    assert why == failure or (failure in ("failed", "mistyped") and why in ("failed", "mistyped"))


def test_an_empty_environment_is_missing_data() -> None:
    """Not even the roots need to be there."""
    assert expressions.compile("user.orders_30d < 5").test({}) == (False, "missing")
    assert expressions.compile("campaign.id == 'x'").test({"campaign": None}) == (False, "mistyped")


REFUSED = [
    ("", 0, "ends too early", ""),
    ("user.orders_30d <", 17, "ends too early", "correct it at character 18"),
    ("user.orders_30d < 5)", 19, "unexpected ')'", ""),
    ("user.orders_30d << 5", 17, "unexpected '<'", ""),
    ("event.properties.price => 20", 23, "unexpected '='", ""),
    ("event.properties.price = 20", 23, "unexpected '='", ""),
    ("user.first_name == 'Ann", 19, "unexpected", ""),
    ("user.orders_30d < 5 and true", 20, "unexpected 'and'", ""),
    ("not true", 4, "unexpected 'true'", ""),
    ("Message{a: 1}", 7, "unexpected '{'", ""),
    ("usr.id == 'x'", 0, 'unknown name "usr"', 'try "user"'),
    ("user.orders_31d < 5", 0, 'unknown name "user.orders_31d"', 'try "user.orders_30d"'),
    ("user.age < 5", 0, 'unknown name "user.age"', "user."),
    ("user.zzz < 5", 0, 'unknown name "user.zzz"', 'try "user.traits.zzz"'),
    ("event.propertis.x == 1", 0, 'unknown name "event.propertis"', 'try "event.properties"'),
    ("event.price > 20", 0, 'unknown name "event.price"', 'try "event.properties.price"'),
    ("campaign.name == 'x'", 0, 'unknown name "campaign.name"', ""),
    ("user.propensity.opn > 0.5", 0, 'unknown name "user.propensity.opn"', 'try "user.propensity.open"'),
    ("user.features.veiw_7d > 1", 0, 'unknown name "user.features.veiw_7d"', 'try "user.features.view_7d"'),
    ("user.features.foo > 1", 0, 'unknown name "user.features.foo"', "use one of view_1h, add_1h, "),
    ("user.features.view_7d == 'x'", 0, "a number == a string never holds", ""),
    ("user['orders_31d'] < 5", 0, 'unknown name "user.orders_31d"', 'try "user.orders_30d"'),
    ("true && usr.id == 'x'", 8, 'unknown name "usr"', ""),
    ("event.properties.tags.exists(t, s == 1)", 32, 'unknown name "s"', ""),
    ("has(user.orders_31d)", 4, 'unknown name "user.orders_31d"', 'try "user.orders_30d"'),
    ("user.orders_30d < '5'", 0, "a number < a string never holds", "write 5 without quotes"),
    ("user.orders_30d == 'five'", 0, "a number == a string never holds", "convert"),
    ("user == 'x'", 0, "an object == a string never holds", ""),
    ("user.id == 5", 0, "a string == a number never holds", ""),
    ("now > '2026-01-01'", 0, "a timestamp > a string never holds", ""),
    ("user.orders_30d", 0, "expected a condition, this is a number", "> 0"),
    ("1 + 1", 0, "expected a condition, this is a number", ""),
    ("user.id", 0, "expected a condition, this is a string", ""),
    ("user", 0, "expected a condition, this is an object", ""),
    ("user.traits", 0, "expected a condition, this is an object", ""),
    ("user.id + 1 == 'x'", 0, "a string + a number cannot be calculated", ""),
    ("user.id && true", 0, "expected a condition beside &&, this is a string", ""),
    ("!user.orders_30d", 1, "expected a condition after !, this is a number", ""),
    ("user.orders_30d ? true : false", 0, "expected a condition before ?", ""),
    ("user.id.length == 1", 0, "user.id is a string and has no fields", 'remove ".length"'),
    ("event.properties.name.lower() == 'x'", 0, "unknown function lower()", ""),
    ("event.properties.name.startswith('x')", 0, "unknown function startswith()", "try startsWith()"),
    ("len(event.properties.tags) > 1", 0, "unknown function len()", ""),
    ("user.orders_30d.contains('x')", 0, "expected string before .contains(), this is a number", ""),
    ("event.properties.name.matches('(')", 30, "not a regular expression", "correct the pattern"),
    ("event.properties.name.matches(user.id)", 30, "expected a pattern in quotes", ""),
    ("now > timestamp('soon')", 6, "not a timestamp", "2026-01-31T00:00:00Z"),
    ("now - duration('1 day') > now", 6, "not a duration", 'duration("24h")'),
    ("user.id in 'abc'", 11, "expected a list after in", ""),
    ("99999999999999999999 > 1", 0, "below 2^63", ""),
    ("[1].exists(a, [1].exists(b, [1].exists(c, a == c)))", 28, "at most 2 loops", ""),
    ("(" * 60 + "true" + ")" * 60, 40, "more than 40 levels", ""),
    ("true || " * 300 + "true", 0, "at most 2000 characters", "shorten it"),
    ("size(1, 2) > 1", 0, "size() takes one value", ""),
    ("now.getHours('Europe/Berlin') >= 9", 0, ".getHours() takes no zone, it counts in UTC", "write .getHours()"),
    ("event.properties.tags.size(1) > 1", 0, ".size() takes no value", "write .size()"),
    ("has(user)", 0, "has() takes one field", ""),
    ("[1].all(1, true)", 8, "needs a variable first", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "at", "expected", "remedy"), REFUSED)
def test_what_can_be_known_to_be_wrong_is_refused(text: str, at: int, expected: str, remedy: str) -> None:
    """Syntax, names, functions and types: with the place in the text and what was probably meant."""
    with pytest.raises(ExpressionError) as caught:
        expressions.compile(text)
    problem = caught.value.problems[0]
    assert problem.at == at
    assert expected in problem.expected
    assert remedy in problem.remedy
    assert problem.remedy


def test_all_unknown_names_are_reported_at_once() -> None:
    """Two mistakes in one expression are two problems."""
    with pytest.raises(ExpressionError) as caught:
        expressions.compile("usr.id == 'x' && user.orders_31d < 5")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("name", [*cel_types._FUNCTIONS, *cel_types._METHODS])
def test_every_admitted_function_exists(name: str) -> None:
    """What `check` admits the evaluating library has."""
    examples = {
        "size": "size([1])", "int": "int(1.0)", "double": "double(1)", "string": "string(1)", "bytes": "bytes('a')",
        "timestamp": "timestamp('2026-01-01T00:00:00Z')", "duration": "duration('1h')",
        **{method: f"'a'.{method}('a')" for method in ("contains", "startsWith", "endsWith", "matches")},
    }  # fmt: skip
    cel.evaluate(examples.get(name, f"timestamp('2026-01-01T00:00:00Z').{name}()"))


def test_only_what_is_named_is_read() -> None:
    """The rest of an event may be as large and odd as it likes; it is not even looked at."""

    class Guarded(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            assert key in ("user", "orders_30d")
            return super().__getitem__(key)

    env = Guarded(user=Guarded(orders_30d=1, traits=object()), event={"properties": ["x"] * 10**6})
    expression = expressions.compile("user.orders_30d < 5")
    assert expression.paths == (("user", "orders_30d"),)
    assert expression.test(env) == (True, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("event.properties.x.exists(a, a == 1)", [0] * 1_001),
        ("event.properties.x.exists(a, event.properties.x.exists(b, a + b == 1))", [0] * 101),
        ("event.properties.x == 'a'", "a" * 5_000),
        ("event.properties.x == {}", {str(number): 1 for number in range(2_000)}),
    ],
)
def test_large_data_is_not_looked_at(text: str, value: object) -> None:
    """The work of one evaluation is bounded: a few thousand steps at most."""
    assert expressions.compile(text).test({"event": {"properties": {"x": value}}}) == (False, "too_large")


def test_the_decimal_form_keeps_indexes_whole() -> None:
    """When decimals are mixed in, whole numbers of calculations become decimals and those in brackets do not."""
    env = {"event": {"properties": {"list": [1.5, 2], "price": 2.5}}}
    assert expressions.compile("event.properties.list[1] * event.properties.price == 5").test(env) == (True, None)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TOKENS = [
    "user", "event", "campaign", "now", ".", "id", "traits", "orders_30d", "properties", "price", "==", "<", ">=", "&&",
    "||", "!", "(", ")", "[", "]", "{", "}", ",", ":", "?", "+", "-", "*", "/", "%", "in", "1", "2.5", "1u", "'a'", '"b"',
    "true", "null", "size(", ".size()", ".exists(x, ", "x", "has(", ".matches('a')", "timestamp(", "duration('1h')", " ",
]  # fmt: skip


def run(text: str, env: dict[str, Any]) -> None:
    try:
        expression = expressions.compile(text)
    except ExpressionError as error:
        found = error.problems
        assert found  # either outcome is right
        return
    holds, failure = expression.test(env)
    assert isinstance(holds, bool)
    assert failure is None or not holds


@given(st.text(max_size=60), values)
def test_no_text_and_no_data_makes_an_exception_escape(text: str, value: object) -> None:
    """Any text is an expression or an ExpressionError, any data a truth value."""
    run(text, {"event": value, "user": value, "now": value})


@given(st.lists(st.sampled_from(TOKENS), max_size=14).map(" ".join), values)
def test_no_sequence_of_tokens_makes_an_exception_escape(text: str, value: object) -> None:
    """The same for what looks like CEL."""
    run(text, {"event": {"properties": {"price": value}}, "user": {"orders_30d": value, "id": value}, "now": value})


@given(values)
def test_no_value_makes_an_exception_escape(value: object) -> None:
    """The same for good expressions and any value where they look."""
    env = {"event": {"properties": value, "context": value}, "user": {"traits": value, "orders_30d": value}}
    for text in (
        "event.properties.price * 2 >= 20", "user.traits.age < 18", "event.properties.exists(p, p == 'x')",
        "user.orders_30d < 5", "has(event.context.a.b)", "event.properties == user.traits",
    ):  # fmt: skip
        run(text, env)


@given(st.lists(st.sampled_from(TOKENS), max_size=14).map(" ".join))
def test_the_parser_agrees_with_the_library(text: str) -> None:
    """What our parser takes, the library takes as well: nothing is admitted that cannot run."""
    try:
        cel_syntax.parse(text)
    except cel_syntax.CelSyntaxError:
        return
    try:
        cel.compile(text)
    except ValueError as error:
        pytest.fail(f"{text!r}: {error}")


def test_deep_chains_stay_within_the_stack() -> None:
    """The longest sums, negations and selections that are admitted evaluate."""
    assert expressions.compile("1" + "+1" * 140 + " > 0").test({}) == (True, None)
    assert expressions.compile("!" * 40 + "true").test({}) == (True, None)
    deep = "event.properties" + ".a" * 140 + " == 1"
    assert expressions.compile(deep).test({"event": {"properties": {}}}) == (False, "missing")


@pytest.mark.parametrize("text", ["1" + "+1" * 900 + " > 0", "event.properties" + ".a" * 900, "!" * 1_900 + "true"])
def test_deeper_ones_are_refused(text: str) -> None:
    """What could exhaust the stack never gets to the library."""
    with pytest.raises(ExpressionError, match="more than"):
        expressions.compile(text)


def test_names_of_the_documentation_are_known() -> None:
    """Counts, propensities, features and traits by their documented names."""
    for what in ("orders", "revenue", "sends", "opens", "clicks"):
        for span in ("1d", "7d", "30d", "total"):
            assert names.find(("user", f"{what}_{span}")) in ("int", "double")
    for action in ("open", "click", "convert", "unsubscribe"):
        assert names.find(("user", "propensity", action)) == "double"
    for feature in vector.NAMES:
        assert names.find(("user", "features", feature)) == "double"
    assert isinstance(names.find(("user", "features", "anything")), names.Unknown)
    assert names.find(("now",)) == "timestamp"
