"""Texts in Liquid: compiled and checked once, rendered often, and kept within the guardrails."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from liquid.ast import Node
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import Filter, FilteredExpression, Path
from liquid.builtin.output import OutputNode
from liquid.context import RenderContext
from liquid.exceptions import LiquidError, LiquidSyntaxError, ResourceLimitError, UndefinedError

from decisioning import names
from decisioning.findings import closest
from decisioning.liquid_setup import ENVIRONMENT, NO_TAGS, fits
from decisioning.names import Unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from liquid import BoundTemplate
    from liquid.expression import Expression

MAX_CHARACTERS = 20_000
BUILTIN_FIELDS = ("size", "first", "last")  # Liquid's own, of any text or list
MAY_BE_ABSENT = (
    *names.TRAITS,
    "traits",
    "features",
    "propensity",
)  # of user; an event has what its campaign asks for
_LINE_BREAKS = dict.fromkeys([*range(32), *range(127, 160), 0x2028, 0x2029], " ")
_CONTROLS = {code: None for code in _LINE_BREAKS if chr(code) not in "\n\t"} | {
    0x2028: "\n",
    0x2029: "\n",
    0x85: "\n",
}


class ContentError(ValueError):
    """A template that cannot be used.

    Attributes
    ----------
    line, column
        Where in the template, from 1.
    message, remedy
        What is wrong and what to do.
    """

    def __init__(self, line: int, column: int, message: str, remedy: str) -> None:
        super().__init__(f"{line}:{column}: {message}; {remedy}")
        self.line = line
        self.column = column
        self.message = message
        self.remedy = remedy


class RenderError(Exception):
    """A text that cannot be made from this data.

    Attributes
    ----------
    reason
        A word that can label a metric: missing, mistyped or too_large.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Guardrails(Protocol):
    """What no rendered text may hold (`config.Guardrails` is one)."""

    @property
    def banned(self) -> tuple[str, ...]:
        """Words or phrases, as they were written."""

    @property
    def max_length(self) -> dict[str, int]:
        """Slot -> greatest number of characters."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Guardrails on their own, without a configuration."""

    banned: tuple[str, ...]
    max_length: dict[str, int]


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled text. Make it with `compile`.

    Attributes
    ----------
    text
        The source.
    one_line
        Whether line breaks and control characters become spaces.
    """

    text: str
    one_line: bool
    _bound: BoundTemplate | None  # None: there is nothing to fill in
    _constant: str

    def render(self, env: Mapping[str, Any]) -> str:
        """Fill the text in.

        Parameters
        ----------
        env
            Values of `event`, `user`, `campaign` and `now`.

        Raises
        ------
        RenderError
            A value is absent and has no default, cannot be used that way, or is too large. The message names the path,
            never the value.
        """
        if self._bound is None:
            return self._constant
        try:
            made = self._bound.render(env)
        except UndefinedError as error:
            raise RenderError("missing", str(error.message)) from error
        except ResourceLimitError as error:
            raise RenderError("too_large", str(error.message)) from error
        except RecursionError as error:
            raise RenderError("too_large", "too deeply nested") from error
        except Exception as error:  # whatever a filter does with odd data makes the text unusable, no more
            raise RenderError("mistyped", f"a filter or tag cannot use its value ({type(error).__name__})") from error
        return clean(made, one_line=self.one_line)


def clean(text: str, *, one_line: bool) -> str:
    r"""Remove control characters; in one line, whatever could begin another becomes a space.

    Examples
    --------
    >>> clean("Hello\r\nBcc: all@example.com", one_line=True)
    'Hello Bcc: all@example.com'
    """
    if text.isprintable():
        return text.strip() if one_line else text
    if one_line:
        return " ".join(text.translate(_LINE_BREAKS).split())
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)


@lru_cache(maxsize=4_096)
def compile(text: str, one_line: bool = True) -> Template:  # noqa: A001, FBT001, FBT002  # as re.compile
    """Compile and check a template.

    Parameters
    ----------
    text
        Liquid over `event`, `user`, `campaign` and `now`, of at most 20,000 characters.
    one_line
        Whether the result is one line, as a subject must be lest it start another header.

    Raises
    ------
    ContentError
        The first problem, with its place in the template.

    Examples
    --------
    >>> compile("Hi {{ user.first_name | default: 'there' }}").render({"user": {}})
    'Hi there'
    """
    found = problems(text)
    if found:
        raise found[0]
    bound = ENVIRONMENT.from_string(text) if "{{" in text or "{%" in text else None
    return Template(text, one_line, bound, clean(text, one_line=one_line))


@lru_cache(maxsize=4_096)
def problems(text: str) -> tuple[ContentError, ...]:
    """Everything that can be known to be wrong with a template: syntax, unknown names, filters and arguments."""
    if len(text) > MAX_CHARACTERS:
        return (ContentError(1, 1, f"expected at most {MAX_CHARACTERS} characters", "shorten it"),)
    if "{{" not in text and "{%" not in text:
        return ()
    try:
        template = ENVIRONMENT.from_string(text)
        analysis = template.analyze(include_partials=False)
    except LiquidError as error:
        return (_syntax(text, error),)
    except Exception as error:  # noqa: BLE001  # no text may end `check` with a stack trace
        return (ContentError(1, 1, f"expected Liquid ({type(error).__name__})", "simplify it"),)
    found = [
        _at(text, variable.span.index, f'unknown name "{unknown.path}"', unknown.remedy)
        for variables in analysis.globals.values()
        for variable in variables
        if (unknown := _unknown(variable.segments)) is not None
    ]
    for _, filter_ in _filters(template):
        start = filter_.token.start_index
        if filter_.name not in ENVIRONMENT.filters:
            likely = closest(filter_.name, ENVIRONMENT.filters)
            found.append(
                _at(
                    text,
                    start,
                    f'unknown filter "{filter_.name}"',
                    f'try "{likely}"' if likely else "remove it",
                )
            )
            continue
        keywords = [str(argument.name) for argument in filter_.args if hasattr(argument, "name")]
        if not fits(filter_.name, len(filter_.args) - len(keywords), keywords):
            found.append(_at(text, start, f'wrong arguments of filter "{filter_.name}"', "see Liquid's documentation"))
    return tuple(sorted(found, key=lambda error: (error.line, error.column, error.message)))


def absent(text: str) -> tuple[str, ...]:
    """Paths that a template writes without a default though the person may not have them, in order of appearance.

    A path that some tag tests (`{% if user.first_name %}`) is taken to be looked after.
    """
    if ("{{" not in text and "{%" not in text) or problems(text):
        return ()
    written: dict[str, None] = {}
    tested: set[str] = set()
    for node in _nodes(ENVIRONMENT.from_string(text).nodes):
        for expression in node.expressions():
            if not isinstance(node, OutputNode):
                tested.update(str(path) for path in _walk(expression) if isinstance(path, Path))
            elif isinstance(expression, FilteredExpression) and isinstance(expression.left, Path):
                has_default = any(filter_.name == "default" for filter_ in expression.filters or ())
                parts = expression.left.path
                if not has_default and parts[0] == "user" and len(parts) > 1 and parts[1] in MAY_BE_ABSENT:
                    written[str(expression.left)] = None
    return tuple(path for path in written if path not in tested)


def literals(text: str) -> tuple[str, ...]:
    """Fixed parts of a template, whatever the data."""
    if problems(text):
        return ()
    if "{{" not in text and "{%" not in text:
        return (text,)
    return tuple(node.text for node in _nodes(ENVIRONMENT.from_string(text).nodes) if isinstance(node, ContentNode))


def breaks_guardrail(slot: str, text: str, guardrails: Guardrails) -> str | None:
    """Say which guardrail a rendered text breaks, or None.

    Parameters
    ----------
    slot
        Name of the slot, for its greatest length in characters.
    text
        As it would be sent. Banned words are whole words in any case; compatibility forms and invisible characters
        within them make no difference.
    """
    if guardrails.banned:
        match = _banned(guardrails.banned).search(_folded(text))
        if match is not None:
            return f"banned:{match[0]}"
    longest = guardrails.max_length.get(slot)
    return "too_long" if longest is not None and len(text) > longest else None


@lru_cache(maxsize=64)
def _banned(words: tuple[str, ...]) -> re.Pattern[str]:
    patterns = (r"\s+".join(map(re.escape, _folded(word).split())) for word in words)
    return re.compile(rf"(?<!\w)(?:{'|'.join(pattern for pattern in patterns if pattern) or '(?!)'})(?!\w)")


def _folded(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return text.casefold()


def _unknown(segments: list[Any]) -> Unknown | None:
    path: list[str] = []
    for segment in segments:
        if not isinstance(segment, str):
            break
        path.append(segment)
    while len(path) > 1 and path[-1] in BUILTIN_FIELDS and isinstance(names.find(tuple(path)), Unknown):
        path.pop()
    found = names.find(tuple(path))
    return found if isinstance(found, Unknown) else None


def _nodes(nodes: list[Node]) -> Iterator[Node]:
    """All nodes of a template, in order."""
    context = RenderContext(ENVIRONMENT.from_string(""))
    for node in nodes:
        yield node
        yield from _nodes(list(node.children(context, include_partials=False)))


def _walk(expression: Expression) -> Iterator[Expression]:
    yield expression
    for child in expression.children():
        yield from _walk(child)


def _filters(template: BoundTemplate) -> Iterator[tuple[FilteredExpression, Filter]]:
    for node in _nodes(template.nodes):
        for root in node.expressions():
            for expression in _walk(root):
                if isinstance(expression, FilteredExpression):
                    for filter_ in expression.filters or ():
                        yield expression, filter_


def _syntax(text: str, error: LiquidError) -> ContentError:
    index = error.token.start_index if error.token is not None else 0
    message = str(error.message)
    for tag in NO_TAGS:
        if tag in message:
            return _at(text, index, f"there are no other files to {tag}", "write the text here")
    remedy = (
        "close every {{ with }} and every {% if %} with {% endif %}"
        if isinstance(error, LiquidSyntaxError)
        else "correct it"
    )
    return _at(text, index, f"expected Liquid: {message}", remedy)


def _at(text: str, index: int, message: str, remedy: str) -> ContentError:
    before = text[: max(index, 0)]
    return ContentError(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1, message, remedy)
