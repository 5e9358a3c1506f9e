"""What `check` says of texts: Liquid and MJML that do not work out, guardrails that are broken, odd blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from decisioning import content, guardrails
from decisioning.content import ContentError, Kind
from decisioning.fields import block
from decisioning.guardrails import STANDARD_SPAM, Limits
from decisioning.semantics import VARIANTS, select

if TYPE_CHECKING:
    from collections.abc import Iterator

    from decisioning.findings import FieldPath
    from decisioning.yaml_source import Source

_REMEDIES = {
    "braces": "close the braces, or remove them",
    "spam": "reword it, or set status: draft",
    "banned": "reword it, or set status: draft",
    "too_long": "shorten it",
    "all_caps": "write it in small letters",
    "unsafe_link": "link to an https:// address",
}


def examine(source: Source) -> None:
    """Add to `source` what is wrong or odd with texts, whatever else the file's shape may be."""
    limits = _limits(source)
    for owner, variant in select(source.data, VARIANTS):
        if not isinstance(variant, dict):
            continue
        is_sent = variant.get("status", "approved") == "approved"
        for inner, slot, kind, text in _texts(str(owner[3]), variant):
            path = owner + inner
            problems = content.problems(text, kind)
            for problem in problems:
                source.find("error", path, f"{problem.message} (at {_spot(problem)} of the text)", problem.remedy)
            if problems or not is_sent:
                continue
            for name in content.absent(text, kind):
                remedy = f"try \"{{{{ {name} | default: '…' }}}}\"; without one the variant sleeps for such persons"
                source.find("warning", path, f"{name} may be absent and has no default", remedy)
            broken = breaks(slot, text, kind, limits)
            if broken is not None:
                source.find("error", path, _said(broken, slot, limits), _REMEDIES[broken.partition(":")[0]])
    for index, campaign in select(source.data, ("campaigns", "*", "variants")):
        _shared_blocks(source, index, campaign)


def breaks(slot: str, text: str, kind: Kind, limits: guardrails.Guardrails) -> str | None:
    """Which guardrail the fixed parts of a template break, None for none (see `guardrails.breaks`)."""
    parts = content.fixed_parts(text, kind)
    for part in parts:
        broken = guardrails.breaks(slot, part, limits)
        if broken is not None and broken != "all_caps":  # a single part says little about the whole
            return broken
    if kind in ("html", "mjml") and guardrails.has_unsafe_link(text):
        return "unsafe_link"
    if limits.max_caps is not None and guardrails.caps_share(" ".join(parts)) > limits.max_caps:
        return "all_caps"
    return None


def _texts(slot: str, variant: dict[str, Any]) -> Iterator[tuple[FieldPath, str, Kind, str]]:
    """Path within the variant, slot or block, kind and source of each text."""
    text = variant.get("text")
    if isinstance(text, str):
        yield ("text",), slot, content.kind_of(slot, text), text
    for path, value in select(variant, ("blocks", "*")):
        try:
            made = block(value)
        except PydanticCustomError:  # of its shape is said elsewhere
            continue
        yield path, str(path[-1]), made.kind, made.source


def _limits(source: Source) -> Limits:
    """Guardrails as far as the file has them in usable form."""
    lists = {
        name: tuple(
            text for _, text in select(source.data, ("guardrails", name, "*")) if isinstance(text, str) and text
        )
        for name in ("banned", "spam_phrases")
    }
    if source.at(("guardrails", "spam_phrases")) == "standard":
        lists["spam_phrases"] = STANDARD_SPAM
    lengths = {
        str(found[2]): value
        for found, value in select(source.data, ("guardrails", "max_length", "*"))
        if isinstance(value, int)
    }
    caps = source.at(("guardrails", "max_caps"))
    return Limits(lists["banned"], lengths, lists["spam_phrases"], caps if isinstance(caps, int | float) else None)


def _said(broken: str, slot: str, limits: Limits) -> str:
    kind, _, words = broken.partition(":")
    return {
        "braces": "braces stand in the text that nothing fills in",
        "banned": f'"{words}" is banned (guardrails.banned)',
        "spam": f'"{words}" reads as spam (guardrails.spam_phrases)',
        "too_long": f"expected at most {limits.max_length.get(slot)} characters (guardrails.max_length)",
        "all_caps": f"too many capitals (guardrails.max_caps is {limits.max_caps})",
        "unsafe_link": "a link runs a script",
    }[kind]


def _spot(problem: ContentError) -> str:
    return f"character {problem.column}" if problem.line == 1 else f"line {problem.line}, character {problem.column}"


def _shared_blocks(source: Source, path: FieldPath, slots: Any) -> None:
    """Blocks go by their names alone: of two slots that have the same one, the later wins."""
    owners: dict[str, str] = {}
    for inner, _ in select(slots, ("*", "*", "blocks", "*")):
        slot, name = str(inner[0]), str(inner[-1])
        first = owners.setdefault(name, slot)
        if first != slot:
            owners[name] = slot
            said = f'slot "{first}" has a block "{name}" too; the later slot\'s is sent'
            source.find("warning", (*path, *inner), said, "rename one of them")
