"""What a proposed text must pass before a person is shown it: guardrails, decency, and nothing nobody promised."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from decisioning import content, guardrails, text_checks
from decisioning.config import Guardrails
from decisioning.guardrails import STANDARD_SPAM, Limits

MAX_CAPS: Final = 0.5
MAX_SUBJECT: Final = 78  # characters, RFC 5322's line
MAX_OTHER: Final = 500

PROFANITY: Final = (
    *("arse", "arsehole", "ass", "asshole", "bastard", "bitch", "bollocks", "bullshit", "cock", "crap", "cunt", "damn"),
    *("dick", "fuck", "fucked", "fucker", "fucking", "goddamn", "motherfucker", "piss", "prick", "pussy", "shit"),
    *("shitty", "slut", "twat", "wank", "wanker", "whore"),
    *("arsch", "arschloch", "fick", "ficken", "fotze", "hure", "hurensohn", "kacke", "scheisse", "scheiße", "wichser"),
)
_DISGUISES = str.maketrans("013457@$!", "oieastasi")
_MASKED = re.compile(r"(?<!\w)(?:f[*#_.-]{1,3}c?k|sh[*#_.-]{1,2}t|b[*#_.-]{1,3}ch|c[*#_.-]{1,2}nt)(?!\w)")

# What a text may not set out to do, whoever asks for it.
DECEIT: Final = {
    "a false reply": r"^\s*(?:re|fw|fwd|aw|wg)\s*:",
    "a false alarm": r"\b(?:account|konto)\b.{0,40}\b(?:suspend|block|lock|clos|restrict|gesperrt|geschlossen)"
    r"|\b(?:verify|confirm|update) your (?:account|identity|payment|password|details)"
    r"|\b(?:payment|delivery|order|zahlung|lieferung) (?:failed|declined|problem|fehlgeschlagen)"
    r"|\bsecurity alert\b|\bunusual (?:activity|sign)",
    "asking for a secret": r"\b(?:password|passwort|pin|cvv|card number|kartennummer|social security)\b",
    "a promise of health or riches": r"\b(?:cures?|heals?|miracle|lose weight|get rich|heilt|reich werden)\b",
    "a prize nobody won": r"\b(?:you(?:'ve| have)? won|winner|gewonnen|lottery|jackpot)\b",
}
# What it may do only where the campaign's approved texts or the brief do it too.
CLAIMS: Final = {
    "a discount": r"\b(?:discount|sale|deal|save|cheaper|voucher|coupon|rabatt|gutschein|reduziert)\b|%",
    "a gift": r"\b(?:free|gratis|kostenlos|gift|geschenk)\b",
    "a deadline": r"\b(?:today only|only today|tonight|last chance|hurry|expires?|ends? (?:today|soon|tonight)"
    r"|nur heute|letzte chance|läuft ab)\b",
    "scarcity": r"\b(?:only \w+ left|almost gone|selling out|sold out soon|few left|fast ausverkauft|nur noch)\b",
    "a guarantee": r"\b(?:guarantee|guaranteed|garantie|garantiert)\b",
    "a link": r"https?://|www\.",
}
_NUMBER = re.compile(r"[€$£]?\d[\d.,]*\s*(?:%|€|\$|£|eur|usd)?")
_LIQUID = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Screen:
    """What the texts of one slot have to pass.

    Attributes
    ----------
    slot, guardrails
        Where they go, and what the configuration forbids.
    known
        All texts the slot has already, whatever their status: what was rejected once is not proposed again.
    licence
        Approved texts and the brief: what these promise may be promised.
    """

    slot: str
    guardrails: Guardrails
    known: tuple[str, ...]
    licence: str

    def refusal(self, text: str) -> str | None:
        """Why a text is not to be shown to anybody, None where it may be.

        Examples
        --------
        >>> screen = Screen("subject", Guardrails(), ("Hello",), "Get 10% off")
        >>> screen.refusal("10% off, today only"), screen.refusal("Your boots, 10% off")
        ('intent: a deadline that nobody promised', None)
        """
        if not text.isprintable() or not text or text.strip() != text:
            return "form: it is not one line of text"
        problems = content.problems(text)
        if problems:
            return f"liquid: {problems[0].message}"
        if missing := content.absent(text):
            return f"liquid: {missing[0]} has no default"
        if _alike(text) in {_alike(known) for known in self.known}:
            return "duplicate: the slot has it already"
        broken = text_checks.breaks(self.slot, text, "line", self._limits())
        if broken is not None:
            return f"guardrail: {broken}"
        seen = guardrails.folded(" ".join(content.fixed_parts(text)))
        return _profane(seen) or self._intent(text, seen)

    def _limits(self) -> Limits:
        """The configuration's guardrails, and for generated texts our own where it has none."""
        own = self.guardrails
        longest = {self.slot: MAX_SUBJECT if self.slot == "subject" else MAX_OTHER, **own.max_length}
        return Limits(own.banned, longest, own.spam_phrases or STANDARD_SPAM, own.max_caps or MAX_CAPS)

    def _intent(self, text: str, seen: str) -> str | None:
        for what, pattern in DECEIT.items():
            if re.search(pattern, seen):
                return f"intent: {what}"
        licence = guardrails.folded(self.licence)
        for what, pattern in CLAIMS.items():
            if re.search(pattern, seen) and not re.search(pattern, licence):
                return f"intent: {what} that nobody promised"
        promised = {match[0].strip() for match in _NUMBER.finditer(licence)}
        for match in _NUMBER.finditer(guardrails.folded(_LIQUID.sub(" ", text))):
            if match[0].strip() not in promised:
                return f"intent: the number {match[0].strip()} is nobody's"
        return None


def _profane(seen: str) -> str | None:
    plain = seen.translate(_DISGUISES)
    pattern = guardrails.phrases(PROFANITY)
    found = pattern.search(seen) or pattern.search(plain) or _MASKED.search(seen)
    return "profanity" if found else None


def _alike(text: str) -> str:
    return " ".join(re.findall(r"\w+", guardrails.folded(text)))
