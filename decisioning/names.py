"""The names that expressions and texts may use, with what is known of their types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from decisioning.findings import closest
from features import vector

Simple = Literal["bool", "int", "double", "string", "bytes", "timestamp", "duration", "null", "list", "map", "dyn"]


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """An object with known fields; an open one may have others, whose types nothing is known of.

    Attributes
    ----------
    fields
        Name -> type. `int` is a count that is always there, `dyn` may be anything.
    is_open
        Whether other names are allowed.
    """

    fields: dict[str, Type]
    is_open: bool = False


Type = Simple | Fields

SHOWN_NAMES = 10  # where none is near to what was written

COUNTS = ("orders", "revenue", "sends", "opens", "clicks")
SPANS = ("1d", "7d", "30d", "total")
ACTIONS = ("open", "click", "convert", "unsubscribe")
PROPENSITIES = (*ACTIONS, "churn")
"""What propensity models predict; of churn only rules and texts know, not policies."""
TRAITS: dict[str, Type] = {
    "email": "string",
    "phone": "string",
    "push_token": "string",
    "timezone": "string",
    "country": "string",
    "locale": "string",
    "first_name": "string",
    "created_at": "string",
    "consent": Fields(dict.fromkeys(("email", "sms", "push", "in_app", "personalization"), "bool")),
    "unsubscribed": "bool",
}
"""Traits that mean something; they are also names of the user itself, where they may be absent."""

_USER: dict[str, Type] = {
    "id": "string",
    "traits": Fields({}, is_open=True),
    **TRAITS,
    **{f"{what}_{span}": "double" if what == "revenue" else "int" for what in COUNTS for span in SPANS},
    "fatigue": "double",
    "propensity": Fields(dict.fromkeys(PROPENSITIES, "double")),
    "features": Fields(dict.fromkeys(vector.NAMES, "double")),
}
_EVENT: dict[str, Type] = {
    **dict.fromkeys(
        (
            "type",
            "event",
            "messageId",
            "userId",
            "anonymousId",
            "previousId",
            "groupId",
            "name",
            "category",
            "channel",
        ),
        "string",
    ),
    **dict.fromkeys(("timestamp", "originalTimestamp", "sentAt", "receivedAt"), "string"),
    **dict.fromkeys(("properties", "context", "traits", "integrations"), Fields({}, is_open=True)),
    "version": "dyn",
}
ROOT = Fields(
    {"event": Fields(_EVENT), "user": Fields(_USER), "campaign": Fields({"id": "string"}), "now": "timestamp"}
)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A path that names nothing.

    Attributes
    ----------
    path
        As far as it goes wrong.
    remedy
        What was probably meant.
    """

    path: str
    remedy: str


def field(owner: Fields, owner_path: str, name: str) -> Type | Unknown:
    """Type of one field of an object, or what to write instead of its name."""
    found = owner.fields.get(name)
    if found is not None:
        return found
    if owner.is_open:
        return "dyn"
    path = f"{owner_path}.{name}" if owner_path else name
    likely = closest(name, owner.fields)
    if likely is not None:
        return Unknown(path, f'try "{owner_path}.{likely}"' if owner_path else f'try "{likely}"')
    if owner_path == "user":
        return Unknown(path, f'try "user.traits.{name}"')
    if owner_path == "event":
        return Unknown(path, f'try "event.properties.{name}"')
    known = list(owner.fields)
    named = ", ".join(known[:SHOWN_NAMES]) + (", …" if len(known) > SHOWN_NAMES else "")
    return Unknown(path, f"use one of {named}")


def find(path: tuple[str, ...]) -> Type | Unknown:
    """Type of a path such as `("user", "orders_30d")`."""
    here: Type = ROOT
    for depth, name in enumerate(path):
        if not isinstance(here, Fields):
            return (
                "dyn"
                if here == "dyn"
                else Unknown(".".join(path[: depth + 1]), f'use "{".".join(path[:depth])}" alone')
            )
        found = field(here, ".".join(path[:depth]), name)
        if isinstance(found, Unknown):
            return found
        here = found
    return here
