"""After a loss that is not finite: back to the last good evaluation, and slower from there.

    rollbacks = read_rollbacks(workdir)
    gone = abandoned(records, rollbacks)      # checkpoints of a future that was given up

The way back leads to the state of the last evaluation, which depends on nothing but
the run itself, and not to the last save, which depends on the clock: so an interrupted
run rolls back exactly as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kerastrain.training.checkpoint_files import Record
from kerastrain.workdir import Workdir, read_json, write_json

LARGEST_NUMBER = 3


@dataclass(frozen=True)
class Rollback:
    """One way back.

    Attributes:
        bad_step: whose loss was not finite.
        to_step: the state that training went on from, with half the learning rate.
    """

    bad_step: int
    to_step: int


def read_rollbacks(workdir: Workdir) -> list[Rollback]:
    """All of the run's, oldest first.

    Raises:
        WorkdirError: the record cannot be read.
    """
    if not workdir.rollbacks_file.exists():
        return []
    return [Rollback(**values) for values in read_json(workdir.rollbacks_file)["rollbacks"]]


def write_rollbacks(workdir: Workdir, rollbacks: Sequence[Rollback]) -> None:
    """Records them, before anything else is done about the newest."""
    write_json(workdir.rollbacks_file, {"rollbacks": [asdict(each) for each in rollbacks]})


def forget_rollbacks(workdir: Workdir, *, known: int) -> None:
    """Keeps only the first ones: a checkpoint was gone back to that knows of no others."""
    rollbacks = read_rollbacks(workdir)
    if len(rollbacks) > known:
        write_rollbacks(workdir, rollbacks[:known])


def target_of(records: Sequence[Record]) -> int | None:
    """The step to go back to: the last evaluation's, else the oldest; None without any.

    Retention keeps one of an evaluation, or the beginning, unless the user went back to before.
    """
    evaluated = [record.step for record in records if record.objective is not None]
    return max(evaluated, default=min((record.step for record in records), default=None))


def abandoned(records: Sequence[Record], rollbacks: Sequence[Rollback]) -> set[int]:
    """Steps of checkpoints that know less than all rollbacks and lie beyond where one led."""
    return {
        record.step
        for record in records
        if any(record.step > rollback.to_step for rollback in rollbacks[record.rollbacks :])
    }
