"""Links by which a recipient leaves with one click (RFC 8058), signed so that nobody can unsubscribe somebody else."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class Links:
    """Makes and reads unsubscribe tokens.

    Parameters
    ----------
    public_url
        Where the gateway is reached from outside; None: no links are made.
    key
        Secret of the signature.
    """

    public_url: str | None
    key: bytes

    def headers(self, person: str, channel: str, decision_id: str) -> dict[str, str]:
        """E-mail headers for one-click unsubscription; none for other channels."""
        if self.public_url is None or channel != "email":
            return {}
        link = f"{self.public_url.rstrip('/')}/unsubscribe/{self.token(person, channel, decision_id)}"
        return {"List-Unsubscribe": f"<{link}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}

    def token(self, person: str, channel: str, decision_id: str) -> str:
        """A token that names person, channel and decision, and is signed."""
        payload = orjson.dumps([person, channel, decision_id])
        return f"{_text(payload)}.{_text(self._signature(payload))}"

    def read(self, token: str) -> tuple[str, str, str] | None:
        """(person, channel, decision id) of a token that we made; None for any other text.

        Examples
        --------
        >>> links = Links("https://shop.example", b"secret")
        >>> links.read(links.token("u1", "email", "d1")), links.read("forged.token")
        (('u1', 'email', 'd1'), None)
        """
        payload_text, _, signature_text = token.partition(".")
        try:
            payload, signature = _bytes(payload_text), _bytes(signature_text)
        except ValueError:
            return None
        if not hmac.compare_digest(signature, self._signature(payload)):
            return None
        person, channel, decision_id = orjson.loads(payload)
        return person, channel, decision_id

    def _signature(self, payload: bytes) -> bytes:
        return hmac.digest(self.key, payload, "sha256")[:16]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
