"""Settings: names, bounds, and errors that say what to set."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams import settings
from streams.settings import SettingsError


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(settings.PREFIX + name.upper(), raising=False)


def test_defaults() -> None:
    """Without any variable everything is on this machine and the web server on loopback."""
    found = settings.load()
    assert (found.kafka, found.redis, found.group) == (
        "localhost:9092",
        "redis://localhost:6379/0",
        "decisioning",
    )
    assert (found.partitions, found.delivery, found.topic_prefix) == (8, "exactly_once", "")
    assert (found.web_host, found.web_port, found.config) == ("127.0.0.1", 6066, None)


def test_the_environment_sets_and_a_flag_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    """DECISIONING_<NAME> sets a field; a flag that was given wins, one that was not given changes nothing."""
    monkeypatch.setenv("DECISIONING_KAFKA", "a:1, b:2")
    monkeypatch.setenv("DECISIONING_CONFIG", "shop.yaml")
    monkeypatch.setenv("DECISIONING_TOPIC_PREFIX", "shop.")
    found = settings.load(group="other", topic_prefix="test.", kafka=None)
    assert found.brokers == ["a:1", "b:2"]
    assert found.config == Path("shop.yaml")
    assert found.group == "other"
    assert found.topic("events") == "test.events"


def test_an_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass unset variables on as empty ones."""
    monkeypatch.setenv("DECISIONING_WEB_PORT", "")
    assert settings.load().web_port == 6066


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kafka", "nowhere"),
        ("kafka", "a:1,,b:2"),
        ("kafka", "a:70000"),
        ("redis", "http://localhost"),
        ("redis", "redis://localhost:99999/0"),
        ("topic_prefix", "a b"),
        ("topic_prefix", "x" * 201),
        ("group", ""),
        ("partitions", "0"),
        ("partitions", "many"),
        ("partitions", "1025"),
        ("delivery", "at_most_once"),
        ("web_port", "65536"),
        ("web_port", "-1"),
        ("security_protocol", "TLS"),
        ("sasl_mechanism", "GSSAPI"),
        ("public_url", "example.com"),
        ("pseudonym_key", "short"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_with_a_remedy(name: str, value: str) -> None:
    """The line names the flag, says what was expected and what to try."""
    with pytest.raises(SettingsError) as caught:
        settings.load(**{name: value})
    line = str(caught.value)
    assert line.startswith(f"--{name.replace('_', '-')}")
    assert "expected" in line
    assert "try --" in line
    assert "\n" not in line
    assert caught.value.exit_code == 2


def test_a_wrong_variable_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came from the environment is called by its variable's name."""
    monkeypatch.setenv("DECISIONING_PARTITIONS", "many")
    with pytest.raises(
        SettingsError, match=r"^DECISIONING_PARTITIONS=many: expected .*; try DECISIONING_PARTITIONS=8$"
    ):
        settings.load()


def test_every_wrong_value_is_named() -> None:
    """Two mistakes need one attempt to find, not two."""
    with pytest.raises(SettingsError) as caught:
        settings.load(partitions="0", delivery="never")
    assert "--partitions" in str(caught.value)
    assert "--delivery" in str(caught.value)


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither errors nor the representation of the settings show a password."""
    monkeypatch.setenv("DECISIONING_REDIS", "redis://:hunter2@cache:6379/1")
    monkeypatch.setenv("DECISIONING_SASL_PASSWORD", "hunter2")
    found = settings.load()
    assert "hunter2" not in repr(found)
    assert found.redis_address == "cache:6379/1"
    monkeypatch.setenv("DECISIONING_REDIS", "http://:hunter2@cache")
    monkeypatch.setenv("DECISIONING_TOKEN_KEY", "hunter2")
    with pytest.raises(SettingsError) as caught:
        settings.load()
    assert "hunter2" not in str(caught.value)


def test_sasl_needs_a_user() -> None:
    """Without one every client would fail later, and less clearly."""
    with pytest.raises(SettingsError, match="set DECISIONING_SASL_USERNAME and DECISIONING_SASL_PASSWORD"):
        settings.load(security_protocol="SASL_SSL")


def test_clients_get_user_and_tls() -> None:
    """The options of a client hold all that SASL over TLS needs."""
    found = settings.load(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="u", sasl_password="p"
    )
    options = found.kafka_options()
    assert options.pop("ssl_context") is not None
    assert options == {
        "bootstrap_servers": ["localhost:9092"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }


def test_a_missing_certificate_is_named() -> None:
    """The line names the variable and the file."""
    with pytest.raises(SettingsError, match=r"DECISIONING_SSL_CAFILE=/nope\.pem"):
        settings.load(security_protocol="SSL", ssl_cafile="/nope.pem").kafka_options()


def test_unknown_variables_are_named_with_the_closest_known_one() -> None:
    """A typing error does not pass in silence; other programs' variables are none of our business."""
    warnings = settings.unknown(
        {
            "DECISIONING_KAFKAS": "x",
            "DECISIONING_ZZZ": "x",
            "DECISIONING_TEST_KAFKA": "x",
            "PATH": "x",
            "DECISIONING_REDIS": "x",
        }
    )
    assert len(warnings) == 2
    assert "DECISIONING_KAFKAS is not a setting and has no effect; did you mean DECISIONING_KAFKA?" in warnings
    assert "DECISIONING_ZZZ" in warnings[1]
