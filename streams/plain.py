"""Tables on a terminal whose cells are taken as they are: an id or a reason is no markup and no emoji."""

from __future__ import annotations

import sys

from rich.console import Console

WIDTH = 140  # columns where the output is no terminal and nobody's window limits it


def plain_console() -> Console:
    r"""A console of the terminal's width that changes nothing in what it is given.

    Examples
    --------
    >>> console = plain_console()
    >>> with console.capture() as caught:
    ...     console.print("arm:b: [/]")
    >>> caught.get()
    'arm:b: [/]\n'
    """
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False, emoji=False)
