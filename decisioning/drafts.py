"""Proposed texts on their way into the configuration file: brief, draft, and a person's verdict.

Everything here is a pure function of texts. Only a review makes a draft an approved variant, and it holds for the words
that were reviewed alone (`config.Variant`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from decisioning import yaml_edit
from decisioning.config import Campaign, Config, Variant
from decisioning.findings import FieldPath
from decisioning.screening import MAX_OTHER, MAX_SUBJECT, Screen

SHOWN_TEXTS: Final = 20
SYSTEM: Final = (
    "You write short marketing texts. Answer with a JSON array of strings and nothing else. Plain text of one line "
    "each, in the language of the examples. Personal values only as Liquid with a default, such as "
    "{{ user.first_name | default: 'there' }}. Promise nothing that the brief or the examples do not promise: no "
    "discounts, gifts, deadlines, numbers or links of your own. No capitals for emphasis, no exclamation marks in rows."
)


@dataclass(frozen=True, slots=True)
class Brief:
    """What a generator is told; nothing about any person is in it.

    Attributes
    ----------
    campaign, slot
        Where the texts go.
    trigger, goal
        Names of the events that start the campaign, and of those it wants.
    examples, refused
        Texts that are approved, and texts that were rejected.
    notes
        What the person who asks adds.
    max_length
        Greatest number of characters.
    """

    campaign: str
    slot: str
    trigger: tuple[str, ...]
    goal: tuple[str, ...]
    examples: tuple[str, ...]
    refused: tuple[str, ...]
    notes: str
    max_length: int

    def prompt(self, count: int) -> str:
        """The brief as a text."""
        parts = {
            "task": f"Write {count} different texts for the {self.slot} of the campaign {self.campaign}.",
            "answers_to_events": self.trigger,
            "wants_events": self.goal,
            "at_most_characters": self.max_length,
            "examples": self.examples[:SHOWN_TEXTS],
            "rejected_before": self.refused[:SHOWN_TEXTS],
            "notes": self.notes,
        }
        return json.dumps(parts, ensure_ascii=False, indent=1)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a generator answered: texts, and a hash (16 hex digits) of what it was asked."""

    texts: tuple[str, ...]
    prompt_hash: str


class Generator(Protocol):
    """Something that proposes texts."""

    @property
    def name(self) -> str:
        """What it is called in the provenance of a draft."""

    @property
    def model(self) -> str:
        """Which model or version of it answers."""

    def propose(self, brief: Brief, count: int) -> Proposal:
        """Propose about so many texts."""


def brief_of(config: Config, campaign: Campaign, slot: str, notes: str) -> Brief:
    """What a generator is to know of a slot."""
    variants = campaign.variants[slot]
    return Brief(
        campaign=campaign.id,
        slot=slot,
        trigger=campaign.trigger.events,
        goal=campaign.goal.events if campaign.goal else (),
        examples=tuple(variant.text for variant in variants if variant.status == "approved"),
        refused=tuple(variant.text for variant in variants if variant.status == "rejected"),
        notes=notes,
        max_length=config.guardrails.max_length.get(slot, MAX_SUBJECT if slot == "subject" else MAX_OTHER),
    )


def screened(
    config: Config, campaign: Campaign, brief: Brief, texts: Sequence[str]
) -> Iterator[tuple[str, str | None]]:
    """Each proposed text with the reason why it is refused, None where it may become a draft."""
    licence = "\n".join((*brief.examples, brief.notes))
    known = tuple(variant.text for variant in campaign.variants[brief.slot])
    for text in texts:
        screen = Screen(brief.slot, config.guardrails, known, licence)
        why = screen.refusal(text)
        if why is None:
            known = (*known, text)
        yield text, why


def draft(generator: Generator, proposal: Proposal, text: str, created_at: str) -> dict[str, Any]:
    """A variant as it goes into the file."""
    return {
        "id": f"{generator.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}",
        "text": text,
        "status": "draft",
        "provenance": {
            "generator": generator.name,
            "model": generator.model,
            "prompt_hash": proposal.prompt_hash,
            "created_at": created_at,
        },
    }


def added(text: str, config: Config, campaign: Campaign, slot: str, drafts: Sequence[dict[str, Any]]) -> str:
    """The file with drafts at the end of a slot.

    Raises
    ------
    EditError
        Its layout does not allow it.
    """
    path: FieldPath = ("campaigns", config.campaigns.index(campaign), "variants", slot)
    for made in drafts:
        text = yaml_edit.append(text, path, made)
    return text


@dataclass(frozen=True, slots=True)
class Entry:
    """One variant and where it stands in the file."""

    path: FieldPath
    variant: Variant


def entries(config: Config, campaign_id: str | None) -> Iterator[tuple[str, Entry]]:
    """Every variant of all campaigns or one, as (`campaign/slot/id`, entry)."""
    for index, campaign in enumerate(config.campaigns):
        if campaign_id in (None, campaign.id):
            for slot, variants in campaign.variants.items():
                for number, variant in enumerate(variants):
                    path: FieldPath = ("campaigns", index, "variants", slot, number)
                    yield f"{campaign.id}/{slot}/{variant.id}", Entry(path, variant)


def reviewed(
    text: str, entry: Entry, verdict: Literal["approved", "rejected"], by: str, at: str, note: str | None
) -> str:
    """The file with a verdict on one draft: who, when, and on which words.

    Raises
    ------
    EditError
        The file's layout does not allow it.
    """
    text = yaml_edit.assign(text, (*entry.path, "status"), verdict)
    record = {"reviewed_by": by, "reviewed_at": at, "reviewed_text": entry.variant.text_hash}
    if note is not None:
        record["note"] = note
    provenance = (*entry.path, "provenance")
    if entry.variant.provenance is None:
        return yaml_edit.assign(text, provenance, record)
    for key, value in record.items():
        text = yaml_edit.assign(text, (*provenance, key), value)
    return text
