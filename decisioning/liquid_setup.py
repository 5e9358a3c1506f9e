"""The Liquid environment of all texts: no files, no clock, bounded work, absent values rather than empty ones."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, TextIO

import liquid
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.echo_tag import EchoNode, EchoTag
from liquid.exceptions import LiquidTypeError, ResourceLimitError
from liquid.filter import with_context
from liquid.undefined import UNDEFINED, FalsyStrictUndefined
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from liquid.context import RenderContext

MAX_OUTPUT_BYTES = 100_000
MAX_ITERATIONS = 1_000
MAX_LOCALS_BYTES = 200_000
MAX_VALUE_CHARACTERS = 4_096
MAX_FILTERED_CHARACTERS = 100_000
MAX_DIGITS_VALUE = 10**30
MAX_WORK = 50_000
"""Nodes rendered plus hundreds of characters filtered, in one rendering: some 50 ms at worst. There is no time limit
beside it: a clock would decide otherwise in a replay, a count never does."""
CHARACTERS_PER_WORK = 100
NO_TAGS = ("include", "render")  # there are no other files


class Absent(FalsyStrictUndefined):
    """A value that is not there: `default` replaces it, `if` takes it as false, writing it out is an error."""

    force_liquid_default = True

    def __eq__(self, other: object) -> bool:
        return other is None or other is False or isinstance(other, Absent)

    __hash__ = None  # type: ignore[assignment]  # as every class whose equality is its own


class _Context(liquid.RenderContext):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._work = 0
        super().__init__(*args, **kwargs)

    def spend(self, work: int) -> None:
        """Count work. Raises ResourceLimitError beyond what a rendering may do."""
        self._work += work
        if self._work > MAX_WORK:
            raise ResourceLimitError("rendering takes too much work", token=None)

    @property  # every node asks for it before it renders: where all of them can be counted
    def disabled_tags(self) -> list[str]:
        """Tags that are not allowed here: none, those we do not have are not in the environment."""
        self.spend(1)
        return []

    @disabled_tags.setter
    def disabled_tags(self, tags: list[str]) -> None:
        assert not tags

    def get(self, path: list[object], *, token: Any, default: object = UNDEFINED) -> object:
        """Look a path up; null counts as absent, and no single text is longer than a template may handle."""
        found = super().get(path, token=token, default=default)
        if found is None:
            return Absent(str(path[0]), token=token, hint=f"{'.'.join(map(str, path))} is null")
        if isinstance(found, str) and len(found) > MAX_VALUE_CHARACTERS:
            raise ResourceLimitError(f"a value has more than {MAX_VALUE_CHARACTERS} characters", token=token)
        return found


class _Bound(liquid.BoundTemplate):
    context_class = _Context


def _written(value: object) -> str:
    """Text of a value, as `{{ … }}` writes it. Raises LiquidTypeError for what has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        # Parts that are HTML already stay so, the others are escaped by joining them with these.
        marked = any(isinstance(item, Markup) for item in value)
        return (Markup() if marked else "").join(_written(item) for item in value)
    if isinstance(value, Mapping) and not isinstance(value, Absent):
        raise LiquidTypeError("an object has no text", token=None)
    return "" if value is None else str(value)


def _write(value: object, context: RenderContext, buffer: TextIO) -> int:
    text = _written(value)
    return buffer.write(escape(text) if context.autoescape else text)


class _WrittenNode(OutputNode):
    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        return _write(self.expression.evaluate(context), context, buffer)


class _EchoNode(EchoNode):
    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        return _write(self.expression.evaluate(context), context, buffer)


class _Output(Output):
    node_class = _WrittenNode


class _Echo(EchoTag):
    node_class = _EchoNode


class _Environment(liquid.Environment):
    template_class = _Bound
    loop_iteration_limit = MAX_ITERATIONS
    output_stream_limit = MAX_OUTPUT_BYTES
    local_namespace_limit = MAX_LOCALS_BYTES
    block_nesting_limit = 20
    suppress_blank_control_flow_blocks = False


@with_context
def _date(value: object, form: object = "%Y-%m-%d", *, context: RenderContext) -> str:
    """Write a time by strftime; "now" is the time of the decision, numbers are seconds since 1970 in UTC.

    Unlike Liquid's own filter it reads no clock, and what is no time is an error rather than echoed.
    """
    if isinstance(value, str) and value in ("now", "today"):
        value = context.resolve("now")
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = datetime.fromtimestamp(value, UTC)
    if not isinstance(value, date) or not isinstance(form, str):
        raise LiquidTypeError("date needs a time and a format", token=None)
    return value.strftime(form)


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter pass on what is absent, and keep it from making much of little."""
    wants_context = getattr(function, "with_context", False)

    @wraps(function)
    def bounded(value: Any, *args: Any, context: _Context, **kwargs: Any) -> Any:
        if isinstance(value, Absent) and name != "default":
            return value
        operands = (value, *args)
        for operand in operands:
            if isinstance(operand, range) and len(operand) > MAX_ITERATIONS:
                raise ResourceLimitError("a range is too long", token=None)
            if isinstance(operand, int) and abs(operand) > MAX_DIGITS_VALUE:
                raise ResourceLimitError("a number is too large", token=None)
        size = math.prod(1 + len(operand) for operand in operands if isinstance(operand, str | list | tuple))
        if size > 10 * MAX_FILTERED_CHARACTERS:
            raise ResourceLimitError(f"{name} would make too long a text", token=None)
        context.spend(1 + size // CHARACTERS_PER_WORK)
        if wants_context:
            kwargs["context"] = context
        made = function(value, *args, **kwargs)
        if isinstance(made, str) and len(made) > MAX_FILTERED_CHARACTERS:
            raise ResourceLimitError(f"{name} made too long a text", token=None)
        return made

    return with_context(bounded)


def _make(*, is_html: bool) -> liquid.Environment:
    environment = _Environment(undefined=Absent, autoescape=is_html)
    environment.add_tag(_Output)
    environment.add_tag(_Echo)
    for tag in NO_TAGS:
        del environment.tags[tag]
    del environment.filters["safe"]  # would let a value be HTML
    environment.add_filter("date", _date)
    for name, function in list(environment.filters.items()):
        environment.filters[name] = _bounded(name, function)
    return environment


ENVIRONMENT = _make(is_html=False)
HTML_ENVIRONMENT = _make(is_html=True)
"""Values are escaped as they are written; what the author wrote is HTML."""


def fits(filter_name: str, arguments: int, keywords: list[str]) -> bool:
    """Whether a filter takes so many arguments, and these by name."""
    function = ENVIRONMENT.filters[filter_name].__wrapped__  # type: ignore[attr-defined]  # as `_bounded` found it
    given: dict[str, Any] = dict.fromkeys(keywords)
    for injected in ("context", "environment"):
        if getattr(function, f"with_{injected}", False):
            given[injected] = None
    try:
        inspect.signature(function).bind(None, *[None] * arguments, **given)
    except TypeError:
        return False
    return True
