"""What the records look like: models of the public topics, and JSON Schema and AsyncAPI made from them.

The engine writes its records without these models; they are for readers of the topics, and for the tests that hold the
engine to them. All of them admit further fields: readers ignore what they do not know.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    RootModel,
    StringConstraints,
    model_validator,
)

from decisioning.config import Config

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
NAMES: Final = ("events", "decisions", "decision-log", "examples", "config", "asyncapi")
TYPES: Final = ("track", "identify", "alias", "page", "screen", "group", "delete")

Text = Annotated[str, StringConstraints(min_length=1)]
Probability = Annotated[float, Field(gt=0, le=1)]
Channel = Literal["email", "push", "sms", "in_app"]
Reason = Annotated[
    str,
    StringConstraints(
        pattern=r"^(no_address|no_consent|unsubscribed|hard_bounced|complained|frequency_cap:.+|fatigue|holdout|"
        r"goal_reached|cancelled|expired|cooldown|not_eligible|not_worthwhile|rule:.+|out_of_stock|erased|no_channel|"
        r"deferred:quiet_hours)$"
    ),
]
_EVENT_RULES: dict[str, Any] = {
    "allOf": [
        {"anyOf": [{"required": ["messageId"]}, {"required": ["message_id"]}]},
        {"anyOf": [{"required": [name]} for name in ("userId", "anonymousId", "user_id", "anonymous_id")]},
        {"if": {"properties": {"type": {"const": "track"}}}, "then": {"required": ["event"]}},
        {
            "if": {"properties": {"type": {"const": "alias"}}},
            "then": {"anyOf": [{"required": ["previousId"]}, {"required": ["previous_id"]}]},
        },
    ]
}
_SNAKE = {
    "message_id": "messageId",
    "user_id": "userId",
    "anonymous_id": "anonymousId",
    "previous_id": "previousId",
    "sent_at": "sentAt",
    "original_timestamp": "originalTimestamp",
    "received_at": "receivedAt",
}


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class Event(_Record):
    """An event as upstream applications write it: Segment's spec, in camel case or snake case."""

    model_config = ConfigDict(json_schema_extra=_EVENT_RULES)

    type: Literal["track", "identify", "alias", "page", "screen", "group", "delete"]
    messageId: Text | None = Field(default=None, description="Counts once per person.")  # noqa: N815  # Segment's names
    userId: Text | None = None  # noqa: N815
    anonymousId: Text | None = None  # noqa: N815
    previousId: Text | None = Field(default=None, description="Of an alias: the id that joins.")  # noqa: N815
    event: Text | None = Field(default=None, description="Name of a track, such as Product Added.")
    timestamp: AwareDatetime | None = Field(default=None, description="When it happened; absent: when it arrived.")
    sentAt: AwareDatetime | None = None  # noqa: N815
    originalTimestamp: AwareDatetime | None = None  # noqa: N815
    receivedAt: AwareDatetime | None = None  # noqa: N815
    properties: dict[str, JsonValue] | None = None
    traits: dict[str, JsonValue] | None = None
    context: dict[str, JsonValue] | None = None

    @model_validator(mode="before")
    @classmethod
    def _camel(cls, data: Any) -> Any:
        return {_SNAKE.get(key, key): value for key, value in data.items()} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _complete(self) -> Event:
        if self.messageId is None or (self.userId is None and self.anonymousId is None):
            raise ValueError("messageId and one of userId and anonymousId are required")
        if (self.type == "track" and self.event is None) or (self.type == "alias" and self.previousId is None):
            raise ValueError("a track needs event, an alias needs previousId")
        return self


class TriggerRef(_Record):
    """The first event that led to a decision."""

    message_id: Text
    event: Text
    at: AwareDatetime


class Content(_Record):
    """Rendered texts: each slot by its name, and the chosen variants' blocks."""

    __pydantic_extra__: dict[str, JsonValue]
    blocks: dict[str, str]


class Metadata(_Record):
    """What is to travel with the message as custom arguments, so that webhooks find the decision."""

    decision_id: Text
    user_id: Text


class _Decided(_Record):
    schema_: Literal[1] = Field(alias="schema")
    decision_id: Text = Field(description="A pure function of campaign, person at trigger time and message id.")
    user_id: Text
    decided_at: AwareDatetime = Field(description="When it was decided.")


class Decision(_Decided):
    """A record of `decisions`: what to send now."""

    campaign: Text
    kind: Literal["marketing", "transactional"]
    action: Literal["send"]
    channel: Channel
    address: Text
    variants: dict[str, Text] = Field(description="Slot -> chosen variant.")
    content: Content
    trigger: TriggerRef
    due_at: AwareDatetime = Field(description="Trigger + delay.")
    fire_at: AwareDatetime = Field(description="When it was to fire after deferrals and the chosen send time.")
    expires_at: AwareDatetime | None = Field(default=None, description="Not to be sent later; null: never expires.")
    metadata: Metadata
    headers: dict[str, str] = Field(description="Headers of the message, such as List-Unsubscribe.")


class AsOf(_Record):
    """How far the partition had been read: `offset` is the next record's."""

    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class Fact(_Record):
    """What one reason not to send was found from; the further fields depend on the reason."""

    reason: Reason
    channel: Channel | None = Field(default=None, description="Where it refuses this channel alone.")
    when: str | None = Field(default=None, description="The condition, of a rule or of the campaign.")
    used: int | None = Field(default=None, ge=0, description="Of a cap: sends in its window.")
    max: int | None = Field(default=None, ge=0, description="Of a cap or another limit: how many there may be.")
    per: str | None = Field(default=None, description="Of a cap: its window.")
    message_id: str | None = Field(default=None, description="The event that cancelled it or reached the goal.")
    at: AwareDatetime | None = Field(default=None, description="When that happened.")
    fatigue: float | None = Field(default=None, ge=0, le=1)
    limit: float | None = Field(default=None, description="Of fatigue: from where on nothing is sent.")


class LogEntry(_Decided):
    """A record of `decision-log`: every decision with all that explains it, without address and text."""

    campaign: Text | None = Field(description="null only in the proof of an erasure.")
    kind: Literal["marketing", "transactional"] | None = None
    action: Literal["send", "suppress", "holdout"]
    reasons: list[Reason]
    channel_reasons: dict[Channel, list[Reason]] = {}
    channel: Channel | None = None
    variants: dict[str, Text] = {}
    content_hash: str | None = None
    trigger: TriggerRef | None = None
    due_at: AwareDatetime | None = None
    fire_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    metadata: Metadata | None = None
    propensity: dict[str, Probability] = Field(default={}, description="Choice -> probability it was drawn with.")
    joint_propensity: Probability | None = None
    arms: dict[str, dict[str, Probability]] = Field(default={}, description="Choice -> eligible arm -> probability.")
    context: dict[str, float] = Field(default={}, description="The named context vector.")
    model_versions: dict[str, int] = Field(default={}, description="Policy -> examples its model had seen.")
    policy: dict[str, JsonValue] = Field(default={}, description="The rule that made probabilities of the models.")
    slot: dict[str, JsonValue] = Field(
        default={}, description="Of a chosen hour: `arm`, when it was chosen, and all that repeats the choice."
    )
    random_draw: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        default={}, description="Choice -> the number that decided it."
    )
    as_of: AsOf
    config_version: Text
    experiment: dict[str, JsonValue] = {}
    cancelled_by: str | None = Field(default=None, description="messageId of the event that cancelled it.")
    asleep: dict[str, dict[str, str]] = Field(default={}, description="Slot -> arm -> why it was not eligible.")
    because: list[Fact] = Field(default=[], description="Of a suppression: the rule and the numbers of each reason.")


class SwitchEntry(_Record):
    """A record of `decision-log` that is no decision: who paused or resumed a campaign, when and why."""

    schema_: Literal[1] = Field(alias="schema")
    decision_id: Text = Field(description="Of this record alone.")
    campaign: Text
    action: Literal["pause", "resume"]
    user_id: None = None
    decided_at: AwareDatetime
    reasons: Annotated[list[Reason], Field(max_length=0)] = []
    by: str
    note: str = ""


class LogRecord(RootModel[LogEntry | SwitchEntry]):
    """A record of `decision-log`: a decision, or the use of a campaign's kill switch."""


class Example(_Record):
    """A record of `examples`: context, arm, propensity and reward of one choice, or a later correction of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"correction": {"const": True}}, "required": ["correction"]},
            "then": {"required": ["delta"]},
        }
    )

    schema_: Literal[1] = Field(alias="schema")
    decision_id: Text
    policy: Annotated[str, StringConstraints(pattern=r"^[^/]+/[^/]+$")] = Field(description="<campaign>/<choice>")
    arm: Text
    propensity: Probability
    context: dict[str, float]
    reward: float
    correction: bool
    delta: float | None = Field(default=None, description="Of a correction: what to add to the reward.")
    sent_at: AwareDatetime | None = Field(default=None, description="Of a correction: `at` of the example itself.")
    forget: bool = Field(default=False, description="Of a correction: the person was erased, the example goes, too.")
    pseudonym: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,32}:[0-9a-f]{32}$")] | None = Field(
        default=None, description="Stands for the person: <key id>:<keyed hash>; absent without a key."
    )
    at: AwareDatetime

    @model_validator(mode="after")
    def _has_delta(self) -> Example:
        if self.correction and self.delta is None:
            raise ValueError("a correction needs delta")
        return self


MODELS: Final[dict[str, tuple[type[BaseModel], str]]] = {
    "events": (Event, "An event (topic events)"),
    "decisions": (Decision, "A decision to send (topic decisions)"),
    "decision-log": (LogRecord, "A decision with its provenance (topic decision-log)"),
    "examples": (Example, "A training example (topic examples)"),
    "config": (Config, "The configuration file"),
}
_TOPICS: Final = (  # topic, key, direction seen from the worker, model
    ("events", "user id, else anonymous id", "receive", "events"),
    ("decisions", "person", "send", "decisions"),
    ("decision-log", "person", "send", "decision-log"),
    ("examples", "policy", "send", "examples"),
)


def schema(name: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of a topic's records or of the configuration, or the AsyncAPI document of all topics.

    Parameters
    ----------
    name
        One of `NAMES`.

    Raises
    ------
    KeyError
        There is no such schema.

    Examples
    --------
    >>> schema("examples")["required"][:2]
    ['schema', 'decision_id']
    """
    if name == "asyncapi":
        return _asyncapi()
    model, title = MODELS[name]
    made = model.model_json_schema(by_alias=True)
    return {"$schema": DIALECT, **made, "title": title}


def _asyncapi() -> dict[str, Any]:
    """The topics as AsyncAPI 3.0, from the point of view of the worker; nothing is referred to outside."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for topic, key, action, model in _TOPICS:
        payload = MODELS[model][0].model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
        schemas.update(payload.pop("$defs", {}))
        messages[model] = {
            "name": model,
            "title": MODELS[model][1],
            "contentType": "application/json",
            "payload": {"schemaFormat": "application/schema+json;version=draft-2020-12", "schema": payload},
            "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": "0.5.0"}},
        }
        channels[topic] = {
            "address": "{prefix}" + topic,
            "description": f"Kafka topic, keyed by {key}.",
            "parameters": {"prefix": {"description": "DECISIONING_TOPIC_PREFIX", "default": ""}},
            "messages": {model: {"$ref": f"#/components/messages/{model}"}},
        }
        operations[f"{action}-{topic}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{topic}"},
            "messages": [{"$ref": f"#/channels/{topic}/messages/{model}"}],
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "decisioning",
            "version": "1",
            "description": "Events in, decisions out. Read decisions with isolation.level=read_committed.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }
