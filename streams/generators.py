"""Proposals from a server: any that speaks the chat completions of OpenAI's API."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import aiohttp

from decisioning.drafts import SYSTEM, Brief, Proposal
from streams.failure import Failure

MAX_ANSWER_BYTES: Final = 1 << 20
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
UNAUTHORIZED: Final = (401, 403)
NOT_FOUND: Final = 404
TOO_MANY: Final = 429
REDIRECTS: Final = range(300, 400)

_FENCE = re.compile(r"^```\w*\s*\n(.*?)\n?```\s*$", re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")


@dataclass(frozen=True, slots=True)
class HttpGenerator:
    """Asks a server.

    Attributes
    ----------
    url, model
        The API's base, such as `https://api.example.com/v1`, and the model to ask for.
    key
        Sent as a bearer token; never printed, never over plain HTTP to another machine.
    timeout_s
        For the whole exchange.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0

    name: ClassVar[str] = "http"

    def propose(self, brief: Brief, count: int) -> Proposal:
        """Ask once.

        Raises
        ------
        Failure
            The server cannot be reached, refuses, takes too long or answers otherwise; one line with a remedy.
        """
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": brief.prompt(count)}]
        asked = {"model": self.model, "messages": messages}
        told = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        url = urlsplit(self.url)
        if self.key and url.scheme != "https" and url.hostname not in LOCAL_HOSTS:
            raise Failure(f"{self._where}: the key would travel unencrypted; use https://, or unset the key")
        try:
            answer = asyncio.run(self._ask(asked))
        except TimeoutError:
            raise Failure(f"{self._where} did not answer within {self.timeout_s:g} s; raise --timeout") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise Failure(f"{self._where} does not answer ({why}); is DECISIONING_COPY_URL right?") from None
        return Proposal(texts_of(answer)[:count], told)

    @property
    def _where(self) -> str:
        url = urlsplit(self.url)  # without user, password and query
        return f"{url.scheme}://{url.hostname}{f':{url.port}' if url.port else ''}{url.path}"

    async def _ask(self, asked: dict[str, Any]) -> str:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.post(f"{self.url.rstrip('/')}/chat/completions", json=asked, allow_redirects=False) as response,
        ):
            self._check(response.status)
            body = await response.content.read(MAX_ANSWER_BYTES + 1)
            while len(body) <= MAX_ANSWER_BYTES and (more := await response.content.read(MAX_ANSWER_BYTES)):
                body += more
        if len(body) > MAX_ANSWER_BYTES:
            raise Failure(f"{self._where} answered with more than {MAX_ANSWER_BYTES >> 20} MB; ask for fewer texts")
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            content = None
        if not isinstance(content, str):
            raise Failure(f"{self._where} answered no chat completion; does the URL end as it should, in /v1?")
        return content

    def _check(self, status: int) -> None:
        if status in UNAUTHORIZED:
            remedy = "set DECISIONING_COPY_KEY to a key it accepts"
        elif status == NOT_FOUND:
            remedy = f"does the URL end in /v1, and is there a model {self.model!r}?"
        elif status == TOO_MANY:
            remedy = "try again later"
        elif status in REDIRECTS:
            remedy = "redirects are not followed, give the final URL"
        elif status >= REDIRECTS.stop:
            remedy = "see the server's log"
        else:
            return
        raise Failure(f"{self._where} answered {status}; {remedy}")


def texts_of(answer: str) -> tuple[str, ...]:
    r"""Texts of an answer: a JSON array as was asked for, an object with one, or else its lines.

    Examples
    --------
    >>> texts_of('["a", "b"]'), texts_of("1. a\n2. b")
    (('a', 'b'), ('a', 'b'))
    """
    fenced = _FENCE.match(answer.strip())
    plain = fenced[1] if fenced else answer.strip()
    try:
        found = json.loads(plain)
    except (ValueError, RecursionError):
        lines = (_BULLET.sub("", line).strip() for line in plain.splitlines())
        return tuple(line for line in lines if line)
    if isinstance(found, dict):
        found = next((value for value in found.values() if isinstance(value, list)), [])
    return tuple(text for text in found if isinstance(text, str)) if isinstance(found, list) else ()
