"""Conditions in Common Expression Language: checked once, then evaluated without ever raising."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

import cel

from decisioning import cel_syntax, cel_types
from decisioning.cel_syntax import Node
from decisioning.cel_types import Problem

Failure = Literal["missing", "mistyped", "too_large", "not_boolean", "failed"]
Env = Mapping[str, Any]

MAX_CHARACTERS = 2_000
MAX_ITEMS = 1_000  # per list or object that one evaluation sees
MAX_ITEMS_NESTED = 100  # the same where one loop runs inside another
MAX_STRING_CHARACTERS = 4_096
MAX_LEVELS = 20


class ExpressionError(ValueError):
    """An expression that cannot be used; `problems` says what is wrong, where and what to do."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{problem.expected}; {problem.remedy}" for problem in problems))
        self.problems = problems


class Expression:
    """A compiled condition. Make it with `compile`.

    Attributes
    ----------
    text
        The source.
    paths
        What it reads: `("user", "orders_30d")`. Everything below a path may be looked at, nothing beside it.
    """

    __slots__ = ("_decimal", "_max_items", "_program", "paths", "text")

    def __init__(self, text: str, tree: Node) -> None:
        self.text = text
        self.paths = _outermost(set(_paths(tree, frozenset())))
        self._program = cel.compile(text)
        self._max_items = MAX_ITEMS if _loops(tree) <= 1 else MAX_ITEMS_NESTED
        decimal = _as_decimal(text, tree)
        self._decimal = None if decimal is None else cel.compile(decimal)

    def test(self, env: Env) -> tuple[bool, Failure | None]:
        """Evaluate.

        Parameters
        ----------
        env
            Values of `event`, `user`, `campaign` and `now`; only what `paths` names is read.

        Returns
        -------
        bool
            Whether it holds. Where data is missing or of the wrong type it does not.
        str or None
            Why it could not be evaluated: a word that can label a metric.
        """
        result, failure = self._run(self._program, env, decimal=False)
        if failure == "mistyped" and self._decimal is not None:
            # CEL does not multiply 2 by 1.5; whoever writes `price * 2` means it
            result, failure = self._run(self._decimal, env, decimal=True)
        if failure is not None:
            return False, failure
        return (result, None) if isinstance(result, bool) else (False, "not_boolean")

    def _run(self, program: cel.Program, env: Env, *, decimal: bool) -> tuple[Any, Failure | None]:
        try:
            return program.execute(self._narrow(env, decimal=decimal)), None
        except (KeyError, IndexError):
            return None, "missing"
        except TypeError:
            return None, "mistyped"
        except _TooLargeError:
            return None, "too_large"
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001  # a panic of the library is none of Exception's children
            unknown = isinstance(error, RuntimeError) and "Undefined variable" in str(error)
            return None, "missing" if unknown else "failed"

    def _narrow(self, env: Env, *, decimal: bool) -> dict[str, Any]:
        """Copy what the expression reads, so that the cost does not depend on the size of the event or profile."""
        narrow: dict[str, Any] = {}
        for path in self.paths:
            source: Any = env
            target = narrow
            for part in path[:-1]:
                source = _get(source, part)
                if not isinstance(source, Mapping):
                    if source is not _ABSENT:
                        target[part] = self._plain(source, 0, decimal=decimal)
                    break
                target = target.setdefault(part, {})
            else:
                value = _get(source, path[-1])
                if value is not _ABSENT:
                    target[path[-1]] = self._plain(value, 0, decimal=decimal)
        return narrow

    def _plain(self, value: Any, level: int, *, decimal: bool) -> Any:
        if value is None or isinstance(value, bool | float | datetime):
            return value
        if isinstance(value, int):
            return float(value) if decimal else value
        if isinstance(value, str):
            if len(value) > MAX_STRING_CHARACTERS:
                raise _TooLargeError
            return value
        if isinstance(value, Mapping):
            self._bound(len(value), level)
            return {str(key): self._plain(item, level + 1, decimal=decimal) for key, item in value.items()}
        if isinstance(value, list | tuple):
            self._bound(len(value), level)
            return [self._plain(item, level + 1, decimal=decimal) for item in value]
        raise TypeError(type(value).__name__)

    def _bound(self, count: int, level: int) -> None:
        if count > self._max_items or level >= MAX_LEVELS:
            raise _TooLargeError


class _TooLargeError(Exception):
    """Data larger than an expression may look at."""


_ABSENT = object()


@lru_cache(maxsize=4_096)
def compile(text: str) -> Expression:  # noqa: A001  # as re.compile
    """Compile and check a condition.

    Parameters
    ----------
    text
        CEL over `event`, `user`, `campaign` and `now`, of at most 2,000 characters.

    Returns
    -------
    Expression

    Raises
    ------
    ExpressionError
        Wrong syntax, unknown names and functions, types that cannot fit, a result that is not a boolean.

    Examples
    --------
    >>> compile("event.properties.price >= 20").test({"event": {"properties": {"price": 20.0}}})
    (True, None)
    >>> compile("user.traits.age < 18").test({"user": {"traits": {}}})
    (False, 'missing')
    """
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError((Problem(0, f"an expression of at most {MAX_CHARACTERS} characters", "shorten it"),))
    try:
        tree = cel_syntax.parse(text)
    except cel_syntax.CelSyntaxError as error:
        remedy = f"correct it at character {error.at + 1}"
        raise ExpressionError((Problem(error.at, f"expected CEL: {error}", remedy),)) from None
    problems = cel_types.problems(tree)
    if problems:
        raise ExpressionError(problems)
    try:
        return Expression(text, tree)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        said = str(error).partition("\n")[0].rpartition("Syntax error: ")[2][:120]
        raise ExpressionError((Problem(0, f"expected CEL: {said}", "correct it"),)) from error


def _get(source: Any, part: str) -> Any:
    try:
        return source[part]
    except (KeyError, TypeError, IndexError):
        return _ABSENT


def _paths(node: Node, bound: frozenset[str]) -> list[tuple[str, ...]]:
    """All paths that a tree reads, but for variables of its loops."""
    path = static_path(node)
    if path is not None:
        return [] if path[0] in bound else [path]
    if node.kind == "macro":
        inner = bound | {node.children[1].value}
        found = _paths(node.children[0], bound)
        return found + [path for child in node.children[2:] for path in _paths(child, inner)]
    return [path for child in node.children for path in _paths(child, bound)]


def static_path(node: Node) -> tuple[str, ...] | None:
    """Give `("user", "traits", "age")` for `user.traits.age` and `user.traits["age"]`; None for anything else."""
    if node.kind == "name":
        return (node.value,)
    if node.kind == "has":
        return static_path(node.children[0])
    if node.kind == "select":
        owner = static_path(node.children[0])
        return None if owner is None else (*owner, node.value)
    if (
        node.kind == "index"
        and node.children[1].kind == "string"
        and (name := cel_types.plain_string(node.children[1]))
    ):
        owner = static_path(node.children[0])
        return None if owner is None else (*owner, name)
    return None


def _outermost(paths: set[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(path for path in sorted(paths) if not any(path[:length] in paths for length in range(1, len(path))))


def _loops(node: Node) -> int:
    """How many loops run inside each other."""
    if node.kind == "macro":
        target, _, *body = node.children
        return max(_loops(target), 1 + max(map(_loops, body)))
    return max(map(_loops, node.children), default=0)


def _as_decimal(text: str, tree: Node) -> str | None:
    """Write an expression with all its whole numbers as doubles; None where nothing is calculated."""
    edits: list[tuple[int, str]] = []
    calculates = False

    def walk(node: Node) -> None:
        nonlocal calculates
        calculates = calculates or (node.kind == "binary" and node.value in cel_types.ARITHMETIC)
        if (node.kind == "int" and node.value[-1] not in "uU") or (node.kind == "call" and cel_types.is_whole(node)):
            edits.append((node.at, "double("))
            edits.append((node.end, ")"))
        for position, child in enumerate(node.children):
            if not (node.kind == "index" and position == 1):
                walk(child)

    walk(tree)
    if not calculates:
        return None
    for at, inserted in sorted(edits, key=lambda edit: edit[0], reverse=True):
        text = text[:at] + inserted + text[at:]
    return text
