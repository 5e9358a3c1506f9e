"""Common Expression Language: text -> syntax tree with positions.

The evaluating library shows no tree, and without one neither unknown names nor types can be checked. The grammar is
that of the language definition (cel-spec, langdef.md, "Syntax"), without message construction and optional syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_DEPTH = 40
# Name -> number of arguments; the second form of map has one more, a condition.
MACROS = {"all": 2, "exists": 2, "exists_one": 2, "filter": 2, "map": 2}
