"""Every error a user can meet.

A `KerastrainError` is a complete message for a person: what was received, what
was expected, what to do. The command line prints it without a traceback and
exits with its `exit_status`; every other exception is a bug and keeps its
traceback.

    raise DataError("'labels.idx' ends after 7 of 10,008 bytes; ...")
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class KerastrainError(Exception):
    """Something the user can correct. The message says how."""

    exit_status = 1


class UsageError(KerastrainError):
    """The command line itself could not be understood."""

    exit_status = 2


class OptionsError(KerastrainError):
    """An option has a value that cannot be used, or contradicts another."""


class ArgumentError(OptionsError):
    """One argument of something that is given by name, a criterion, say, has such a value."""

    def __init__(self, message: str, *, argument: str = ""):
        super().__init__(message)
        self.argument = argument


class RecipeError(KerastrainError):
    """A recipe could not be loaded, or does not give what a recipe must give."""


class DataError(KerastrainError):
    """The data could not be found, read, or used for training."""


class ObjectiveError(KerastrainError, ValueError):
    """The objective is not reported by the model, or its direction is unknown."""


class WorkdirError(KerastrainError):
    """The work directory cannot be used: foreign, locked, read-only."""


class ResumeError(KerastrainError):
    """The run in the work directory differs from the one asked for."""


class CheckpointError(KerastrainError):
    """A checkpoint is damaged or does not belong to this model."""


class DiskFullError(CheckpointError):
    """A checkpoint could not be written because the disk is full."""


class TrainingError(KerastrainError):
    """Training cannot go on, for instance because the loss is not finite."""


class ExportError(KerastrainError):
    """The model could not be exported, or its export does not match it."""


class Declined(ExportError):
    """A version was made and checked, and is not published: the user's condition does not hold.

    Attributes:
        decision: `kerastrain.export.publish_decision.Decision`.
    """

    exit_status = 3

    def __init__(self, message: str, *, decision: Any):
        super().__init__(message)
        self.decision = decision


class Interrupted(KerastrainError):
    """A signal ended the run; everything is saved. Carries the exit status (128 + signal)."""

    def __init__(self, message: str, *, exit_status: int):
        super().__init__(message)
        self.exit_status = exit_status


def suggestion(received: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the nearest known name, or "" when none is near."""
    nearest = difflib.get_close_matches(received, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""


def suggested_path(missing: Path) -> str:
    """The same for a file or folder that is not there, from what lies where it should be."""
    folder = missing.parent
    return suggestion(missing.name, (p.name for p in folder.glob("*")) if folder.is_dir() else [])
