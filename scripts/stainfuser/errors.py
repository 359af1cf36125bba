"""Errors a user can act on: one sentence that says where, what is wrong and what to do."""

from __future__ import annotations


class StainFuserError(Exception):
    """Base of every error this package raises on purpose; its text is shown without a traceback.

    Parameters
    ----------
    where
        The file, slide or configuration key the error is about, as the user wrote it.
    wrong
        What was found, and what was expected, without a full stop.
    remedy
        What the user can do about it, without a full stop.
    """

    def __init__(self, where: object, wrong: str, remedy: str) -> None:
        super().__init__(f"{where}: {wrong}; {remedy}.")
        self.where = str(where)
        self.wrong = wrong
        self.remedy = remedy


class InputError(StainFuserError):
    """A file or value given by the user cannot be used."""


class ConfigError(StainFuserError):
    """A configuration key is unknown, of the wrong type or out of range."""


class SlideError(StainFuserError):
    """One slide cannot be processed; other slides can.

    `verdict` is the machine-readable word that `slides/{slide}.json` carries.
    """

    def __init__(self, where: object, verdict: str, wrong: str, remedy: str) -> None:
        super().__init__(where, wrong, remedy)
        self.verdict = verdict


class TrainingError(StainFuserError):
    """Training cannot go on (a loss that is not finite, a checkpoint of another configuration)."""
