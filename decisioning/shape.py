"""Errors of shape: what pydantic found, said with line, field, expectation and remedy."""

from __future__ import annotations

import types
import typing
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from decisioning import durations
from decisioning.findings import closest, field_name

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from decisioning.findings import FieldPath
    from decisioning.yaml_source import Source

MAX_FINDINGS = 200  # enough to mend; looking for what was meant takes a while

_TYPES = {
    "string_type": ("text", "put it in quotes"),
    "bool_type": ("true or false", "write true or false"),
    "int_type": ("a whole number", "write a whole number without quotes"),
    "int_from_float": ("a whole number", "write a whole number"),
    "float_type": ("a number", "write a number without quotes"),
    "finite_number": ("a finite number", "write a number"),
    "tuple_type": ("a list", "put it in brackets: [a, b]"),
    "dict_type": ("fields below it, each with a name", "write name: value"),
    "model_type": ("fields below it, each with a name", "write name: value"),
    "model_attributes_type": ("fields below it, each with a name", "write name: value"),
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def explain(source: Source, error: ValidationError, model: type[BaseModel]) -> None:
    """Add a finding to `source` for what `error` says about `source.data` as a `model`."""
    broken = {(finding.line, finding.column) for finding in source.findings}  # nothing can be said of what is not there
    details = error.errors(include_url=False)[:MAX_FINDINGS]
    owners = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
    for detail in details:
        path: FieldPath = detail["loc"]
        if detail["type"] == "too_short" and path in owners:
            continue  # it has parts, only not good ones, and each of them is a finding
        is_key = bool(path) and path[-1] == "[key]"
        if is_key:
            path = path[:-1]
        is_key = is_key or detail["type"] == "extra_forbidden"
        place = (source.keys.get(path) if is_key else None) or source.place(path)
        if place in broken:
            continue
        value = "" if is_key else source.shown(path)
        given = path[-1] if is_key else source.at(path)
        if detail["type"] == "extra_forbidden":
            known = _fields(model, path[:-1])
            said = f"unknown field; expected one of {', '.join(known)}", _meant(str(given), known)
        elif detail["type"] == "missing":
            owner = field_name(path[:-1]) or "the file"
            said = "the field is required", f'add "{path[-1]}:" to {owner}'
        else:
            said = _say(detail, given)
        source.error(place, path, value, *said)


def _say(detail: ErrorDetails, given: Any) -> tuple[str, str]:  # noqa: PLR0911  # one for each kind of error
    """Expectation and remedy for a value that is there."""
    kind = detail["type"]
    context: dict[str, Any] = detail.get("ctx", {})
    if kind == "value":
        return f"expected {detail['msg']}", str(context["remedy"])
    if kind == "literal_error":
        choices = [choice.strip("'") for choice in context["expected"].replace(" or ", ", ").split(", ")]
        remedy = f"write {choices[0]}" if choices[0].isdigit() else _meant(str(given), choices, "write")
        return f"expected {' or '.join(choices)}", remedy
    if kind == "string_pattern_mismatch":
        return _pattern(str(context["pattern"]))
    if kind in _TYPES:
        expected, remedy = _TYPES[kind]
        return f"expected {expected}", remedy
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        limit = context[name]
        bound = f"{words} {durations.spell(int(limit)) if isinstance(given, str) else limit}"
        return f"expected {bound}", f"write {bound}"
    if kind.endswith("too_long"):
        return f"expected a length of at most {context['max_length']}", "shorten it"
    if kind.endswith("too_short"):
        return f"expected a length of at least {context['min_length']}", "add something, or leave the field out"
    return f"expected otherwise: {detail['msg']}", "change it"


def _meant(given: str, known: list[str], verb: str = "try") -> str:
    likely = closest(given, known)
    if likely is not None:
        return f'{verb} "{likely}"'
    return "remove it" if verb == "try" else f'write "{known[0]}"'


def _pattern(pattern: str) -> tuple[str, str]:
    if pattern.startswith("^[0-9a-f]"):
        return "expected 16 hex digits", "leave it as `copy suggest` and `copy review` write it"
    if pattern.startswith(r"^\d{4}"):
        return "expected a time in UTC", 'write it as "2026-11-24T09:30:00Z"'
    if pattern.startswith("^[a-z]"):
        return "expected a name of small letters, digits and _ (at most 32)", 'rename it, such as "subject"'
    return "expected a name of letters, digits, _ . - (at most 64)", 'rename it, such as "cart-abandonment"'


def _fields(model: type[BaseModel], path: FieldPath) -> list[str]:
    """Names that the file may use at a path, in the order of the model."""
    annotation: Any = model
    for part in path:
        annotation = _step(annotation, part)
    found = _model(annotation)
    return [field.alias or name for name, field in found.model_fields.items()] if found else []


def _step(annotation: Any, part: str | int) -> Any:
    found = _model(annotation)
    if found is not None:
        return next(
            (field.annotation for name, field in found.model_fields.items() if part in (field.alias or name, name)),
            None,
        )
    for candidate in (annotation, *typing.get_args(annotation)):
        arguments = typing.get_args(candidate)
        origin = typing.get_origin(candidate)
        if origin is tuple:
            return arguments[0]
        if origin is dict:
            return arguments[1]
    return None


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return next((found for part in typing.get_args(annotation) if (found := _model(part)) is not None), None)
    return None
