"""MJML -> HTML, with the Liquid in it untouched.

Every `{{ … }}` and `{% … %}` is replaced by a word before MJML is compiled and put back afterwards, so that quotes,
angle brackets and braces of Liquid mean nothing to the compiler. A tag between two MJML elements is wrapped in
`<mj-raw>`, where MJML lets anything pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import Final

from mjml import mjml2html

MAX_DEPTH: Final = 60  # elements within elements; the compiler recurses, and its stack is not ours to overflow
_ELEMENT = re.compile(
    r"mj-(?:accordion(?:-element|-text|-title)?|all|attributes|body|breakpoint|button|carousel(?:-image)?|class|column|"
    r"divider|font|group|head|hero|image|navbar(?:-link)?|preview|raw|section|social(?:-element)?|spacer|style|table|"
    r"text|title|wrapper)"
)
_HOLDS_ELEMENTS = ("mj-body", "mj-wrapper", "mj-section", "mj-group", "mj-column", "mj-hero")
_VOID = ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr")

_LIQUID = re.compile(r"\{%-?\s*(raw|comment)\s*-?%\}.*?\{%-?\s*end\1\s*-?%\}|\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_PIECE = re.compile(
    r"<!--(?:.*?-->|.*)|<(/?)([a-zA-Z][\w:-]*)((?:[^<>\"']+|\"[^\"]*\"|'[^']*')*)(?:>|.*)|(liquid\d+z\d+z)", re.DOTALL
)


class MarkupError(ValueError):
    """MJML that cannot be compiled.

    Attributes
    ----------
    index
        Where in the source, from 0.
    remedy
        What to do.
    """

    def __init__(self, index: int, message: str, remedy: str) -> None:
        super().__init__(message)
        self.index = index
        self.remedy = remedy


@lru_cache(maxsize=1_024)
def to_html(source: str) -> str:
    """Compile MJML; a pure function of its source.

    Parameters
    ----------
    source
        MJML with Liquid anywhere: in texts and attributes, and tags around elements.

    Returns
    -------
    str
        HTML with the same Liquid in it.

    Raises
    ------
    MarkupError
        It is no MJML, or Liquid stands where it would get lost.
    """
    mark = next(mark for number in range(len(source) + 1) if (mark := f"liquid{number}z") not in source)
    pieces = list(_LIQUID.finditer(source))
    numbers = count()
    hidden = _LIQUID.sub(lambda _: _word(mark, next(numbers)), source)
    prepared = _prepared(hidden, lambda index: _place(index, pieces, mark))
    try:
        made = mjml2html(prepared)
    except ValueError as error:
        said = str(error).replace(" in root template", "")
        raise MarkupError(0, said, "close every element, and write < as &lt; and & as &amp;") from None
    word = re.compile(rf"{mark}(\d+)z")
    found = [int(match[1]) for match in word.finditer(made)]
    tags = [number for number, piece in enumerate(pieces) if piece[0].startswith("{%")]
    for number, piece in enumerate(pieces):
        if number not in found:
            raise MarkupError(piece.start(), "the compiler drops this", "move it into a text or a link")
    if [number for number in found if number in set(tags)] != tags:
        raise MarkupError(pieces[tags[0]].start(), "the compiler moves this tag", "put tags around whole elements")
    return word.sub(lambda match: pieces[int(match[1])][0], made)


def _word(mark: str, number: int) -> str:
    return f"{mark}{number}z"


def _prepared(hidden: str, place: Callable[[int], int]) -> str:
    """Refuse what the compiler would drop without a word or die of, and wrap Liquid between elements."""
    parts: list[str] = []
    open_elements: list[str] = []
    done = 0
    for match in _PIECE.finditer(hidden):
        closes, name, attributes, word = match.groups()
        if word is not None:
            between = bool(open_elements) and open_elements[-1] in _HOLDS_ELEMENTS
            parts += [hidden[done : match.start()], f"<mj-raw>{word}</mj-raw>" if between else word]
            done = match.end()
        elif name is not None:
            alone = attributes.endswith("/")
            _follow(open_elements, name.lower(), place(match.start()), closes=bool(closes), alone=alone)
    return "".join([*parts, hidden[done:]])


def _follow(open_elements: list[str], name: str, index: int, *, closes: bool, alone: bool) -> None:
    """Keep account of what is open."""
    if name == "mj-include":
        raise MarkupError(index, "there are no other files to include", "write the elements here")
    if name.startswith("mj-") and not _ELEMENT.fullmatch(name):
        raise MarkupError(index, f"there is no element {name}", "see the list of MJML's elements")
    if closes:
        if name in open_elements:
            while open_elements.pop() != name:
                pass
    elif not alone and name not in _VOID:
        open_elements.append(name)
        if len(open_elements) > MAX_DEPTH:
            raise MarkupError(index, f"more than {MAX_DEPTH} elements within each other", "nest less deeply")


def _place(index: int, pieces: list[re.Match[str]], mark: str) -> int:
    """Where in the source something stands that was found in the text with words for Liquid."""
    for number, piece in enumerate(pieces):
        if piece.start() > index:
            break
        index += len(piece[0]) - len(_word(mark, number))
    return index
