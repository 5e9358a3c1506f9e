"""Proposals without any server: sentences from a small grammar, the same ones for the same seed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from bandits.policy import uniform_number
from decisioning.drafts import Brief, Proposal

Rules = Mapping[str, Sequence[str]]

MAX_EXPANSIONS: Final = 200  # of rules within one sentence
TRIES: Final = 20  # for each sentence that is asked for

_NAME = "{{ user.first_name | default: 'there' }}"
_ITEM = "{{ event.properties.name | default: 'your pick' }}"
_START = {
    "added": "cart",
    "cart": "cart",
    "checkout": "cart",
    "viewed": "browse",
    "restock": "restock",
    "order": "thanks",
}
RULES: Final[Rules] = {
    "any": ["[hello], [reason]", "[reason], [name]", "[reason]"],
    "hello": ["Hi [name]", "Hello [name]", "[name]"],
    "name": [_NAME],
    "item": [_ITEM],
    "reason": [
        "we have something for you",
        "a little note from us",
        "this may be of use to you",
        "have a look at this",
    ],
    "cart": [
        "[hello], [cart-reason]",
        "[cart-reason], [name]",
        "[cart-reason]",
        "[cart-question]",
        "[hello], [cart-question]",
    ],
    "cart-reason": [
        "[item] is still in your cart",
        "we kept [item] for you",
        "[item] is waiting for you",
        "your cart is where you left it",
    ],
    "cart-question": ["still thinking about [item]?", "shall we keep [item] for you?", "questions about [item]?"],
    "browse": ["[hello], [browse-reason]", "[browse-reason], [name]", "[browse-reason]", "another look at [item]?"],
    "browse-reason": [
        "you looked at [item]",
        "more about [item]",
        "[item] and what goes with it",
    ],
    "restock": ["[hello], [restock-reason]", "[restock-reason], [name]", "[restock-reason]"],
    "restock-reason": ["[item] is back", "[item] is here again", "back in stock: [item]"],
    "thanks": ["[hello], [thanks-reason]", "[thanks-reason], [name]", "[thanks-reason]", "[hello], [thanks-question]"],
    "thanks-reason": ["thank you for your order", "thanks for shopping with us", "tell us how it went"],
    "thanks-question": ["how do you like it?", "how was it?", "did all go well?"],
}
_REFERENCE = re.compile(r"\[([a-z][a-z0-9-]*)\]")


class GrammarError(ValueError):
    """A grammar that cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A generator that needs nothing but rules.

    Attributes
    ----------
    rules
        Name -> alternatives; `[name]` in one stands for any of that rule's. A sentence begins at the rule that fits the
        campaign's trigger (`cart`, `browse`, `restock`, `thanks`), else at `any`.
    seed
        The same seed gives the same sentences.
    """

    rules: Rules = field(default_factory=lambda: RULES)
    seed: int = 1

    name: ClassVar[str] = "grammar"
    model: ClassVar[str] = "grammar-v1"

    def propose(self, brief: Brief, count: int) -> Proposal:
        """Sentences, at most `count`; each of them once.

        Raises
        ------
        GrammarError
            A rule never ends.
        """
        words = " ".join(brief.trigger).lower()
        start = next((rule for word, rule in _START.items() if word in words), "any")
        start = start if start in self.rules else "any"
        key = f"{self.seed}/{brief.campaign}/{brief.slot}"
        texts: dict[str, None] = {}
        for index in range(count * TRIES):
            text = self._expanded(start, f"{key}/{index}")
            texts[text[:1].upper() + text[1:]] = None
            if len(texts) == count:
                break
        told = json.dumps([key, start, sorted((name, list(forms)) for name, forms in self.rules.items())])
        return Proposal(tuple(texts), hashlib.sha256(told.encode()).hexdigest()[:16])

    def _expanded(self, start: str, key: str) -> str:
        text, expansions = f"[{start}]", 0
        while (match := _REFERENCE.search(text)) is not None:
            forms = self.rules[match[1]]
            chosen = forms[int(uniform_number(f"{key}/{expansions}".encode()) * len(forms))]
            text = text[: match.start()] + chosen + text[match.end() :]
            expansions += 1
            if expansions > MAX_EXPANSIONS:
                raise GrammarError(f'rule "{match[1]}" never ends; let one of its alternatives be without [{match[1]}]')
        return text


def rules_of(data: Any) -> Rules:
    """Rules as a file has them: a mapping of names to lists of texts, with the rule `any`.

    Raises
    ------
    GrammarError
        They are no such thing, or name a rule that is not there.
    """
    if not isinstance(data, dict) or "any" not in data:
        raise GrammarError('expected rules by name, "any" among them; write any: ["Hello [name]"]')
    for name, forms in data.items():
        if not isinstance(forms, tuple) or not forms or not all(isinstance(form, str) for form in forms):
            raise GrammarError(f'rule "{name}": expected a list of texts; write {name}: ["…", "…"]')
        for form in forms:
            for match in _REFERENCE.finditer(form):
                if match[1] not in data:
                    raise GrammarError(f'rule "{name}": there is no rule "{match[1]}"; add it, or remove [{match[1]}]')
    return data
