"""The kinds of value a configuration file holds: how each is read, spelled and described in JSON Schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from decisioning import durations
from decisioning.guardrails import STANDARD_SPAM
from decisioning.paths import Path
from decisioning.zones import check_zone

CHANNELS = ("email", "push", "sms", "in_app")
MAX_TEXT = 20_000
MAX_BLOCK = 100_000
RESERVED_SLOTS = (
    "holdout",
    "channel",
    "send_time",
)  # choices of their own, and `policy` names are <campaign>/<choice>


class Model(BaseModel):
    """What every part of the file is: strict, frozen, without unknown fields."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        populate_by_name=False,
        arbitrary_types_allowed=True,
    )


@dataclass(frozen=True, slots=True)
class Block:
    """A longer text of a variant: HTML, MJML (it begins with `<mjml`), or plain text where the file says so."""

    kind: Literal["text", "html", "mjml"]
    source: str


def block(value: object) -> Block:
    """Read a block as the file has it: a text, or `{text: …}`."""
    match value:
        case str():
            kind: Literal["html", "mjml"] = "mjml" if value.lstrip().startswith("<mjml") else "html"
            made = Block(kind, value)
        case {"text": str() as text, **others} if not others:
            made = Block("text", text)
        case _:
            remedy = 'write "<p>…</p>", or {text: "…"} for one without HTML'
            raise PydanticCustomError("value", "HTML, MJML or {text: …}", {"remedy": remedy})
    if len(made.source) > MAX_BLOCK:
        raise PydanticCustomError("value", f"at most {MAX_BLOCK} characters", {"remedy": "shorten it"})
    return made


def _spell_block(made: Block) -> str | dict[str, str]:
    return {"text": made.source} if made.kind == "text" else made.source


def _phrases(value: object) -> object:
    return STANDARD_SPAM if value == "standard" else value


def _duration(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise PydanticCustomError("value", "a duration such as 30s, 15m, 2h or 7d", {"remedy": 'try "30m"'})
    try:
        return durations.parse(value)
    except ValueError as error:
        raise PydanticCustomError("value", "a duration such as 30s, 15m, 2h or 7d", {"remedy": str(error)}) from None


def _clock(value: object) -> object:
    if not isinstance(value, str):
        raise PydanticCustomError("value", "a time of day", {"remedy": 'write hours and minutes, such as "21:00"'})
    try:
        return durations.parse_clock(value)
    except ValueError as error:
        raise PydanticCustomError("value", "a time of day", {"remedy": str(error)}) from None


def _window(value: object) -> object:
    return value if value in ("day", "week") else _duration(value)


def _names(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _path(value: object) -> object:
    try:
        return Path.parse(value)
    except ValueError as error:
        expected = "a path into the event, such as properties.cart_id"
        raise PydanticCustomError("value", expected, {"remedy": str(error)}) from None


def _zone(value: str) -> str:
    try:
        return check_zone(value)
    except ValueError as error:
        raise PydanticCustomError("value", "an IANA time zone", {"remedy": str(error)}) from None


def _slot(value: str) -> str:
    if value in RESERVED_SLOTS:
        expected = f"a slot named otherwise than {', '.join(RESERVED_SLOTS)}"
        raise PydanticCustomError("value", expected, {"remedy": f'rename the slot "{value}"'})
    return value


def _spell_window(window: int | str) -> str:
    return window if isinstance(window, str) else durations.spell(window)


_DURATION_SCHEMA: dict[str, Any] = {"type": "string", "pattern": r"^\d{1,10}[smhd]$", "examples": ["30m"]}
_CLOCK_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": r"^([01]?\d|2[0-3]):[0-5]\d$",
    "examples": ["21:00"],
}
_WINDOW_SCHEMA: dict[str, Any] = {"anyOf": [{"enum": ["day", "week"]}, _DURATION_SCHEMA]}
_PATH_SCHEMA: dict[str, Any] = {"type": "string", "pattern": r"^(event\.)?properties(\.[A-Za-z0-9_-]+)+$"}

Duration = Annotated[
    int, BeforeValidator(_duration), PlainSerializer(durations.spell), WithJsonSchema(_DURATION_SCHEMA)
]
Clock = Annotated[int, BeforeValidator(_clock), PlainSerializer(durations.spell_clock), WithJsonSchema(_CLOCK_SCHEMA)]
Window = Annotated[
    int | Literal["day", "week"],
    BeforeValidator(_window),
    PlainSerializer(_spell_window),
    WithJsonSchema(_WINDOW_SCHEMA),
]
PathField = Annotated[Path, BeforeValidator(_path), PlainSerializer(str), WithJsonSchema(_PATH_SCHEMA)]
Zone = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_zone)]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Slot = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
VariantSlot = Annotated[Slot, AfterValidator(_slot)]
EventName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_NAMES_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}},
    ]
}
EventNames = Annotated[
    tuple[EventName, ...], BeforeValidator(_names), Field(max_length=100), WithJsonSchema(_NAMES_SCHEMA)
]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
_BLOCK_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "maxLength": MAX_BLOCK},
        {
            "type": "object",
            "properties": {"text": {"type": "string", "maxLength": MAX_BLOCK}},
            "required": ["text"],
            "additionalProperties": False,
        },
    ]
}
BlockField = Annotated[Block, BeforeValidator(block), PlainSerializer(_spell_block), WithJsonSchema(_BLOCK_SCHEMA)]
Phrase = Annotated[str, StringConstraints(min_length=1, max_length=100)]
_PHRASES_SCHEMA: dict[str, Any] = {
    "anyOf": [{"const": "standard"}, {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 100}}]
}
Phrases = Annotated[
    tuple[Phrase, ...], BeforeValidator(_phrases), Field(max_length=1_000), WithJsonSchema(_PHRASES_SCHEMA)
]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Time = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$")]
Cel = Annotated[str, StringConstraints(min_length=1, max_length=2_000)]
ChannelName = Literal["email", "push", "sms", "in_app"]
