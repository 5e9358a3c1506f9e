"""Texts in Liquid: compiled and checked once, rendered often, and kept within the guardrails."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from liquid.ast import Node
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions import Filter, FilteredExpression, Path
from liquid.builtin.output import OutputNode
from liquid.context import RenderContext
from liquid.exceptions import LiquidError, LiquidSyntaxError, ResourceLimitError, UndefinedError

from decisioning import guardrails, names
from decisioning.findings import closest
from decisioning.liquid_setup import ENVIRONMENT, HTML_ENVIRONMENT, NO_TAGS, fits
from decisioning.markup import MarkupError, to_html
from decisioning.names import Unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from liquid import BoundTemplate, Environment
    from liquid.expression import Expression

Kind = Literal["line", "text", "html", "mjml"]
"""What a template becomes: one line, plain text of several, HTML, or HTML by way of MJML."""

MAX_CHARACTERS: Final[dict[Kind, int]] = {"line": 20_000, "text": 20_000, "html": 100_000, "mjml": 100_000}
MAX_UNCLOSED = 20  # beyond it, looking for each one's end in the whole rest would take too long
MAX_VERBATIM = 200  # likewise
_VERBATIM = re.compile(r"\{%-?\s*(?:raw|comment|doc|#)")
_CLOSE = "close every {{ with }} and every {% if %} with {% endif %}"
BUILTIN_FIELDS = ("size", "first", "last")  # Liquid's own, of any text or list
MAY_BE_ABSENT = (
    *names.TRAITS,
    "traits",
    "features",
    "propensity",
)  # of user; an event has what its campaign asks for
_LINE_BREAKS = dict.fromkeys([*range(32), *range(127, 160), 0x2028, 0x2029], " ")
_TAG = re.compile(r"<[a-zA-Z](?:[^\"'>]+|\"[^\"]*\"|'[^']*')*(?:>|.*)", re.DOTALL)
_BARE_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|(=\s*\{\{)")
_SCRIPT = re.compile(r"<script\b(?:.*?</script|.*)", re.DOTALL | re.IGNORECASE)
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


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled text. Make it with `compile`.

    Attributes
    ----------
    text, kind
        The source, and what it becomes.
    """

    text: str
    kind: Kind
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
        return clean(made, one_line=self.kind == "line")

    @property
    def is_html(self) -> bool:
        """Whether what is rendered is HTML, with every value escaped."""
        return self.kind in ("html", "mjml")


def kind_of(slot: str, text: str) -> Kind:
    """What the text of a slot becomes: one line, unless its author wrote several and it is no subject.

    So no value can ever add a line to what may become a header.
    """
    return "line" if slot == "subject" or "\n" not in text.strip() else "text"


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
def compile(text: str, kind: Kind = "line") -> Template:  # noqa: A001  # as re.compile
    """Compile and check a template.

    Parameters
    ----------
    text
        Liquid over `event`, `user`, `campaign` and `now`, of at most 20,000 characters, HTML and MJML of 100,000.
    kind
        What it becomes. A `line` has no line break and no control character, lest it start another header; in `html`
        and `mjml` values are escaped.

    Raises
    ------
    ContentError
        The first problem, with its place in the template.

    Examples
    --------
    >>> compile("Hi {{ user.first_name | default: 'there' }}").render({"user": {}})
    'Hi there'
    >>> compile("<p>{{ user.first_name }}</p>", "html").render({"user": {"first_name": "<Ann>"}})
    '<p>&lt;Ann&gt;</p>'
    """
    found = problems(text, kind)
    if found:
        raise found[0]
    source = to_html(text) if kind == "mjml" else text
    bound = _environment(kind).from_string(source) if _has_liquid(source) else None
    return Template(text, kind, bound, clean(source, one_line=kind == "line"))


@lru_cache(maxsize=4_096)
def problems(text: str, kind: Kind = "line") -> tuple[ContentError, ...]:
    """Everything that can be known to be wrong with a template: syntax, unknown names, filters, arguments, markup."""
    longest = MAX_CHARACTERS[kind]
    if len(text) > longest:
        return (ContentError(1, 1, f"expected at most {longest} characters", "shorten it"),)
    found = _liquid_problems(text, kind)
    if found:
        return found
    if kind in ("html", "mjml") and (found := _unescapable(text)):
        return found
    if kind == "mjml":
        try:
            made = to_html(text)
        except MarkupError as error:
            return (_at(text, error.index, f"expected MJML: {error}", error.remedy),)
        return tuple(  # what only the compiled form has, such as a tag in the wrong place
            ContentError(1, 1, f"compiled MJML: {problem.message}", "put Liquid tags around whole elements")
            for problem in _liquid_problems(made, "html")[:1]
        )
    return ()


def _unescapable(text: str) -> tuple[ContentError, ...]:
    """Places in HTML where escaping a value would not keep it a value."""
    for tag in _TAG.finditer(text):
        for match in _BARE_VALUE.finditer(tag[0]):
            if match[1] is not None:
                message = "a value as an attribute needs quotes around it"
                return (_at(text, tag.start() + match.end() - 2, message, 'write ="{{ … }}"'),)
    for script in _SCRIPT.finditer(text):
        if "{{" in script[0]:
            index = script.start() + script[0].index("{{")
            return (_at(text, index, "a value within <script> cannot be escaped", "remove the script"),)
    return ()


def _liquid_problems(text: str, kind: Kind) -> tuple[ContentError, ...]:
    if not _has_liquid(text):
        return ()
    for opening, closing in (("{{", "}}"), ("{%", "%}")):
        start = text.rfind(closing) + 1
        if text.count(opening, start) > MAX_UNCLOSED:
            return (_at(text, text.index(opening, start), f"expected Liquid: {opening} is not closed", _CLOSE),)
    if len(_VERBATIM.findall(text)) > MAX_VERBATIM:
        return (ContentError(1, 1, f"expected at most {MAX_VERBATIM} raw and comment tags", "simplify it"),)
    try:
        template = _environment(kind).from_string(text)
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


def _has_liquid(text: str) -> bool:
    return "{{" in text or "{%" in text


def _environment(kind: Kind) -> Environment:
    return HTML_ENVIRONMENT if kind in ("html", "mjml") else ENVIRONMENT


def absent(text: str, kind: Kind = "line") -> tuple[str, ...]:
    """Paths that a template writes without a default though the person may not have them, in order of appearance.

    A path that some tag tests (`{% if user.first_name %}`) is taken to be looked after.
    """
    if not _has_liquid(text) or problems(text, kind):
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


def fixed_parts(text: str, kind: Kind = "line") -> tuple[str, ...]:
    """What is certain to be seen of a template whatever the data, in order; of HTML without its tags."""
    if problems(text, kind):
        return ()
    source = to_html(text) if kind == "mjml" else text
    parts: tuple[str, ...] = (source,)
    if _has_liquid(source):
        nodes = _nodes(_environment(kind).from_string(source).nodes)
        parts = tuple(node.text for node in nodes if isinstance(node, ContentNode))
    return guardrails.fixed_parts(parts, is_html=kind in ("html", "mjml"))


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
    remedy = _CLOSE if isinstance(error, LiquidSyntaxError) else "correct it"
    return _at(text, index, f"expected Liquid: {message}", remedy)


def _at(text: str, index: int, message: str, remedy: str) -> ContentError:
    before = text[: max(index, 0)]
    return ContentError(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1, message, remedy)
