"""Settings from the environment: where Kafka, Redis and the configuration are, and how to speak to them."""

from __future__ import annotations

import difflib
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from decisioning import pseudonyms
from decisioning.pseudonyms import Pseudonyms
from streams.failure import WRONG_USE, Failure

PREFIX: Final = "DECISIONING_"
TESTS: Final = "TEST_"  # DECISIONING_TEST_*: where the tests find their servers
TOPIC_NAME_CHARS: Final = 249  # Kafka's own limit
HIGHEST_PORT: Final = 65_535
REDIS_SCHEMES: Final = ("redis", "rediss", "unix")

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_NAME = re.compile(r"[A-Za-z0-9._-]*")


class SettingsError(Failure):
    """A setting that cannot be; the message is one line and ends with the remedy."""

    exit_code = WRONG_USE


def _fits(value: str, info: ValidationInfo) -> str:
    """Check a text against the field's own form; the message that people read is made in `load`."""
    if not _FORMS[str(info.field_name)](value):
        raise ValueError("wrong form")
    return value


def _keys(value: SecretStr | None) -> SecretStr | None:
    """Check that pseudonyms can be made with it."""
    if value is not None:
        pseudonyms.parse(value.get_secret_value())
    return value


def _is_broker_list(value: str) -> bool:
    parts = [_ADDRESS.fullmatch(part.strip()) for part in value.split(",")]
    return all(part is not None and 0 < int(part[2]) <= HIGHEST_PORT for part in parts)


def _is_redis_url(value: str) -> bool:
    try:
        url = urlsplit(value)
        return url.scheme in REDIS_SCHEMES and bool(url.hostname or url.path) and (url.port or 1) > 0
    except ValueError:
        return False


_FORMS: Final[Mapping[str, Callable[[str], bool]]] = {
    "kafka": _is_broker_list,
    "redis": _is_redis_url,
    "topic_prefix": lambda value: bool(_NAME.fullmatch(value)),
    "group": lambda value: bool(_NAME.fullmatch(value)),
    "copy_url": lambda value: value.startswith(("https://", "http://")),
    "public_url": lambda value: value.startswith(("https://", "http://")),
}

Formed = Annotated[str, AfterValidator(_fits)]


class Settings(BaseSettings):
    """Where things are. Each field is the variable `DECISIONING_<NAME>`; a flag of the command overrides it.

    The description of a field says what a value has to be and its first example is what an error suggests.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    kafka: Formed = Field(
        "localhost:9092",
        description="host:port of a broker, several with commas between",
        examples=["localhost:9092"],
    )
    redis: Formed = Field(
        "redis://localhost:6379/0",
        repr=False,  # the URL may hold a password
        description="a URL redis://, rediss:// (TLS; ?ssl_ca_certs=FILE names the authority) or unix://",
        examples=["redis://localhost:6379/0"],
    )
    config: Path | None = Field(None, description="path of the campaigns' YAML file", examples=["campaigns.yaml"])
    topic_prefix: Formed = Field(
        "", max_length=200, description="at most 200 letters, digits, '.', '_' or '-'", examples=["shop."]
    )
    group: Formed = Field(
        "decisioning",
        min_length=1,
        max_length=200,
        description="1 to 200 letters, digits, '.', '_' or '-'",
        examples=["decisioning"],
    )
    partitions: int = Field(8, ge=1, le=1024, description="a whole number from 1 to 1024", examples=["8"])
    delivery: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once", description="exactly_once or at_least_once", examples=["exactly_once"]
    )
    fetch_wait_ms: int = Field(
        100, ge=1, le=500, description="milliseconds, 1 to 500, a fetch waits for a record", examples=["100"]
    )
    web_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="the address to listen on; 0.0.0.0 is every one",
        examples=["127.0.0.1"],
    )
    web_port: int = Field(
        6066,
        ge=0,
        le=HIGHEST_PORT,
        description="a port from 0 to 65535; 0 takes a free one",
        examples=["6066"],
    )
    pseudonym_key: Annotated[SecretStr | None, AfterValidator(_keys)] = Field(
        None,
        description="id:secret with a secret of at least 16 characters; older keys may follow, with commas between",
        examples=["2026:$(openssl rand -hex 32)"],
    )
    public_url: Formed | None = Field(
        None, description="the https:// address people reach us at", examples=["https://mail.example.com"]
    )
    token_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="a secret of at least 16 characters",
        examples=["$(openssl rand -hex 32)"],
    )
    copy_url: Formed | None = Field(
        None,
        description="the base URL of an OpenAI-compatible server, for `copy suggest`",
        examples=["http://localhost:11434/v1"],
    )
    copy_model: str | None = Field(None, min_length=1, description="the model to ask there", examples=["llama3.1"])
    copy_key: SecretStr | None = Field(None, min_length=1, description="the key for that server", examples=["…"])
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL", examples=["SASL_SSL"]
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", examples=["SCRAM-SHA-512"]
    )
    sasl_username: str | None = Field(None, min_length=1, description="a user of Kafka", examples=["decisioning"])
    sasl_password: SecretStr | None = Field(None, description="that user's password", examples=["…"])
    ssl_cafile: Path | None = Field(
        None, description="a PEM file of the authorities to trust", examples=["/etc/kafka/ca.pem"]
    )
    ssl_certfile: Path | None = Field(
        None, description="a PEM file with our certificate", examples=["/etc/kafka/client.pem"]
    )
    ssl_keyfile: Path | None = Field(
        None, description="a PEM file with the certificate's key", examples=["/etc/kafka/client.key"]
    )
    ssl_password: SecretStr | None = Field(None, description="the key file's password", examples=["…"])

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.sasl_username and self.sasl_password):
            raise ValueError(
                f"{PREFIX}SECURITY_PROTOCOL={self.security_protocol} needs a user; "
                f"set {PREFIX}SASL_USERNAME and {PREFIX}SASL_PASSWORD"
            )
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError(f"{PREFIX}SSL_KEYFILE is of no use alone; set {PREFIX}SSL_CERTFILE too")
        return self

    @property
    def brokers(self) -> list[str]:
        """Addresses of Kafka, `host:port` each."""
        return [part.strip() for part in self.kafka.split(",")]

    @property
    def redis_address(self) -> str:
        """Where Redis is, without user and password: safe to print."""
        url = urlsplit(self.redis)
        return url.path if url.scheme == "unix" else f"{url.hostname}:{url.port or 6379}{url.path}"

    @property
    def pseudonyms(self) -> Pseudonyms:
        """What stands for people outside of the decision path; nothing without a key."""
        key = self.pseudonym_key
        return Pseudonyms() if key is None else pseudonyms.parse(key.get_secret_value())

    def topic(self, name: str) -> str:
        """Full name of one of our topics."""
        return self.topic_prefix + name

    def kafka_options(self) -> dict[str, Any]:
        """Arguments every aiokafka client takes to reach this Kafka.

        Raises
        ------
        SettingsError
            A certificate or key file that cannot be read.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": self.brokers,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.startswith("SASL"):
            assert self.sasl_password is not None
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value(),
            }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        password = self.ssl_password.get_secret_value() if self.ssl_password else None
        where = f"{PREFIX}SSL_CAFILE={self.ssl_cafile}"
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
            where = f"{PREFIX}SSL_CERTFILE={self.ssl_certfile}, {PREFIX}SSL_KEYFILE={self.ssl_keyfile}"
            if self.ssl_certfile:
                # Without a password OpenSSL would ask for one on the terminal and hang a service.
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password or "")
        except (OSError, ValueError) as error:
            raise SettingsError(f"{where}: {error}; name readable PEM files that belong together") from None
        return context


def load(**overrides: Any) -> Settings:
    """Read the settings from the environment.

    Parameters
    ----------
    overrides
        Field -> value, as flags of the command gave them; None means not given.

    Raises
    ------
    SettingsError
        In one line: which variable or flag, its value (never a secret's), what was expected, what to set.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(problem, given) for problem in _problems(error))) from None


def _problems(error: ValidationError) -> list[Any]:
    """One problem per field: a wrong member of a union is reported once for each of its types."""
    return list({problem["loc"][:1]: problem for problem in error.errors(include_url=False)}.values())


def _sentence(problem: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    name = str(problem["loc"][0]).lower().removeprefix(PREFIX.lower())
    field = Settings.model_fields[name]
    variable, flag = PREFIX + name.upper(), "--" + name.replace("_", "-")
    secret = "SecretStr" in str(field.annotation) or name == "redis"
    value = "" if secret else f"={problem['input']}"
    example = (field.examples or [""])[0]
    remedy = f"{flag} {example}" if name in given else f"{variable}={example}"
    return f"{flag if name in given else variable}{value}: expected {field.description}; try {remedy}"


def unknown(environment: Mapping[str, str]) -> list[str]:
    """Name the variables that look like ours and are not.

    Returns
    -------
    list of str
        One warning a variable, with the closest name there is.
    """
    known = [name.upper() for name in Settings.model_fields]
    warnings = []
    for name in sorted(environment):
        own = name.upper().removeprefix(PREFIX)
        if name.upper().startswith(PREFIX) and own not in known and not own.startswith(TESTS):
            close = difflib.get_close_matches(own, known, n=1, cutoff=0.6)
            hint = f"did you mean {PREFIX}{close[0]}?" if close else f"known are {', '.join(known)}"
            warnings.append(f"{name} is not a setting and has no effect; {hint}")
    return warnings
