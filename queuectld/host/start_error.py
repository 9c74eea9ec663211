"""Why a daemon can't start."""

from __future__ import annotations


class StartError(Exception):
    """The daemon can't start; the message says why, in one sentence, and `hint` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
