"""The list of a run's checkpoints: gathered, and as text for people or programs.

    listed = list_checkpoints(files, objective, verify=True)
    print("\n".join(table(listed, objective)))

Only `verify` needs TensorFlow.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerastrain.objective import Objective
from kerastrain.text_table import aligned
from kerastrain.training.checkpoint_files import PREFIX, CheckpointFiles, Record, size_text
from kerastrain.workdir import read_json, without_patterns


@dataclass(frozen=True)
class Listed:
    """A checkpoint as it is shown. damage: what is wrong with it, None for an intact one."""

    record: Record
    damage: str | None
    is_newest: bool
    is_best: bool

    @property
    def notes(self) -> str:
        said = {"pinned": self.record.pinned, "newest": self.is_newest, "best": self.is_best}
        return ", ".join(note for note, is_so in said.items() if is_so)


def list_checkpoints(
    files: CheckpointFiles, objective: Objective | None, *, verify: bool = False
) -> list[Listed]:
    """All checkpoints, oldest first, each with the state of its files.

    Args:
        verify: read every tensor, too, of those whose checksums fit.
    """
    checked: list[tuple[Record, str | None]] = []
    for record in files.records():
        damage = files.damage(record.step)
        if damage is None and verify:
            damage = tensor_damage(files, record.step)
        # One that a running trainer has removed meanwhile is not damaged.
        if damage is None or files.record_file(record.step).exists():
            checked.append((record, damage))
    records = [record for record, _ in checked]
    best = best_of(records, objective)
    return [
        Listed(record, damage, is_newest=record is records[-1], is_best=record is best)
        for record, damage in checked
    ]


def best_of(records: Sequence[Record], objective: Objective | None) -> Record | None:
    """The one with the best objective, of equal ones the earliest."""
    best: Record | None = None
    for record in records:
        than = None if best is None else best.objective
        if objective is not None and objective.is_better(record.objective, than=than):
            best = record
    return best


def tensor_damage(files: CheckpointFiles, step: int) -> str | None:
    """What is wrong with a checkpoint's tensors, or None when all are as its record says."""
    import tensorflow as tf

    try:
        expected = expected_tensors(read_json(files.record_file(step))["variables"])
        with without_patterns(files.folder) as folder:
            reader = tf.train.load_checkpoint(f"{folder}/{PREFIX}-{step}")
            shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
            for key in shapes:
                reader.get_tensor(key)
    except Exception as error:  # Damage can make TensorFlow fail in any way.
        return f"it cannot be read ({type(error).__name__}: {error})"
    for key, (name, shape, dtype) in expected.items():
        recorded = f"{dtype}{shape}"
        found = f"{dtypes[key].name}{list(shapes[key])}" if key in shapes else "missing"
        if found != recorded:
            return f"{name} is {found}, recorded was {recorded}"
    return None


def expected_tensors(variables: Sequence[Sequence[Any]]) -> dict[str, tuple[str, Any, str]]:
    """{name in TensorFlow's checkpoint: (name for people, shape, dtype)}.

    Args:
        variables: [group, path, shape, dtype] of each, in the order of saving.
    """
    saved_before: Counter[str] = Counter()
    expected = {}
    for group, path, shape, dtype in variables:
        key = f"{group}/{saved_before[group]}/.ATTRIBUTES/VARIABLE_VALUE"
        expected[key] = (f"{group} {path}", shape, dtype)
        saved_before[group] += 1
    return expected


def as_plain_values(
    listed: Sequence[Listed], files: CheckpointFiles, objective: Objective | None
) -> dict[str, Any]:
    """What --json prints."""
    checkpoints = [
        {**vars(one.record), "newest": one.is_newest, "best": one.is_best, "damage": one.damage}
        for one in listed
    ]
    return {
        "folder": str(files.folder),
        "objective": objective and str(objective),
        "checkpoints": checkpoints,
        "quarantine": quarantined(files),
        "set_aside": files.steps_set_aside(),
    }


def quarantined(files: CheckpointFiles) -> dict[str, str]:
    """{name: reason} of the checkpoints that lie in quarantine."""
    reasons = {}
    for name in files.quarantined():
        file = files.quarantine / name / "reason.txt"
        reasons[name] = file.read_text().strip() if file.exists() else "for an unknown reason"
    return reasons


# What is printed


def table(listed: Sequence[Listed], objective: Objective | None) -> list[str]:
    """Lines of aligned columns; the state comes last because a reason may be long."""
    name = objective.name if objective else "objective"
    rows = [("step", "epoch", name, "size", "age", "notes", "state"), *map(_row, listed)]
    return aligned(rows, left=(5, 6))


def _row(one: Listed) -> tuple[str, ...]:
    record = one.record
    return (
        str(record.step),
        f"{record.epoch:.2f}",
        "-" if record.objective is None else f"{record.objective:.5g}",
        size_text(record.bytes),
        age_text(time.time() - record.written),
        one.notes,
        "intact" if one.damage is None else f"damaged: {one.damage}",
    )


def lines_about_others(files: CheckpointFiles) -> list[str]:
    """What lies in quarantine and what is set aside."""
    lines = [f"in quarantine: {name}: {reason}" for name, reason in quarantined(files).items()]
    aside = files.steps_set_aside()
    if aside:
        steps = ", ".join(map(str, aside))
        lines.append(f"set aside: {steps} (--restore=STEP brings one back)")
    return lines


def verdict(listed: Sequence[Listed]) -> str:
    """What --verify found, in one line."""
    count = f"{len(listed)} checkpoint{'' if len(listed) == 1 else 's'}"
    damaged = sum(one.damage is not None for one in listed)
    return f"{damaged} of {count} damaged" if damaged else f"{count}, all intact"


def age_text(seconds: float) -> str:
    """ "5 min"; a clock that was set back makes nothing younger than now."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
