"""What can be known before the first step is checked before it (promise 7 of the design).

    preflight = Preflight()
    preflight.check("objective", lambda: check_objective(objective, model, data))
    print("\n".join(preflight.report()))

Each check returns what it found, a few words for people, or raises an error that says
what to do. `kerastrain train --dry_run` shows the report and stops.
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastrain.callbacks.measurements import (
    MEASURED,
    check_example_losses,
    check_plain_sgd,
)
from kerastrain.data.source import Data, Examples
from kerastrain.data.stored import StoredExamples
from kerastrain.errors import (
    CheckpointError,
    DataError,
    ObjectiveError,
    OptionsError,
    TrainingError,
    WorkdirError,
    suggestion,
)
from kerastrain.objective import Objective
from kerastrain.training.checkpoint_files import size_text
from kerastrain.training.checkpoints import CheckpointFolder, keep_newest
from kerastrain.training.embedding_ids import IdProbe, Ids
from kerastrain.training.evaluation import Evaluator, as_floats
from kerastrain.training.executor import Executor
from kerastrain.training.staging import Staging
from kerastrain.training.state import TrainState
from kerastrain.training.steps import StepFunction
from kerastrain.training.stopping import Criterion
from kerastrain.training.stopping.evidence import EVIDENCE
from kerastrain.training.stopping.noise import DIFFERENCE_ERROR
from kerastrain.training.strategy import replica_values
from kerastrain.training.traced import calls_python, captured_variables, unkept_state
from kerastrain.workdir import REHEARSAL

logger = logging.getLogger(__name__)

# So many rows with missing numbers are tried on a model that may know how to take them.
TRIED_ROWS = 8
SHOWN_COLUMNS = 5


@dataclass(frozen=True)
class Finding:
    """What one check found, and how long it took."""

    what: str
    found: str
    seconds: float


class Preflight:
    """Collects what the checks find, in order."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def check(self, what: str, look: Callable[[], str]) -> None:
        """Runs one check; an error of its own goes through."""
        began = time.perf_counter()
        found = look()
        self.findings.append(Finding(what, found, time.perf_counter() - began))

    def report(self) -> list[str]:
        """A line for each check."""
        width = max((len(finding.what) for finding in self.findings), default=0)
        return [
            f"ok  {finding.what:<{width}}  {finding.found} ({finding.seconds:.2f} s)"
            for finding in self.findings
        ]


def check_objective(objective: Objective, model: keras.Model, data: Data) -> str:
    """Raises ObjectiveError unless the model, compiled and built, reports the objective."""
    objective.check_reported(_reported(model, data))
    better = {"min": "smaller", "max": "larger"}[objective.direction]
    return f"{objective.name}, {better} is better"


def check_rule(rule: Criterion, objective: Objective, state: TrainState, data: Data) -> str:
    """Raises KerastrainError unless all that the stopping rule looks at is there to be seen."""
    needed, known = rule.metrics(objective), _reported(state.model, data)
    for name in sorted(needed - set(known) - MEASURED):
        raise ObjectiveError(
            f"--stop='{rule}' looks at '{name}', which is not among the metrics "
            f"{', '.join(known)}.{suggestion(name, known)}"
        )
    if DIFFERENCE_ERROR in needed:
        check_example_losses(state.model)
    if EVIDENCE in needed:
        check_plain_sgd(state.optimizer, replicas=state.replicas)
    return str(rule)


def _reported(model: keras.Model, data: Data) -> list[str]:
    names = list(as_floats(model.get_metrics_result()))
    validated = [f"val_{name}" for name in names] if data.validation is not None else []
    return [*names, *validated]


def check_callbacks(callbacks: Sequence[keras.callbacks.Callback]) -> str:
    """Raises OptionsError for one that undoes what the run does by itself."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.SwapEMAWeights) and callback.swap_on_epoch:
            raise OptionsError(
                "SwapEMAWeights(swap_on_epoch=True) puts the averaged weights in place of those "
                "that are trained; the run evaluates, keeps and exports the averaged ones by "
                "itself. Leave the callback out."
            )
    return f"{len(callbacks)} of the program's own"


def check_labels(model: keras.Model, data: Data) -> str:
    """Raises DataError when a class number is not one of the model's outputs.

    Only where Keras takes targets for class numbers: sparse categorical crossentropy. A label
    beyond the outputs gives NaN on a GPU and under XLA, and nothing says why.
    """
    loss = model.loss if isinstance(model.loss, str) else type(model.loss).__name__
    if "sparsecategoricalcrossentropy" not in loss.lower().replace("_", ""):
        return f"no class numbers, by the loss {loss}"
    classes = model.compute_output_spec(_batch_spec(data)).shape[-1]
    ranges = {name: _label_range(split) for name, split in _splits(data, with_test=True)}
    for name, (lowest, highest) in ranges.items():
        if not (lowest >= 0 and highest < classes):
            raise DataError(
                f"The labels of {name} go from {lowest} to {highest}; the model has {classes} "
                f"outputs, so they must lie in 0 to {classes - 1}."
            )
    lowest, highest = ranges["train"]
    return f"{lowest} to {highest}, {classes} outputs"


def check_ids(state: TrainState, data: Data) -> str:
    """Raises DataError when an Embedding would be given an id that it has no vector for.

    Under XLA it gives another id's vector, and nothing says so.
    """
    layers = [e for e in state.model._flatten_layers() if isinstance(e, keras.layers.Embedding)]
    if not layers:
        return "no Embedding"
    before = state.snapshot()
    probe, found = IdProbe(state, data.train), []
    for name, split in _splits(data, with_test=True):
        for ids in probe.look(split, name):
            found.append(f"{ids.low:.0f} to {ids.high:.0f} of {ids.layer.input_dim} in {name}")
            if ids.bad_rows:
                raise DataError(_ids_error(ids, name, rows=len(split)))
    state.assign(before)
    unseen = sorted({layer.name for layer in layers} - probe.seen)
    if unseen:
        logger.warning(
            "The ids that reach %s were not looked at: the layer is unused, or used in a loop.",
            ", ".join(unseen),
        )
    return "; ".join(dict.fromkeys(found)) or "not looked at"


def _ids_error(ids: Ids, split: str, *, rows: int) -> str:
    where = (
        f"{ids.bad_rows:,} of {rows:,} rows have others, the first is row {ids.first_bad:,}. "
        "Correct these rows, or make"
        if ids.of_rows
        else "They do not depend on the data. Make"
    )
    return (
        f"The ids of {split} that reach the Embedding '{ids.layer.name}' go from {ids.low:.0f} to "
        f"{ids.high:.0f}; it has input_dim={ids.layer.input_dim}, so they must lie in 0 to "
        f"{ids.layer.input_dim - 1}. {where} the layer with a larger input_dim."
    )


def check_state(
    state: TrainState, step: Any, evaluation: Any | None, *, inexact: bool = False
) -> list[str]:
    """Has the state keep all variables that training reads or changes.

    Args:
        step, evaluation: as they were traced, each a tf.ConcreteFunction.
        inexact: what cannot be kept is told and not refused.

    Returns:
        A line for each thing that is not kept.

    Raises:
        TrainingError: something cannot be kept, so no interrupted run could go on exactly.
    """
    traced = {"training step": step} | ({} if evaluation is None else {"evaluation": evaluation})
    lines = [f"the {what}: {line}" for what, each in traced.items() for line in unkept_state(each)]
    if evaluation is not None:
        in_training = {id(variable) for variable in captured_variables(step)}
        asked = [v for v in captured_variables(evaluation) if id(v) in in_training]
        lines += [
            f"variable '{v.name}' {v.dtype.name}{list(v.shape)}, which the model reads and nothing "
            "that it holds leads to; use an attribute of a layer"
            for v in state.not_found(asked)
        ]
    for each in traced.values():
        state.keep(captured_variables(each))
    for where in sorted({where for each in traced.values() for where in calls_python(each)}):
        logger.warning("Python is called in %s; what it changes or draws is not kept.", where)
    if lines and not inexact:
        raise TrainingError(
            "An interrupted run could not go on exactly, since this cannot be saved:\n  "
            + "\n  ".join(lines)
            + "\nChange it, or train all the same with --inexact_resume (inexact_resume=True)."
        )
    for line in lines:
        logger.warning("Not kept, so resuming is inexact: %s.", line)
    return lines


def check_finite(state: TrainState, step: StepFunction, data: Data) -> str:
    """Raises DataError for NaN and infinity in the data, unless the model can take them.

    Targets and weights must be finite. Inputs too, unless a step on the rows concerned leaves
    every weight finite (a model that looks after missing values itself). The loss alone does
    not tell: ReLU makes 0 of NaN, and only the gradient is NaN.
    """
    remarks = []
    for name, split in _splits(data):
        for part, bad in _not_finite(split).items():
            where = f"{part} of {name}{bad.columns_text()}"
            rows = f"{bad.count:,} of {len(split):,} rows"
            is_input = part.startswith("inputs")
            if not is_input or not _takes(state, step, split.take(np.array(bad.first))):
                raise DataError(
                    f"{rows} have NaN or infinity in {where}; the first is row {bad.first[0]:,}. "
                    "Fill them in or leave these rows out."
                )
            remarks.append(f"{rows} with NaN or infinity in {where}, which the model takes")
    return "; ".join(remarks) or "no NaN, no infinity"


def check_steps(executor: Executor, evaluator: Evaluator | None, state: TrainState) -> str:
    """Runs one training step and one evaluation, and puts the state back.

    Raises:
        TrainingError: the loss is not finite before anything was learned.
    """
    before = state.snapshot()
    try:
        bad = executor.run(0, 1, jit=False)
        metrics = as_floats(state.model.get_metrics_result())
        if bad is not None or not math.isfinite(metrics.get("loss", 0.0)):
            raise TrainingError(
                "The loss of the very first step is not a finite number. Look at the model's "
                "outputs and loss, and for extreme values in the data."
            )
        found = f"loss {metrics['loss']:.4g}" if "loss" in metrics else "one step"
        if evaluator is not None:
            measured = evaluator.try_one_batch()
            found += ", " + ", ".join(f"val_{n} {v:.4g}" for n, v in measured.items())
        return found
    finally:
        state.assign(before)


def check_round_trip(staging: Staging, state: TrainState, folder: Path) -> str:
    """Saves and restores a checkpoint in a temporary folder beside the run's.

    Raises:
        CheckpointError: a variable does not come back as it was.
    """
    before, step, host = state.snapshot(), state.step, dict(state.host)
    with tempfile.TemporaryDirectory(prefix=REHEARSAL, dir=folder) as place:
        checkpoints = CheckpointFolder(
            Path(place), staging.checkpoint, describe=state.describe, keep=keep_newest(1)
        )
        staging.take()
        checkpoints.save(0)
        size = checkpoints.files.records()[0].bytes
        state.assign([np.zeros_like(value) for value in before])
        checkpoints.restore_newest()
    staging.give_back()
    after = state.snapshot()
    changed = [
        path
        for path, old, new in zip(_paths(state), before, after, strict=True)
        if old.tobytes() != new.tobytes()
    ]
    if changed or state.step != step or state.host != host:
        state.assign(before)
        raise CheckpointError(
            f"A checkpoint does not bring back {', '.join(changed) or 'the host values'}; expected "
            "every variable as it was. Nothing was trained, since the run could not go on after an "
            "interruption. Leave such variables out of the model."
        )
    return f"{len(before)} variables came back, {size_text(size)}"


def check_disk(folder: Path, *, state_bytes: int, weight_bytes: int, checkpoints: int) -> str:
    """Raises WorkdirError when the disk has no room for what the run will keep.

    Args:
        folder: on the disk in question.
        state_bytes: of one full checkpoint.
        weight_bytes: of the model alone.
        checkpoints: how many full ones retention will hold.
    """
    # One more of each is there while it is written; an export holds the weights twice, and
    # once more while it is made.
    needed = state_bytes * (checkpoints + 1) + weight_bytes * (checkpoints + 1) + weight_bytes * 4
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WorkdirError(
            f"The disk of {folder} has {size_text(free)} free; the run needs about "
            f"{size_text(needed)} for {checkpoints} checkpoints of {size_text(state_bytes)} and "
            "the export. Make room, use a --workdir elsewhere, or keep fewer (--keep_last, "
            "--keep_best, --keep_every)."
        )
    return f"{size_text(needed)} needed, {size_text(free)} free"


Split = Examples | StoredExamples


def _splits(data: Data, *, with_test: bool = False) -> list[tuple[str, Split]]:
    others = [("validation", data.validation), *([("test", data.test)] if with_test else [])]
    return [("train", data.train), *((name, split) for name, split in others if split is not None)]


def _label_range(split: Split) -> tuple[Any, Any]:
    """The least and the greatest; NaN if one is."""
    ranges = [(np.min(b.targets), np.max(b.targets)) for _, b in split.blocks()]
    lowest, highest = zip(*ranges, strict=True)
    return np.min(lowest), np.max(highest)


@dataclass
class _NotFinite:
    """Rows of an array that hold NaN or infinity: how many, the first of them, the columns."""

    count: int = 0
    first: list[int] = field(default_factory=list)
    columns: set[int] = field(default_factory=set)

    def add(self, rows: np.ndarray, numbers: np.ndarray) -> None:
        self.count += len(rows)
        self.first += numbers[: TRIED_ROWS - len(self.first)].tolist()
        if rows.ndim == 2 and rows.shape[1] > 1:
            self.columns.update(np.flatnonzero(~np.isfinite(rows).all(axis=0)).tolist())

    def columns_text(self) -> str:
        """(columns 3, 7) for a table; for other shapes nothing more can be said."""
        if not self.columns:
            return ""
        shown = ", ".join(map(str, sorted(self.columns)[:SHOWN_COLUMNS]))
        more = ", …" if len(self.columns) > SHOWN_COLUMNS else ""
        return f" (column{'s' if len(self.columns) > 1 else ''} {shown}{more}, counted from 0)"


def _not_finite(split: Split) -> Mapping[str, _NotFinite]:
    """Those arrays of a split that hold such rows, by their names."""
    found: dict[str, _NotFinite] = {}
    for first, block in split.blocks():
        for name, array in block.named_arrays():
            bad = _rows_not_finite(array)
            if len(bad):
                found.setdefault(name, _NotFinite()).add(array[bad], first + bad)
    # In the order of the arrays, whichever was found first.
    return {name: found[name] for name, _ in split.named_arrays() if name in found}


def _rows_not_finite(array: np.ndarray) -> np.ndarray:
    """Numbers of the rows that hold NaN or infinity."""
    if array.dtype.kind not in "fc" or bool(np.isfinite(np.sum(array, dtype=np.float64))):
        return np.empty(0, np.int64)  # A sum is finite only if all are, and is fast.
    return np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))


def _takes(state: TrainState, step: StepFunction, rows: Examples) -> bool:
    """Whether the model learns from these rows without harm; the state is as before."""
    before, updates = state.snapshot(), state.optimizer.iterations.numpy()
    try:
        size = max(len(rows), state.replicas)
        repeated = rows.take(np.resize(np.arange(len(rows)), size))
        bad = Executor(state, step, repeated, batch_size=size, seed=0).run(0, 1, jit=False)
        is_scaled = isinstance(state.optimizer, keras.optimizers.LossScaleOptimizer)
        if bad is not None or (is_scaled and state.optimizer.iterations.numpy() == updates):
            return False  # Loss scaling leaves out a step that would do harm.
        return all(np.isfinite(variable.numpy()).all() for variable in state.trainable_values)
    finally:
        state.assign(before)


def _paths(state: TrainState) -> list[str]:
    """A path for each array of a snapshot, which has every replica's."""
    return [
        f"{group}/{path}"
        for group, members in state.variables().items()
        for path, variable in members
        for _ in replica_values(variable)
    ]


def _batch_spec(data: Data) -> Any:
    """A batch of inputs, as Keras traces a model without data."""

    def spec(array: Any) -> keras.KerasTensor:
        return keras.KerasTensor((None, *array.shape[1:]), array.dtype.name)

    inputs = data.train.inputs
    if isinstance(inputs, Mapping):
        return {name: spec(array) for name, array in inputs.items()}
    return spec(inputs)
