"""The configuration file as frozen models, and how it is read.

Field names here carry units; the names in the file are their aliases (`delay` in the file is `delay_ms` here).
What is absent is off.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from decisioning import durations
from decisioning.aims import NEW_IN_GOAL, NEW_IN_POLICY, Goal, Policy
from decisioning.fields import (
    MAX_TEXT,
    BlockField,
    Cel,
    ChannelName,
    Clock,
    Duration,
    EventName,
    EventNames,
    Hash,
    Id,
    Model,
    PathField,
    Phrase,
    Phrases,
    Slot,
    Text,
    Time,
    VariantSlot,
    Window,
    Zone,
)
from decisioning.findings import ConfigError, Finding
from decisioning.paths import Path

_NONE: JsonDict = {"default": "0s"}  # in JSON Schema, where 0 milliseconds would not match the pattern


class QuietHours(Model):
    """Local wall-clock time in which nothing of marketing is sent: [from, to), in minutes after midnight."""

    from_minute: Clock = Field(alias="from")
    to_minute: Clock = Field(alias="to")

    @model_validator(mode="after")
    def _not_empty(self) -> QuietHours:
        if self.from_minute == self.to_minute:
            remedy = 'write "quiet_hours: null" for none, or make "from" and "to" differ'
            raise PydanticCustomError(
                "value", "from and to differ (equal ones would mean never or always)", {"remedy": remedy}
            )
        return self

    @property
    def length_ms(self) -> int:
        """How long they last, on a day without a change of clocks."""
        return (self.to_minute - self.from_minute) % 1_440 * 60_000


class Channel(Model):
    """A way to reach a person. Without `quiet_hours` of its own it has the global ones; null is none."""

    address: Literal["email", "phone", "push_token", "id"]
    quiet_hours: QuietHours | None = None


class Consent(Model):
    """What counts where a person has said nothing about a channel."""

    default: Literal["granted", "denied"] = "granted"


class Cap(Model):
    """At most `max` sends on `channel` per rolling or calendar window."""

    name: Id
    channel: Literal["any", "email", "push", "sms", "in_app"] = "any"
    max: int = Field(ge=0, le=100_000)
    window: Window = Field(alias="per")

    @property
    def per_ms(self) -> int | None:
        """Length of a rolling window, None for a calendar one."""
        return None if isinstance(self.window, str) else self.window

    @property
    def calendar(self) -> Literal["day", "week"] | None:
        """Kind of calendar window in the person's own zone, None for a rolling one."""
        return self.window if isinstance(self.window, str) else None


class Fatigue(Model):
    """A decayed count of sends without a reaction must stay below `limit`."""

    half_life_ms: Duration = Field(alias="half_life", gt=0)
    limit: float = Field(gt=0, le=1_000)


class Holdout(Model):
    """The share of persons (by salted hash) that is never written to."""

    share: float = Field(ge=0, le=1)
    salt: str = Field(default="", max_length=200)


class Rule(Model):
    """A hard constraint: where `when` holds, the decision is suppressed."""

    name: Id
    campaigns: tuple[Id, ...] | None = Field(default=None, description="Absent: all campaigns.")
    when: Cel
    then: Literal["suppress"] = "suppress"


class Guardrails(Model):
    """What no text may hold, as it is written here and again as it is rendered; braces of Liquid never."""

    banned: tuple[Phrase, ...] = Field(default=(), max_length=1_000)
    max_length: dict[Slot, Annotated[int, Field(ge=1, le=MAX_TEXT)]] = Field(default={})
    spam_phrases: Phrases = Field(default=(), description="Phrases, or `standard` for a list that comes with us.")
    max_caps: float | None = Field(default=None, gt=0, le=1, description="Greatest share of capitals among letters.")


class Retention(Model):
    """How long what is known of a person is kept after their last event."""

    profile_ms: Duration = Field(
        alias="profile", default=400 * durations.DAY_MS, ge=durations.DAY_MS, json_schema_extra={"default": "400d"}
    )


class Trigger(Model):
    """Which event starts a decision, and when it is due.

    Attributes
    ----------
    events, where
        Names of the events, and a CEL condition on them.
    delay_ms, max_wait_ms
        Due is event time + delay; restarts never push it past the first event + max_wait (None: no bound).
    per
        One pending timer per person and value of this path; None: one per person.
    restart_on, cancel_on
        Names of the events that start the delay anew, or end the wait without a decision.
    exclude_variants
        Path to the variants (slot -> id) that this decision shall not use again.
    """

    events: EventNames = Field(alias="event", min_length=1)
    where: Cel | None = None
    delay_ms: Duration = Field(alias="delay", default=0, json_schema_extra=_NONE)
    per: PathField | None = None
    restart_on: EventNames = ()
    cancel_on: EventNames = ()
    max_wait_ms: Duration | None = Field(alias="max_wait", default=None)
    exclude_variants: PathField | None = None


class SendTime(Model):
    """How far after due the policy may pick the hour; 0: as soon as allowed."""

    within_ms: Duration = Field(alias="within", default=0, le=7 * durations.DAY_MS, json_schema_extra=_NONE)


class Provenance(Model):
    """Where a text comes from, and who let it pass or not.

    Attributes
    ----------
    generator, model, prompt_hash, created_at
        What made it, from what (16 hex digits), and when (UTC); without `generator` a person wrote it.
    reviewed_by, reviewed_at, note
        Who decided about it, when (UTC) and why.
    reviewed_text
        Hash of the text that was reviewed.
    """

    generator: Id | None = None
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    prompt_hash: Hash | None = None
    created_at: Time | None = None
    reviewed_by: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    reviewed_at: Time | None = None
    reviewed_text: Hash | None = None
    note: Annotated[str, StringConstraints(max_length=500)] | None = None


class Variant(Model):
    """One arm of a slot: a Liquid text, perhaps only sometimes allowed (`when`), perhaps not or no longer to be sent.

    Only `approved` ones are ever sent. What a generator wrote is approved by a review of just this text, or not at all.
    """

    id: Id
    text: Text
    when: Cel | None = None
    status: Literal["draft", "approved", "rejected"] = "approved"
    blocks: dict[Slot, BlockField] = Field(default={})
    provenance: Provenance | None = None

    @property
    def text_hash(self) -> str:
        """16 hex digits of what a reviewer reads."""
        parts = [self.text, *(part for name, made in sorted(self.blocks.items()) for part in (name, made.source))]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @model_validator(mode="after")
    def _reviewed(self) -> Variant:
        made = self.provenance
        if self.status != "approved" or made is None or (made.generator is None and made.reviewed_text is None):
            return self
        remedy = f'run: decisioning copy review --approve {self.id} --by YOU, after setting "status: draft"'
        if made.reviewed_by is None or made.reviewed_at is None or made.reviewed_text is None:
            raise PydanticCustomError("value", "a review of what a generator wrote", {"remedy": remedy})
        if made.reviewed_text != self.text_hash:
            raise PydanticCustomError("value", "the text that was reviewed, it has changed since", {"remedy": remedy})
        return self


class Campaign(Model):
    """A reason to contact a person."""

    id: Id
    kind: Literal["marketing", "transactional"] = "marketing"
    count: bool = Field(default=False, description="Whether sends of a transactional campaign count towards caps.")
    trigger: Trigger
    when: Cel | None = None
    channels: tuple[ChannelName, ...] | None = Field(default=None, min_length=1, description="Absent: all channels.")
    send_time: SendTime = SendTime()
    expires_after_ms: Duration | None = Field(alias="expires_after", default=None)
    cooldown_ms: Duration = Field(alias="cooldown", default=0, json_schema_extra=_NONE)
    requires_stock: PathField | None = None
    exclude_variants: PathField | None = None
    variants: dict[VariantSlot, Annotated[tuple[Variant, ...], Field(min_length=1, max_length=200)]] = Field(
        min_length=1, max_length=16
    )
    goal: Goal | None = None
    holdout: Holdout | None = None
    policy: Policy = Policy()

    @property
    def counts(self) -> bool:
        """Whether its sends count towards caps."""
        return self.kind == "marketing" or self.count

    @property
    def excluded(self) -> Path | None:
        """Path to the variants not to be used again, wherever it was written."""
        return self.trigger.exclude_variants or self.exclude_variants


class Config(Model):
    """The whole file."""

    version: Literal[1]
    timezone: Zone = "UTC"
    quiet_hours: QuietHours | None = None
    channels: dict[ChannelName, Channel] = Field(min_length=1, description="In order of preference.")
    consent: Consent = Consent()
    caps: tuple[Cap, ...] = Field(default=(), max_length=100)
    fatigue: Fatigue | None = None
    holdout: Holdout | None = None
    rules: tuple[Rule, ...] = Field(default=(), max_length=1_000)
    guardrails: Guardrails = Guardrails()
    event_aliases: dict[EventName, EventName] = Field(default={}, max_length=1_000)
    retention: Retention = Retention()
    campaigns: tuple[Campaign, ...] = Field(default=(), max_length=1_000)

    def quiet_hours_of(self, channel: str) -> QuietHours | None:
        """Quiet hours that hold on a channel: its own, else the global ones; None for none."""
        own = self.channels[channel]  # type: ignore[index]  # a name from outside is a KeyError, as for any mapping
        return own.quiet_hours if "quiet_hours" in own.model_fields_set else self.quiet_hours

    def channels_of(self, campaign: Campaign) -> tuple[str, ...]:
        """Channels of a campaign in order of preference."""
        return campaign.channels or tuple(self.channels)

    @cached_property
    def version_hash(self) -> str:
        """16 hex digits that change with the meaning of the file, not with comments, layout or spelled-out defaults."""
        normal = self.model_dump(mode="json", by_alias=True)
        for name in self.channels:
            own = self.quiet_hours_of(name)
            normal["channels"][name]["quiet_hours"] = own and own.model_dump(mode="json", by_alias=True)
        _without(normal["guardrails"], {"spam_phrases": [], "max_caps": None})
        for campaign in normal["campaigns"]:
            _without(campaign["policy"], NEW_IN_POLICY)
            if campaign["goal"] is not None:
                _without(campaign["goal"], NEW_IN_GOAL)
            for slot, variants in campaign["variants"].items():
                campaign["variants"][slot] = [
                    {key: value for key, value in variant.items() if key != "provenance"}
                    for variant in variants
                    if variant["status"] == "approved"  # of the others nothing is ever sent
                ]
        normal["channels"] = list(
            normal["channels"].items()
        )  # their order means something, that of other keys does not
        text = json.dumps(normal, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without(fields: dict[str, Any], later: dict[str, Any]) -> None:
    """Drop what is off and came later than the first hashes: it is as if absent."""
    for name, off in later.items():
        if fields[name] == off:
            del fields[name]


def load(text: str | bytes, name: str = "config") -> Config:
    """Read and check a configuration.

    Parameters
    ----------
    text
        YAML or JSON.
    name
        What to call the file in error messages.

    Returns
    -------
    Config
        Everything in it is usable: names resolve, expressions and templates compile.

    Raises
    ------
    ConfigError
        With every error of the file, in the order of its lines.
    """
    config, findings = read(text, name)
    errors = [finding for finding in findings if finding.severity == "error"]
    if config is None or errors:
        raise ConfigError(errors)
    return config


def read(text: str | bytes, name: str = "config") -> tuple[Config | None, list[Finding]]:
    """Like `load`, but give all findings (warnings too) instead of raising; no Config where it has errors of shape."""
    from decisioning import semantics, shape, text_checks, yaml_source  # noqa: PLC0415  # they read these models

    source = yaml_source.parse(text, name)
    if source.data is None:
        if not source.findings:
            source.error((1, 1), (), "", "the file is empty", 'begin with "version: 1"')
        return None, source.findings
    config = None
    try:
        config = Config.model_validate(source.data)
    except ValidationError as error:
        shape.explain(source, error, Config)
    semantics.examine(source, config)
    text_checks.examine(source)
    findings = sorted(set(source.findings), key=lambda finding: (finding.line, finding.column, str(finding)))
    if any(finding.severity == "error" for finding in findings):
        config = None
    return config, findings
