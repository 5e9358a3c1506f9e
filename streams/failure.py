"""The end of a command that somebody has to do something about."""

from __future__ import annotations

from typing import Final

NO: Final = 1  # the answer is no, or something outside does not answer
WRONG_USE: Final = 2  # what was asked cannot be: a flag, a setting, a file


class Failure(Exception):  # noqa: N818 - not an error of the program
    """Ends a command with one line on stderr; the message says what to do about it.

    Parameters
    ----------
    exit_code
        1: the answer is no. 2: wrong use.
    """

    exit_code = NO

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code
