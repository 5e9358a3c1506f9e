"""Common Expression Language: text -> syntax tree with positions.

The evaluating library shows no tree, and without one neither unknown names nor types can be checked. The grammar is
that of the language definition (cel-spec, langdef.md, "Syntax"), without message construction and optional syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_DEPTH = 40  # of brackets and signs
MAX_HEIGHT = 150  # of the tree, where a + b + c is three high; whoever walks it recurses
# Name -> number of arguments; the second form of map has one more, a condition.
MACROS = {"all": 2, "exists": 2, "exists_one": 2, "filter": 2, "map": 2}

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n\f]+|//[^\n]*)
  | (?P<string>(?:[rR][bB]?|[bB][rR]?)?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
                                        |\"(?:\\.|[^\\\"\n])*\"|'(?:\\.|[^\\'\n])*'))
  | (?P<double>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
  | (?P<int>(?:0x[0-9a-fA-F]+|\d+)[uU]?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>&&|\|\||[=!<>]=|[-+*/%!<>?:.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "/", "%"),
)


class CelSyntaxError(ValueError):
    """Text that is not an expression; `at` is the offset of the offending character."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the tree.

    Attributes
    ----------
    kind
        int, double, string, bytes, bool, null (literals), name, select, has, index, call, macro, list, map, unary,
        binary, ternary.
    at, end
        Offsets of its text.
    value
        Text of a literal or name, the field, function or operator.
    children
        Operands; of a call on a value the value comes first, and `value` begins with a dot.
    height
        1 for a leaf, else one more than the highest child.
    """

    kind: str
    at: int
    end: int
    value: str = ""
    children: tuple[Node, ...] = ()
    height: int = 1


def parse(text: str) -> Node:
    """Parse an expression.

    Raises
    ------
    CelSyntaxError
        With the offset of what is wrong.
    """
    return _Parser(text).parse()


def _node(kind: str, at: int, end: int, value: str, children: tuple[Node, ...] = ()) -> Node:
    height = 1 + max((child.height for child in children), default=0)
    if height > MAX_HEIGHT:
        raise CelSyntaxError(f"more than {MAX_HEIGHT} operations on one another", at)
    return Node(kind, at, end, value, children, height)


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise CelSyntaxError(f"unexpected {text[at]!r}", at)
            if match.lastgroup != "space":
                self.tokens.append((str(match.lastgroup), match[0], at))
            at = match.end()
        self.tokens.append(("end", "", at))
        self.next = 0
        self.depth = 0

    def parse(self) -> Node:
        node = self._expression()
        if self._kind() != "end":
            raise CelSyntaxError(f"unexpected {self._word()!r}", self._at())
        return node

    def _kind(self) -> str:
        return self.tokens[self.next][0]

    def _word(self) -> str:
        return self.tokens[self.next][1]

    def _at(self) -> int:
        return self.tokens[self.next][2]

    def _end(self) -> int:
        _, word, at = self.tokens[self.next - 1]
        return at + len(word)

    def _is(self, *words: str) -> bool:
        return self._kind() in ("sign", "name") and self._word() in words

    def _take(self) -> str:
        self.next += 1
        return self.tokens[self.next - 1][1]

    def _accept(self, word: str) -> bool:
        if self._is(word):
            self.next += 1
            return True
        return False

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            raise CelSyntaxError(f"expected {word!r} before {self._word() or 'the end'!r}", self._at())

    def _expression(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise CelSyntaxError(f"more than {MAX_DEPTH} levels of brackets", self._at())
        node = self._binary(0)
        if self._accept("?"):
            yes = self._binary(0)
            self._expect(":")
            no = self._expression()
            node = _node("ternary", node.at, no.end, "?", (node, yes, no))
        self.depth -= 1
        return node

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        node = self._binary(level + 1)
        while self._is(*_LEVELS[level]):
            operator = self._take()
            right = self._binary(level + 1)
            node = _node("binary", node.at, right.end, operator, (node, right))
        return node

    def _unary(self) -> Node:
        at = self._at()
        signs = []
        while self._is("!", "-"):
            signs.append((self._at(), self._take()))
        if len(signs) > MAX_DEPTH:
            raise CelSyntaxError(f"more than {MAX_DEPTH} signs", at)
        node = self._member()
        for sign_at, sign in reversed(signs):
            node = _node("unary", sign_at, node.end, sign, (node,))
        return node

    def _member(self) -> Node:
        node = self._primary()
        while True:
            if self._accept("."):
                if self._kind() != "name":
                    raise CelSyntaxError("expected a name after the dot", self._at())
                name = self._take()
                node = (
                    self._method(node, name) if self._is("(") else _node("select", node.at, self._end(), name, (node,))
                )
            elif self._accept("["):
                key = self._expression()
                self._expect("]")
                node = _node("index", node.at, self._end(), "[]", (node, key))
            else:
                return node

    def _method(self, target: Node, name: str) -> Node:
        arguments = self._arguments("(", ")")
        count = len(arguments)
        if name in MACROS and (count == MACROS[name] or (name == "map" and count == MACROS[name] + 1)):
            if arguments[0].kind != "name":
                raise CelSyntaxError(f"{name} needs a variable first, as in list.{name}(x, …)", arguments[0].at)
            return _node("macro", target.at, self._end(), name, (target, *arguments))
        return _node("call", target.at, self._end(), "." + name, (target, *arguments))

    def _arguments(self, opening: str, closing: str) -> tuple[Node, ...]:
        self._expect(opening)
        found: list[Node] = []
        while not self._accept(closing):
            if found:
                self._expect(",")
                if closing == "]" and self._accept(closing):
                    break
            found.append(self._expression())
        return tuple(found)

    def _primary(self) -> Node:
        kind, word, at = self.tokens[self.next]
        if kind == "name":
            return self._name(at)
        if kind in ("int", "double"):
            self._take()
            return _node(kind, at, self._end(), word)
        if kind == "string":
            self._take()
            prefix = word[: min(word.find(quote) for quote in "\"'" if quote in word)]
            return _node("bytes" if "b" in prefix.lower() else "string", at, self._end(), word)
        if self._accept("("):
            node = self._expression()
            self._expect(")")
            return node
        if word == "[":
            items = self._arguments("[", "]")
            return _node("list", at, self._end(), "[]", items)
        if word == "{":
            return self._map(at)
        raise CelSyntaxError(f"unexpected {word!r}" if word else "the expression ends too early", at)

    def _map(self, at: int) -> Node:
        self._expect("{")
        children: list[Node] = []
        while not self._accept("}"):
            if children:
                self._expect(",")
                if self._accept("}"):
                    break
            children.append(self._expression())
            self._expect(":")
            children.append(self._expression())
        return _node("map", at, self._end(), "{}", tuple(children))

    def _name(self, at: int) -> Node:
        word = self._take()
        if word in ("true", "false"):
            return _node("bool", at, self._end(), word)
        if word == "null":
            return _node("null", at, self._end(), word)
        if word == "in":
            raise CelSyntaxError("unexpected 'in'", at)
        if not self._is("("):
            return _node("name", at, self._end(), word)
        arguments = self._arguments("(", ")")
        if word == "has":
            if len(arguments) != 1 or arguments[0].kind != "select":
                raise CelSyntaxError("has() takes one field, as in has(user.traits.age)", at)
            return _node("has", at, self._end(), word, arguments)
        return _node("call", at, self._end(), word, arguments)
