"""What no text may hold: banned words and phrases, too many characters or capitals, and braces nobody filled in."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol

# What filters of mailbox providers and their published lists agree on; in English and German.
STANDARD_SPAM: Final = (
    "100% free",
    "100% gratis",
    "100% kostenlos",
    "!!!",
    "$$$",
    "act now",
    "apply now",
    "as seen on",
    "buy direct",
    "call now",
    "cash bonus",
    "click here",
    "congratulations",
    "dear friend",
    "double your",
    "earn extra cash",
    "eilt sehr",
    "extra income",
    "free gift",
    "garantiert gratis",
    "get paid",
    "herzlichen glückwunsch",
    "jetzt zuschlagen",
    "klicken sie hier",
    "limited time",
    "lowest price",
    "make money",
    "miracle",
    "money back",
    "no catch",
    "no obligation",
    "nur für kurze zeit",
    "once in a lifetime",
    "order now",
    "risk free",
    "risk-free",
    "schnell geld verdienen",
    "sie haben gewonnen",
    "this is not spam",
    "urgent",
    "what are you waiting for",
    "winner",
    "you have been selected",
    "you have won",
)
MIN_LETTERS: Final = 8  # of fewer, such as a brand's name, capitals say nothing
GAP: Final = "\ufffc"  # stands where a value will be
URL_ATTRIBUTES: Final = r"(?:href|src|action|formaction|background|poster)"

_BRACES = ("{{", "}}", "{%", "%}")
# Each alternative takes the rest where its end is missing, so that no text makes the search go back: it is linear.
_MARKUP = re.compile(
    r"<!(?:--(?:.*?-->|.*)|[^>]*>?)"
    r"|<(style|script|title|head)\b[^>]*(?:>(?:.*?</\1\s*>|.*))?"
    r"|</?([a-z][\w:-]*)(?:[^\"'>]+|\"[^\"]*\"|'[^']*')*(?:>|.*)",
    re.DOTALL | re.IGNORECASE,
)
# Within a word these change nothing that a reader sees; all other tags separate.
_INLINE = re.compile(r"a|abbr|b|big|code|em|font|i|mark|s|small|span|strong|sub|sup|u|wbr", re.IGNORECASE)
_LINK = re.compile(rf"\b{URL_ATTRIBUTES}\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_IGNORED_IN_LINKS = re.compile(r"[\x00-\x20]+")
_UNSAFE_SCHEMES = ("javascript:", "vbscript:", "data:text/", "data:application/", "data:image/svg")


class Guardrails(Protocol):
    """What no text may hold (`config.Guardrails` is one)."""

    @property
    def banned(self) -> tuple[str, ...]:
        """Words or phrases, as they were written."""

    @property
    def max_length(self) -> dict[str, int]:
        """Slot or block -> greatest number of characters that a reader sees."""

    @property
    def spam_phrases(self) -> tuple[str, ...]:
        """Words or phrases that make a message look like spam."""

    @property
    def max_caps(self) -> float | None:
        """Greatest share of capitals among the letters of a text, None for any."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Guardrails on their own, without a configuration."""

    banned: tuple[str, ...] = ()
    max_length: dict[str, int] = field(default_factory=dict)
    spam_phrases: tuple[str, ...] = ()
    max_caps: float | None = None


def breaks(slot: str, text: str, guardrails: Guardrails, *, is_html: bool = False) -> str | None:
    """Say which guardrail a text breaks, or None.

    Parameters
    ----------
    slot
        Name of the slot or block, for its greatest length in characters.
    text
        As it would be sent, or a fixed part of it. Words are whole words in any case; compatibility forms and invisible
        characters within them make no difference.
    is_html
        Whether only what a reader sees counts: no tags, comments and styles, and entities as characters.

    Returns
    -------
    str or None
        `braces`, `banned:<word>`, `spam:<phrase>`, `too_long`, `all_caps` or `unsafe_link`.

    Examples
    --------
    >>> breaks("subject", "Hi {{ first_name }}", Limits())
    'braces'
    >>> breaks("body", "<p>g<b>uarantee</b>d</p>", Limits(banned=("guaranteed",)), is_html=True)
    'banned:guaranteed'
    """
    braces = _BRACES[::2] if is_html else _BRACES  # styles end in two closing ones
    if ("{" in text or "}" in text) and any(brace in text for brace in braces):
        return "braces"
    if is_html and has_unsafe_link(text):
        return "unsafe_link"
    has_words = guardrails.banned or guardrails.spam_phrases
    if not has_words and guardrails.max_caps is None and slot not in guardrails.max_length:
        return None
    return _breaks_words(slot, visible(text) if is_html else text, guardrails)


def _breaks_words(slot: str, seen: str, guardrails: Guardrails) -> str | None:
    for kind, words in (("banned", guardrails.banned), ("spam", guardrails.spam_phrases)):
        if words and (match := phrases(words).search(folded(seen))) is not None:
            return f"{kind}:{match[0]}"
    longest = guardrails.max_length.get(slot)
    if longest is not None and len(seen) > longest:
        return "too_long"
    return "all_caps" if guardrails.max_caps is not None and caps_share(seen) > guardrails.max_caps else None


def caps_share(text: str) -> float:
    """Share of capitals among the letters that have a case; 0 of fewer than eight.

    Examples
    --------
    >>> caps_share("LAST CHANCE, Ann"), caps_share("IKEA")
    (0.8461538461538461, 0.0)
    """
    upper = sum(map(str.isupper, text))
    cased = upper + sum(map(str.islower, text))
    return upper / cased if cased >= MIN_LETTERS else 0.0


def visible(markup: str) -> str:
    """What a reader sees of HTML.

    Examples
    --------
    >>> visible("<style>p{}</style><p>Tom &amp; <b>J</b>erry</p><p>!</p>")
    'Tom & Jerry !'
    """
    text = _MARKUP.sub(lambda match: "" if match[2] and _INLINE.fullmatch(match[2]) else " ", markup)
    return " ".join(html.unescape(text).split())


def has_unsafe_link(markup: str) -> bool:
    """Whether a link runs a script or is a document of its own, instead of leading somewhere."""
    for match in _LINK.finditer(markup):
        url = _IGNORED_IN_LINKS.sub("", html.unescape(match[1] or match[2] or "")).casefold()
        if url.startswith(_UNSAFE_SCHEMES):
            return True
    return False


def folded(text: str) -> str:
    """One form for all that reads alike: no case, no compatibility forms, nothing invisible."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return text.casefold()


@lru_cache(maxsize=64)
def phrases(words: tuple[str, ...]) -> re.Pattern[str]:
    """Pattern that finds any of the words or phrases in a folded text, as whole words (signs need no space around)."""
    patterns = (
        rf"{_edge(word[0])}{_spaced(word)}{_edge(word[-1])}" for word in map(str.strip, map(folded, words)) if word
    )
    return re.compile("|".join(patterns) or "(?!)")


def _spaced(word: str) -> str:
    return r"\s+".join(map(re.escape, word.split()))


def _edge(character: str) -> str:
    return r"\b" if re.match(r"\w", character) else ""


def fixed_parts(parts: Sequence[str], *, is_html: bool) -> tuple[str, ...]:
    """What is certain to be seen of a template, from its literal parts: between two of them stands a value."""
    if not is_html:
        return tuple(parts)
    return tuple(part for part in visible(GAP.join(parts)).split(GAP) if part)
