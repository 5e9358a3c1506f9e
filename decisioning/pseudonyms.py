"""Pseudonyms: what stands for a person outside of the decision path, so that one person's records can be told.

A pseudonym is an HMAC of the person's id under a secret, with the id of the key in front. Whoever has the key can
compute it from an id; nobody can compute an id from it. With a new key in front of the old ones, what is written from
then on bears new pseudonyms, and those under the old keys can still be computed to find what was written before.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Final

MIN_SECRET_CHARACTERS: Final = 16
_DIGEST_BYTES: Final = 16
_KEY_ID_BYTES: Final = 4
_NAMED = re.compile(r"([A-Za-z0-9._-]{1,32}):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Key:
    """A secret and what it is called."""

    id: str
    secret: bytes


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Computes pseudonyms.

    Parameters
    ----------
    keys
        The first makes new pseudonyms; the others are for finding old ones. None: there are no pseudonyms.
    """

    keys: tuple[Key, ...] = ()

    def of(self, person: str) -> str | None:
        """The person's pseudonym, None without a key: `<key id>:<32 hexadecimal digits>`.

        Examples
        --------
        >>> names = parse("2026:not-a-secret-at-all")
        >>> names.of("u1") == names.of("u1") != names.of("u2")
        True
        >>> names.of("u1")[:5], Pseudonyms().of("u1")
        ('2026:', None)
        """
        return _pseudonym(self.keys[0], person) if self.keys else None

    def all(self, person: str) -> list[str]:
        """The person's pseudonyms under every key, the one in use first."""
        return [_pseudonym(key, person) for key in self.keys]


def parse(text: str) -> Pseudonyms:
    """Keys from a setting: `id:secret`, several with commas between.

    A secret without an id gets one that is computed from it, so that another secret never goes by the same name.

    Raises
    ------
    ValueError
        A secret is too short, or two keys have the same id; the message quotes no secret.
    """
    keys = tuple(_key(part.strip()) for part in text.split(","))
    if len({key.id for key in keys}) < len(keys):
        raise ValueError("two keys have the same id")
    return Pseudonyms(keys)


def _key(text: str) -> Key:
    named = _NAMED.fullmatch(text)
    name, secret = named.groups() if named else ("", text)
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise ValueError(f"a secret has at least {MIN_SECRET_CHARACTERS} characters")
    key = secret.encode()
    return Key(name or hmac.digest(key, b"key id", "sha256")[:_KEY_ID_BYTES].hex(), key)


def _pseudonym(key: Key, person: str) -> str:
    digest = hmac.digest(key.secret, b"person\0" + person.encode(), "sha256")
    return f"{key.id}:{digest[:_DIGEST_BYTES].hex()}"
