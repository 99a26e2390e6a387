"""The way in: train a recipe, or a model of your own.

    result = kerastrain.train(model, (x, y), validation=(xv, yv), workdir="runs/mine")
    result = run_recipe(TrainOptions(recipe="digits", workdir="runs/digits"))

Run again with the same arguments, an interrupted run goes on and a finished one is
returned at once, without importing TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastrain.data.source import Data, Examples, Task
from kerastrain.errors import DataError, KerastrainError, RecipeError, ResumeError
from kerastrain.options import TrainOptions
from kerastrain.recipe import (
    STANDARD,
    LoadedRecipe,
    load_recipe,
    locate_recipe,
    location_in,
    shipped_recipes,
    source_sha256,
)
from kerastrain.workdir import Workdir, read_json

if TYPE_CHECKING:
    import keras

    from kerastrain.session import Job
    from kerastrain.training.steps import StepFunction


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        workdir: the run's folder.
        stopped: why it ended, a sentence.
        step, epoch: where it ended.
        best: {"name", "value", "step"} of the objective; these weights are exported.
        metrics: of the exported model on the test split; {} without one.
        export: the version folder that was published.
        history: one record per evaluation: step, epoch, losses and metrics.
        already_finished: whether this call found the run finished and did nothing.
    """

    workdir: Path
    stopped: str
    step: int
    epoch: float
    best: Mapping[str, Any] | None
    metrics: Mapping[str, float]
    export: Path | None
    history: Sequence[Mapping[str, float]] = field(repr=False, default=())
    already_finished: bool = False


def train(
    model: keras.Model | Callable[[], keras.Model],
    data: Data | tuple[Any, ...],
    *,
    workdir: str | os.PathLike[str],
    validation: tuple[Any, ...] | None = None,
    test: tuple[Any, ...] | None = None,
    task: Task | None = None,
    max_epochs: int = STANDARD["max_epochs"],
    max_steps: int | None = None,
    batch_size: int = STANDARD["batch_size"],
    patience: int | None = None,
    objective: str | None = None,
    evaluate_every: str = "1epochs",
    checkpoint_every: str = "30s",
    seed: int = 0,
    strategy: str = "auto",
    jit: str = "auto",
    step: StepFunction | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
    override: bool = False,
) -> TrainResult:
    """Trains a compiled Keras model: stops it, survives, exports the best weights.

    Args:
        model: compiled; or a function that returns one (needed over several devices, and
            for initial weights that depend on `seed`).
        data: a kerastrain.Data, or training arrays (x, y) or (x, y, sample_weight) with
            rows first; x may be a dict of arrays.
        workdir: everything of the run lies here. The same call goes on with an interrupted run.
        validation, test: like `data`. The objective is measured on validation.
        task: what is predicted, for named outputs of the export (kerastrain.Classification,
            kerastrain.Regression).
        patience: evaluations without improvement that end the run; None: go to the budget.
        objective: "val_loss" (with validation), else "loss"; "val_score:max" for one whose
            direction is not known.
        evaluate_every: "1epochs", "500steps".
        checkpoint_every: "30s", "500steps", "2epochs".
        strategy: "auto", "one_device", "mirrored".
        jit: XLA: "auto" measures, "on", "off".
        step: a step function of your own (see kerastrain.training.steps).
        callbacks: any Keras callbacks. A kerastrain.EarlyStopping among them replaces `patience`.
        verbose: 0 shows nothing.
        override: go on although options, data or environment differ from the recorded ones.

    Raises:
        KerastrainError: something in the arguments, the data or the work directory must be
            changed; the message says what.
        Interrupted: SIGINT or SIGTERM; everything is saved.
    """
    given = data if isinstance(data, Data) else _as_data(data, validation, test, task)
    options = TrainOptions(
        recipe="",
        workdir=os.fspath(workdir),
        max_epochs=max_epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        patience=patience,
        objective=objective or _default_objective(given, callbacks),
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
        seed=seed,
        strategy=strategy,
        jit=jit,
    )
    from kerastrain.session import Job

    job = Job(
        name=Path(workdir).resolve().name,
        given=options,
        options=options,
        load_data=lambda: given,
        build_model=lambda _: _model_of(model),
        step=step,
        callbacks=callbacks,
        verbose=verbose,
        override=override,
    )
    return _run(job)


def run_recipe(options: TrainOptions, *, override: bool = False) -> TrainResult:
    """Trains a recipe; what `kerastrain train` does.

    Raises:
        KerastrainError: as `train`.
    """
    workdir = Workdir(options.workdir)
    recorded = read_json(workdir.run_file) if workdir.run_file.exists() else None
    if recorded is not None:
        options = options.located_like(TrainOptions.from_json(recorded["given"]))
        if _is_same_command(options, recorded) and workdir.result_file.exists():
            return _result(workdir, read_json(workdir.result_file), already_finished=True)
    loaded = load_recipe(options.recipe)
    from kerastrain.session import Job

    job = Job(
        name=loaded.name,
        given=options,
        options=loaded.recipe.resolve(options),
        load_data=lambda: _own_code(loaded, lambda: loaded.recipe.load_data(job.options)),
        build_model=lambda data: _own_code(
            loaded, lambda: loaded.recipe.build_model(job.options, data)
        ),
        step=loaded.recipe.step,
        recipe=options.recipe,
        recipe_sha256=loaded.source_sha256,
        override=override,
    )
    return _run(job)


def _run(job: Job) -> TrainResult:
    from kerastrain.session import Session

    workdir = Workdir(job.options.workdir)
    workdir.create()
    with workdir.lock():
        if workdir.run_file.exists():
            recorded = read_json(workdir.run_file)
            _check_same_run(job, workdir, recorded)
            if workdir.result_file.exists():
                result = read_json(workdir.result_file)
                if not _has_more_budget(job.options, recorded, result):
                    return _result(workdir, result, already_finished=True)
                workdir.result_file.unlink()
        return _result(workdir, Session(job, workdir).run())


def _is_same_command(options: TrainOptions, recorded: Mapping[str, Any]) -> bool:
    """Whether nothing that matters differs, judged without running the recipe's file."""
    before = TrainOptions.from_json(recorded["given"])
    budgets = [(o.max_epochs, o.max_steps) for o in (options, before)]
    return (
        not options.differences(before)
        and budgets[0] == budgets[1]
        and recorded["recipe_sha256"] == source_sha256(locate_recipe(options.recipe))
    )


def _check_same_run(job: Job, workdir: Workdir, recorded: Mapping[str, Any]) -> None:
    """Raises ResumeError when what is learned would differ from the recorded run."""
    import logging

    logger = logging.getLogger(__name__)
    differences = job.options.differences(TrainOptions.from_json(recorded["resolved"]))
    if differences:
        listed = "".join(f"\n  {line}" for line in differences)
        if not job.override:
            raise ResumeError(
                f"The run in {workdir} has other options:{listed}\n"
                "Use a new --workdir, or go on all the same with --override."
            )
        logger.warning("The run in %s has other options:%s", workdir, listed)
    if recorded["recipe_sha256"] != job.recipe_sha256:
        logger.warning("The recipe %s was edited since the run in %s began.", job.recipe, workdir)


def _has_more_budget(
    options: TrainOptions, recorded: Mapping[str, Any], result: Mapping[str, Any]
) -> bool:
    """Whether a run that ended with its budget was given a larger one."""
    before = TrainOptions.from_json(recorded["resolved"])
    unlimited = float("inf")
    now_steps, then_steps = options.max_steps or unlimited, before.max_steps or unlimited
    grown = (options.max_epochs or 0) > (before.max_epochs or 0) or now_steps > then_steps
    return result["ended"] == "budget" and grown


def _result(
    workdir: Workdir, values: Mapping[str, Any], *, already_finished: bool = False
) -> TrainResult:
    return TrainResult(
        workdir=workdir.path,
        stopped=values["stopped"],
        step=values["step"],
        epoch=values["epoch"],
        best=values["best"],
        metrics=values["metrics"],
        export=workdir.path / values["export"],
        history=values["history"],
        already_finished=already_finished,
    )


def _own_code(loaded: LoadedRecipe, call: Callable[[], Any]) -> Any:
    """Calls a function of a recipe; in a user's own file a failure names its line."""
    try:
        return call()
    except KerastrainError:
        raise
    except Exception as error:
        if loaded.name in shipped_recipes() and loaded.path == locate_recipe(loaded.name):
            raise  # A bug of this package keeps its traceback.
        raise RecipeError(
            f"{location_in(loaded.path, error)}: {type(error).__name__}: {error}"
        ) from error


def _model_of(model: keras.Model | Callable[[], keras.Model]) -> keras.Model:
    import keras

    return model if isinstance(model, keras.Model) else model()


def _default_objective(data: Data, callbacks: Sequence[keras.callbacks.Callback]) -> str:
    from kerastrain.callbacks.early_stopping import EarlyStopping

    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            direction = "" if callback.mode == "auto" else f":{callback.mode}"
            return f"{callback.monitor}{direction}"
    return "loss" if data.validation is None else "val_loss"


def _as_data(
    train_arrays: tuple[Any, ...],
    validation: tuple[Any, ...] | None,
    test: tuple[Any, ...] | None,
    task: Task | None,
) -> Data:
    return Data(
        train=_as_examples(train_arrays, "data"),
        validation=None if validation is None else _as_examples(validation, "validation"),
        test=None if test is None else _as_examples(test, "test"),
        task=task,
    )


def _as_examples(arrays: tuple[Any, ...], name: str) -> Examples:
    import numpy as np

    if not isinstance(arrays, (tuple, list)) or len(arrays) not in (2, 3):
        shown = (
            f"{type(arrays).__name__} of {len(arrays)}"
            if hasattr(arrays, "__len__")
            else (type(arrays).__name__)
        )
        raise DataError(f"{name} is a {shown}; expected arrays (x, y) or (x, y, sample_weight).")
    x, y, *weights = arrays
    inputs = (
        {key: np.asarray(value) for key, value in x.items()}
        if isinstance(x, Mapping)
        else np.asarray(x)
    )
    return Examples(inputs, np.asarray(y), np.asarray(weights[0]) if weights else None)
