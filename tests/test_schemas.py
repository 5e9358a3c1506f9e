"""Schemas: what the documentation shows conforms, what is wrong does not, and schema and models agree."""

from __future__ import annotations

import copy
import json
from pathlib import Path as File
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from decisioning import config, schemas, yaml_source

SHOP = (File(__file__).parent / "configs" / "shop.yaml").read_text("utf-8")
EVENT: dict[str, Any] = {
    "messageId": "t1",
    "type": "track",
    "timestamp": "2026-03-02T10:00:00.000Z",
    "userId": "u1",
    "event": "Product Added",
    "properties": {"product_id": "p", "price": 20},
}
DECISION: dict[str, Any] = {
    "schema": 1,
    "decision_id": "d1",
    "campaign": "cart-abandonment",
    "kind": "marketing",
    "action": "send",
    "user_id": "u-17",
    "channel": "email",
    "address": "ann@example.com",
    "variants": {"subject": "offer"},
    "content": {"subject": "Ann, your boots are waiting", "blocks": {}},
    "trigger": {"message_id": "t1", "event": "Product Added", "at": "2026-11-24T09:00:00.000Z"},
    "due_at": "2026-11-24T09:30:00.000Z",
    "fire_at": "2026-11-24T09:30:00.000Z",
    "decided_at": "2026-11-24T09:30:00.120Z",
    "expires_at": "2026-11-24T21:30:00.000Z",
    "metadata": {"decision_id": "d1", "user_id": "u-17"},
    "headers": {"List-Unsubscribe": "<https://x>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
}
LOG: dict[str, Any] = {
    **{key: value for key, value in DECISION.items() if key not in ("address", "headers", "content")},
    "content_hash": "ab12",
    "reasons": [],
    "channel_reasons": {"push": ["no_address"]},
    "propensity": {"channel": 1.0, "subject": 0.5},
    "joint_propensity": 0.5,
    "arms": {"channel": {"email": 1.0}, "subject": {"plain": 0.5, "offer": 0.5}},
    "context": {"hour": 9.0},
    "model_versions": {},
    "random_draw": {"channel": 0.1, "subject": 0.7},
    "as_of": {"partition": 0, "offset": 17},
    "config_version": "90e2c21093f8a87f",
    "experiment": {"group": "treatment"},
    "cancelled_by": None,
}
EXAMPLE: dict[str, Any] = {
    "schema": 1,
    "decision_id": "d1",
    "policy": "cart-abandonment/subject",
    "arm": "offer",
    "propensity": 0.5,
    "context": {"hour": 9.0},
    "reward": 0.0,
    "correction": False,
    "at": "2026-11-24T09:30:00.120Z",
}
GOOD = [
    ("events", EVENT),
    ("events", {"message_id": "a", "type": "identify", "anonymous_id": "x", "traits": {"email": "a@example.com"}}),
    ("events", {"messageId": "a", "type": "alias", "userId": "u", "previousId": "x", "something": {"new": 1}}),
    ("events", {"messageId": "a", "type": "delete", "userId": "u"}),
    ("decisions", DECISION),
    ("decisions", {**DECISION, "expires_at": None, "more": 1}),
    ("decision-log", LOG),
    ("decision-log", {**LOG, "action": "suppress", "channel": None, "reasons": ["frequency_cap:daily", "rule:x"]}),
    (
        "decision-log",
        {
            "schema": 1, "decision_id": "e", "campaign": None, "action": "suppress", "user_id": "u",
            "reasons": ["erased"],
            "decided_at": "2026-11-24T09:30:00.120Z", "as_of": {"partition": 0, "offset": 1}, "config_version": "c",
        },
    ),
    ("examples", EXAMPLE),
    ("examples", {**EXAMPLE, "correction": True, "delta": 1.0, "reward": 1.0}),
]  # fmt: skip
BAD = [
    ("events", {**EVENT, "type": "trakc"}),
    ("events", {key: value for key, value in EVENT.items() if key != "messageId"}),
    ("events", {key: value for key, value in EVENT.items() if key != "userId"}),
    ("events", {key: value for key, value in EVENT.items() if key != "event"}),
    ("events", {"messageId": "a", "type": "alias", "userId": "u"}),
    ("events", {**EVENT, "properties": []}),
    ("decisions", {**DECISION, "action": "suppress"}),
    ("decisions", {**DECISION, "schema": 2}),
    ("decisions", {**DECISION, "channel": "fax"}),
    ("decisions", {key: value for key, value in DECISION.items() if key != "address"}),
    ("decision-log", {**LOG, "reasons": ["because"]}),
    ("decision-log", {**LOG, "propensity": {"channel": 0}}),
    ("decision-log", {**LOG, "random_draw": {"channel": 1.0}}),
    ("examples", {**EXAMPLE, "propensity": 1.5}),
    ("examples", {**EXAMPLE, "correction": True}),
    ("examples", {**EXAMPLE, "policy": "cart"}),
]


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schemas.schema(name))


@pytest.mark.parametrize("name", [name for name in schemas.NAMES if name != "asyncapi"])
def test_every_schema_is_one(name: str) -> None:
    """Each is a valid schema of the dialect it names, and JSON."""
    made = json.loads(json.dumps(schemas.schema(name)))
    assert made["$schema"] == schemas.DIALECT
    jsonschema.Draft202012Validator.check_schema(made)


@pytest.mark.parametrize(("name", "record"), GOOD)
def test_documented_records_conform(name: str, record: dict[str, Any]) -> None:
    """The records of the documentation pass the schema and the model."""
    assert [error.message for error in validator(name).iter_errors(record)] == []
    schemas.MODELS[name][0].model_validate_json(json.dumps(record))


@pytest.mark.parametrize(("name", "record"), BAD)
def test_wrong_records_do_not(name: str, record: dict[str, Any]) -> None:
    """Schema and model refuse the same."""
    assert list(validator(name).iter_errors(record))
    with pytest.raises(ValidationError):
        schemas.MODELS[name][0].model_validate_json(json.dumps(record))


def test_the_schema_of_the_configuration_takes_what_loads() -> None:
    """The full example conforms; so do the defaults that the schema itself states."""
    data = json.loads(json.dumps(yaml_source.parse(SHOP).data))
    assert [error.message for error in validator("config").iter_errors(data)] == []
    written = json.loads(config.load(SHOP).model_dump_json(by_alias=True))
    assert [error.message for error in validator("config").iter_errors(written)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2), (("timezone",), 1), (("channels", "fax"), {"address": "id"}), (("caps", 0, "per"), "month"),
        (("campaigns", 0, "trigger", "delay"), 30), (("campaigns", 0, "extra"), 1), (("holdout", "share"), 2),
        (("quiet_hours", "from"), "25:00"), (("campaigns", 0, "trigger", "per"), "cart_id"),
    ],
)  # fmt: skip
def test_the_schema_of_the_configuration_refuses_what_does_not_load(path: tuple[str | int, ...], value: object) -> None:
    """An editor with the schema marks what `check` would."""
    data = json.loads(json.dumps(yaml_source.parse(SHOP).data))
    owner = data
    for part in path[:-1]:
        owner = owner[part]
    owner[path[-1]] = value
    assert list(validator("config").iter_errors(data))
    assert config.read(json.dumps(data))[0] is None


def _defaults(schema: Any) -> list[tuple[Any, Any]]:
    found = []
    if isinstance(schema, dict):
        if "default" in schema:
            found.append(({key: value for key, value in schema.items() if key != "default"}, schema["default"]))
        for value in schema.values():
            found += _defaults(value)
    elif isinstance(schema, list):
        for value in schema:
            found += _defaults(value)
    return found


@pytest.mark.parametrize("name", [name for name in schemas.NAMES if name != "asyncapi"])
def test_stated_defaults_conform(name: str) -> None:
    """Every default is a value that its own schema takes."""
    whole = schemas.schema(name)
    for schema, default in _defaults(whole):
        local = {**copy.deepcopy(schema), "$defs": whole.get("$defs", {})}
        assert list(jsonschema.Draft202012Validator(local).iter_errors(default)) == []


def test_asyncapi_refers_to_nothing_that_is_not_there() -> None:
    """Topics, operations and messages hang together; every reference leads somewhere."""
    document = json.loads(json.dumps(schemas.schema("asyncapi")))
    assert document["asyncapi"] == "3.0.0"
    assert set(document["channels"]) == {"events", "decisions", "decision-log", "examples"}
    references: list[str] = []

    def collect(part: Any) -> None:
        if isinstance(part, dict):
            references.extend(value for key, value in part.items() if key == "$ref")
            for value in part.values():
                collect(value)
        elif isinstance(part, list):
            for value in part:
                collect(value)

    collect(document)
    assert references
    for reference in references:
        here = document
        for part in reference.removeprefix("#/").split("/"):
            here = here[part]
        assert isinstance(here, dict)


def test_an_unknown_schema_is_a_key_error() -> None:
    """The command line turns it into one line with the names there are."""
    with pytest.raises(KeyError):
        schemas.schema("nothing")
