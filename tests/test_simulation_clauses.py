"""Every clause of the protocol is missed by some seed: without it, simulated runs end wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulated_clauses import CLAUSES, HEAD, Clause

SEEDS = 400  # the clause seen least often needs about half of them
TABLE = Path(__file__).parents[1] / "docs" / "simulation.md"


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.remove.__name__)
def test_a_clause_removed_is_noticed(clause: Clause) -> None:
    """Some seed ends wrong as soon as one clause is missing; how many it takes is in docs/simulation.md."""
    assert clause.needed(SEEDS)


def test_the_table_has_every_clause() -> None:
    """The document lists the clauses that are tried, in their order, and how many seeds each needed."""
    _, _, rest = TABLE.read_text().partition("\n".join(HEAD) + "\n")
    rows = re.findall(r"^\| (.+) \| (\d+) \|$", rest, re.MULTILINE)
    assert [text for text, _ in rows] == [clause.text for clause in CLAUSES]
    assert all(int(seeds) <= SEEDS for _, seeds in rows)
