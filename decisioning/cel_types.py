"""Types of CEL expressions as far as they can be known: unknown names, operands that cannot fit, other results."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import cel

from decisioning import cel_syntax, names
from decisioning.cel_syntax import Node
from decisioning.findings import closest
from decisioning.names import Fields, Type, Unknown

ARITHMETIC = ("+", "-", "*", "/", "%")
_NUMBERS = ("int", "double")
_GETTERS = {
    "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
    "getHours", "getMinutes", "getSeconds", "getMilliseconds",
}  # fmt: skip
_METHODS: dict[str, tuple[str, Type]] = {  # name -> what it is called on, what it gives
    **dict.fromkeys(("contains", "startsWith", "endsWith", "matches"), ("string", "bool")),
    **dict.fromkeys(_GETTERS, ("timestamp", "int")),
    "size": ("sized", "int"),
}
_FUNCTIONS: dict[str, Type] = {
    "size": "int",
    "int": "int",
    "double": "double",
    "string": "string",
    "bytes": "bytes",
    "timestamp": "timestamp",
    "duration": "duration",
}
MAX_LOOPS = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at an offset of an expression."""

    at: int
    expected: str
    remedy: str


def problems(tree: Node) -> tuple[Problem, ...]:
    """Everything that can be known to be wrong with an expression, in the order of its text."""
    checker = _Checker()
    result = checker.type_of(tree)
    if not checker.found and result not in ("bool", "dyn"):
        checker.say(tree, f"expected a condition, this is {_kind(result)}", "compare it with something, such as > 0")
    return tuple(sorted(set(checker.found), key=lambda problem: (problem.at, problem.expected)))


def plain_string(node: Node) -> str | None:
    """Content of a string literal without escapes; None where it has some."""
    text = node.value
    prefix = re.match(r"[rRbB]*", text)
    body = text[prefix.end() if prefix else 0 :]
    triple = body[:3] in ('"""', "'''") and body != body[:2]
    width = 3 if triple else 1
    body = body[width:-width]
    return None if "\\" in body else body


def is_whole(node: Node) -> bool:
    """Whether a call gives a whole number, which CEL does not mix with others."""
    name = node.value.removeprefix(".")
    return name in _GETTERS or name in ("size", "int")


def _kind(type_: Type) -> str:
    return (
        "an object" if isinstance(type_, Fields) else {"int": "a number", "double": "a number"}.get(type_, f"a {type_}")
    )


def _fits(left: Type, right: Type) -> bool:
    """Whether two values can be compared."""
    if isinstance(left, Fields) or isinstance(right, Fields):
        return (
            (isinstance(left, Fields) and isinstance(right, Fields)) or "map" in (left, right) or "dyn" in (left, right)
        )
    return left == right or "dyn" in (left, right) or (left in _NUMBERS and right in _NUMBERS)


@dataclass(slots=True)
class _Checker:
    found: list[Problem] = field(default_factory=list)
    scope: list[str] = field(default_factory=list)

    def say(self, node: Node, expected: str, remedy: str) -> None:
        self.found.append(Problem(node.at, expected, remedy))

    def type_of(self, node: Node) -> Type:  # noqa: PLR0911  # one for each kind of node
        """Type of what a node gives; what is wrong with it is said on the way."""
        match node.kind:
            case "int" | "double" | "string" | "bytes" | "bool" | "null":
                return self._literal(node)
            case "name" | "select" | "index":
                return self._lookup(node)
            case "has":
                self._lookup(node.children[0])
                return "bool"
            case "unary":
                return self._unary(node)
            case "binary":
                return self._binary(node)
            case "ternary":
                return self._ternary(node)
            case "macro":
                return self._macro(node)
            case "call":
                return self._call(node)
            case _:
                for child in node.children:
                    self.type_of(child)
                return "list" if node.kind == "list" else "map"

    def _literal(self, node: Node) -> Type:
        if node.kind == "int" and int(node.value.rstrip("uU"), 0 if "x" in node.value else 10) > 2**63 - 1:
            self.say(node, "expected a whole number below 2^63", "write it with a decimal point")
        kinds: dict[str, Type] = {
            "int": "int", "double": "double", "string": "string", "bytes": "bytes", "bool": "bool", "null": "null",
        }  # fmt: skip
        return kinds[node.kind]

    def _lookup(self, node: Node) -> Type:
        """Type of a name, a field or an element; complains once, at the first part that is unknown."""
        if node.kind == "name":
            if node.value in self.scope:
                return "dyn"
            return self._known(node, names.field(names.ROOT, "", node.value))
        owner = self.type_of(node.children[0])
        key = node.value
        if node.kind == "index":
            key_type = self.type_of(node.children[1])
            literal = plain_string(node.children[1]) if node.children[1].kind == "string" else None
            if literal is None:
                if isinstance(owner, Fields) and key_type not in ("string", "dyn"):
                    self.say(node, f"expected a name in brackets, this is {_kind(key_type)}", 'write ["name"]')
                return "dyn"
            key = literal
        if isinstance(owner, Fields):
            return self._known(node, names.field(owner, _spell(node.children[0]), key))
        if owner not in ("dyn", "map"):
            self.say(node, f"{_spell(node.children[0])} is {_kind(owner)} and has no fields", f'remove ".{key}"')
        return "dyn"

    def _known(self, node: Node, found: Type | Unknown) -> Type:
        if isinstance(found, Unknown):
            self.say(node, f'unknown name "{found.path}"', found.remedy)
            return "dyn"
        return found

    def _unary(self, node: Node) -> Type:
        operand = self.type_of(node.children[0])
        if node.value == "!":
            self._need(node.children[0], operand, ("bool",), "a condition after !")
            return "bool"
        self._need(node.children[0], operand, (*_NUMBERS, "duration"), "a number after -")
        return operand

    def _need(self, node: Node, type_: Type, allowed: tuple[str, ...], expected: str) -> None:
        if type_ != "dyn" and type_ not in allowed:
            self.say(node, f"expected {expected}, this is {_kind(type_)}", "compare or convert it")

    def _binary(self, node: Node) -> Type:
        left_node, right_node = node.children
        left, right = self.type_of(left_node), self.type_of(right_node)
        operator = node.value
        if operator in ("&&", "||"):
            for child, type_ in ((left_node, left), (right_node, right)):
                self._need(child, type_, ("bool",), f"a condition beside {operator}")
            return "bool"
        if operator == "in":
            if right not in ("list", "map", "dyn") and not isinstance(right, Fields):
                self.say(right_node, f"expected a list after in, this is {_kind(right)}", 'write ["a", "b"]')
            return "bool"
        if operator in ARITHMETIC:
            return self._arithmetic(node, left, right)
        if "null" in (left, right) and operator in ("==", "!="):
            return "bool"
        ordered = operator in ("==", "!=") or not any(
            type_ in ("null", "list", "map") or isinstance(type_, Fields) for type_ in (left, right)
        )
        if not ordered or not _fits(left, right):
            remedy = "compare values of one type"
            if "string" in (left, right) and "timestamp" in (left, right):
                remedy = "convert the text: timestamp(…)"
            if {left, right} & {"string"} and ({left, right} & set(_NUMBERS)):
                text = right_node if right == "string" else left_node
                unquoted = (plain_string(text) or "") if text.kind == "string" else ""
                remedy = (
                    f"write {unquoted} without quotes" if _is_number(unquoted) else "convert one of them: double(…)"
                )
            self.say(node, f"{_kind(left)} {operator} {_kind(right)} never holds", remedy)
        return "bool"

    def _arithmetic(self, node: Node, left: Type, right: Type) -> Type:
        pair = (left, right)
        if left in _NUMBERS and right in _NUMBERS:
            if node.value == "%" and "double" in pair:
                self.say(node, "% needs whole numbers", "convert them: int(…)")
            return "double" if "double" in pair else "int"
        if "dyn" in pair:
            return "dyn"
        if node.value == "+" and left == right and left in ("string", "bytes", "list"):
            return left
        times: dict[tuple[str, Type, Type], Type] = {
            ("+", "timestamp", "duration"): "timestamp",
            ("+", "duration", "timestamp"): "timestamp",
            ("-", "timestamp", "duration"): "timestamp",
            ("-", "timestamp", "timestamp"): "duration",
            ("+", "duration", "duration"): "duration",
            ("-", "duration", "duration"): "duration",
        }
        if not isinstance(left, Fields) and not isinstance(right, Fields) and (node.value, left, right) in times:
            return times[node.value, left, right]
        into = "timestamp" if {left, right} & {"timestamp", "duration"} else "double"
        self.say(
            node,
            f"{_kind(left)} {node.value} {_kind(right)} cannot be calculated",
            f"convert one of them: {into}(…)",
        )
        return "dyn"

    def _ternary(self, node: Node) -> Type:
        condition, yes, no = node.children
        self._need(condition, self.type_of(condition), ("bool",), "a condition before ?")
        left, right = self.type_of(yes), self.type_of(no)
        return left if left == right else "dyn"

    def _macro(self, node: Node) -> Type:
        target, variable, *body = node.children
        over = self.type_of(target)
        self._need(
            target,
            "map" if isinstance(over, Fields) else over,
            ("list", "map"),
            f"a list before .{node.value}",
        )
        if len(self.scope) >= MAX_LOOPS:
            self.say(node, f"at most {MAX_LOOPS} loops inside each other", "simplify it")
        self.scope.append(variable.value)
        types = [self.type_of(child) for child in body]
        self.scope.pop()
        filters = len(body) == cel_syntax.MACROS["map"]  # as in list.map(x, condition, value)
        if node.value != "map" or filters:
            self._need(body[0], types[0], ("bool",), f"a condition in .{node.value}")
        return "list" if node.value in ("map", "filter") else "bool"

    def _call(self, node: Node) -> Type:
        is_method = node.value.startswith(".")
        name = node.value.removeprefix(".")
        types = [self.type_of(child) for child in node.children]
        known = _METHODS if is_method else _FUNCTIONS
        if name not in known:
            likely = closest(name, [*_METHODS, *_FUNCTIONS, "has", "exists", "all", "filter", "map"])
            self.say(node, f"unknown function {name}()", f"try {likely}()" if likely else "use a function of CEL")
            return "dyn"
        if is_method:
            return self._method(node, name, types)
        if len(types) != 1:
            self.say(node, f"{name}() takes one value", f"write {name}(x)")
        return self._constant(node) if name in ("timestamp", "duration") else _FUNCTIONS[name]

    def _method(self, node: Node, name: str, types: list[Type]) -> Type:
        on, result = _METHODS[name]
        wanted = {"sized": ("string", "list", "map", "bytes"), "timestamp": ("timestamp", "duration")}.get(on, (on,))
        target = "map" if isinstance(types[0], Fields) else types[0]
        self._need(node.children[0], target, wanted, f"{' or '.join(wanted)} before .{name}()")
        if on == "string":
            arguments = node.children[1:]
            if len(arguments) != 1:
                self.say(node, f".{name}() takes one text", f'write .{name}("text")')
                return result
            self._need(arguments[0], types[1], ("string",), f"a text in .{name}()")
            if name == "matches":
                self._pattern(arguments[0])
        elif len(types) > 1:  # the library has no such form: it would fail at every evaluation
            what = "zone, it counts in UTC" if name in _GETTERS else "value"
            self.say(node, f".{name}() takes no {what}", f"write .{name}()")
        return result

    def _pattern(self, node: Node) -> None:
        """A pattern is compiled at every evaluation, so it must be written out, valid and small."""
        if node.kind != "string":
            self.say(node, "expected a pattern in quotes in .matches()", "write the pattern itself")
            return
        try:
            cel.evaluate(f"''.matches({node.value})")
        except Exception as error:  # noqa: BLE001  # whatever the library says of the pattern
            said = str(error).rpartition("error: ")[2].partition(".")[0].strip()
            self.say(node, f"not a regular expression: {said}", "correct the pattern")

    def _constant(self, node: Node) -> Type:
        """`timestamp("…")` and `duration("…")` of a literal either work or never do."""
        name = node.value
        if [child.kind for child in node.children] == ["string"]:
            try:
                cel.evaluate(f"{name}({node.children[0].value})")
            except Exception:  # noqa: BLE001  # the library has many errors for it
                example = "2026-01-31T00:00:00Z" if name == "timestamp" else "24h"
                self.say(node, f"not a {name}: {node.children[0].value}", f'write {name}("{example}")')
        return _FUNCTIONS[name]


def _spell(node: Node) -> str:
    if node.kind == "name":
        return node.value
    if node.kind == "select":
        return f"{_spell(node.children[0])}.{node.value}"
    return f"{_spell(node.children[0])}[…]" if node.kind == "index" else "this"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text, re.ASCII) is not None
