"""The way in: train a recipe, or a model of your own.

    result = kerastrain.train(model, (x, y), validation=(xv, yv), workdir="runs/mine")
    result = run_recipe(TrainOptions(recipe="digits", workdir="runs/digits"))

Run again with the same arguments, an interrupted run goes on and a finished one is
returned at once, without importing TensorFlow.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastrain.best_effort import best_effort_output
from kerastrain.continuation import (
    check_same_data,
    check_same_files,
    check_same_run,
    evaluating_as_recorded,
    finishing_what_was_begun,
    is_same_command,
    is_to_go_on,
    recorded_run,
    say_what_is_not_known,
)
from kerastrain.data.places import check_places
from kerastrain.data.source import Data, Examples, Task
from kerastrain.errors import (
    DataError,
    Interrupted,
    KerastrainError,
    OptionsError,
    RecipeError,
    ResumeError,
    WorkdirError,
)
from kerastrain.export import fresh_process
from kerastrain.objective import Objective
from kerastrain.options import TrainOptions
from kerastrain.recipe import (
    STANDARD,
    LoadedRecipe,
    load_recipe,
    locate_recipe,
    location_in,
    shipped_recipes,
)
from kerastrain.sources import RECIPE, Files, differences, look
from kerastrain.training.cluster import check_alone
from kerastrain.training.signals import SignalReceived, Signals
from kerastrain.training.starts import Starts
from kerastrain.training.stopping import (
    Criterion,
    parse_criterion,
)
from kerastrain.workdir import Workdir, read_json, write_json

if TYPE_CHECKING:
    import keras
    import numpy as np

    from kerastrain.callbacks.early_stopping import EarlyStopping
    from kerastrain.export.fresh_process import FreshProcess
    from kerastrain.job import Job
    from kerastrain.session import Session
    from kerastrain.training.range_test import RangeTest
    from kerastrain.training.steps import StepFunction

logger = logging.getLogger(__name__)


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
        already_finished: whether this call found the run finished and trained nothing.
        model: with the best weights; None for a recipe's run that was finished already.
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
    model: keras.Model | None = field(repr=False, default=None)


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
    batch_size: int | str = STANDARD["batch_size"],
    patience: int | None = None,
    stop: Criterion | str | None = None,
    objective: str | None = None,
    evaluate_every: str = "1epochs",
    evaluate_examples: int | None = None,
    evaluate_batch: int | str | None = None,
    checkpoint_every: str = "auto",
    max_seconds: float | None = None,
    more_epochs: int | None = None,
    on_nonfinite: str = "stop",
    inexact_resume: bool = False,
    keep_last: int = 3,
    keep_best: int = 1,
    keep_every: str | None = None,
    seed: int = 0,
    strategy: str = "auto",
    jit: str = "auto",
    step: StepFunction | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
    override: bool = False,
    new_version: bool = False,
) -> TrainResult:
    """Trains a compiled Keras model: stops it, survives, exports the best weights.

    The model then has the best weights, also when the run was finished already.

    Args:
        model: compiled; or a function that returns one (needed over several devices, and
            for initial weights that depend on `seed`).
        data: a kerastrain.Data, or training arrays (x, y) or (x, y, sample_weight) with
            rows first; x may be a dict of arrays.
        workdir: everything of the run lies here. The same call goes on with an interrupted run.
        validation, test: like `data`. The objective is measured on validation.
        task: what is predicted, for named outputs of the export (kerastrain.Classification,
            kerastrain.Regression).
        batch_size: examples in a step, over all devices together; "all": every example.
        patience: evaluations without improvement that end the run; None: go to the budget.
        stop: any criterion of `kerastrain.training.stopping`, or its text, instead of `patience`.
        objective: "val_loss" (with validation), else "loss"; "val_score:max" for one whose
            direction is not known.
        evaluate_every: "1epochs", "500steps", "30s" (turned into steps once, by the measured
            time of a step).
        evaluate_examples: how many of the validation examples are evaluated, always the same.
        evaluate_batch: validation examples at once, as `validation_batch_size` of fit; "all":
            every one. None: the batch size, so that no evaluation takes more than a step.
        checkpoint_every: "30s", "500steps", "2epochs"; "auto": as often as it pays.
        max_seconds: the whole run, all its starts and the export, takes at most so long.
        more_epochs: go on with a run that has ended, for so many epochs beyond its end.
        on_nonfinite: "stop", or "rollback" to the last evaluation with half the learning rate.
        inexact_resume: train although the step keeps state that cannot be saved; the manifest
            says so.
        keep_last, keep_best, keep_every: which checkpoints stay: the newest, the best by the
            objective, and one every "2hours" or "10epochs".
        strategy: "auto", "one_device", "mirrored".
        jit: XLA: "auto" measures, "on", "off".
        step: a step function of your own (see kerastrain.training.steps).
        callbacks: any Keras callbacks. A kerastrain.EarlyStopping among them replaces
            `patience` and `stop`.
        verbose: 0 shows nothing.
        override: go on although options, data or environment differ from the recorded ones.
        new_version: where they differ, set the run in `workdir` aside (in earlier/) and begin
            anew; the next version is published beside the last.

    Raises:
        KerastrainError: something in the arguments, the data or the work directory must be
            changed; the message says what.
        Interrupted: SIGINT, SIGTERM or SIGHUP; everything is saved.
    """
    began = time.monotonic()
    _require_tensorflow()
    check_alone()
    given = data if isinstance(data, Data) else _as_data(data, validation, test, task)
    chosen = _objective(objective, given, callbacks)
    rule = _rule(stop, patience, callbacks)
    options = TrainOptions(
        recipe="",
        workdir=os.fspath(workdir),
        max_epochs=max_epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        patience=patience,
        stop=None if rule is None else str(rule),
        objective=chosen,
        evaluate_every=evaluate_every,
        evaluate_examples=evaluate_examples,
        evaluate_batch=evaluate_batch,
        checkpoint_every=checkpoint_every,
        max_seconds=max_seconds,
        more_epochs=more_epochs,
        on_nonfinite=on_nonfinite,
        inexact_resume=inexact_resume,
        keep_last=keep_last,
        keep_best=keep_best,
        keep_every=keep_every,
        seed=seed,
        strategy=strategy,
        jit=jit,
    )
    place = Workdir(workdir)
    recorded = None if new_version else recorded_run(place)
    with (
        best_effort_output(remark="What is printed is lost from here on, the training goes on"),
        _messages(shown=bool(verbose)),
        _answering_signals() as signals,
        _checking_process(recorded) as process,
    ):
        from kerastrain.job import Job

        job = Job(
            name=Path(workdir).resolve().name,
            given=options,
            options=options,
            load_data=lambda: given,
            build_model=lambda _, __: _model_of(model),
            step=step,
            rule=rule,
            callbacks=callbacks,
            verbose=verbose,
            override=override,
            new_version=new_version,
        )
        return _run(job, place, signals, process, began=began)


def run_recipe(
    options: TrainOptions, *, override: bool = False, new_version: bool = False
) -> TrainResult:
    """Trains a recipe; what `kerastrain train` does.

    Raises:
        KerastrainError: as `train`.
    """
    began = time.monotonic()
    check_alone()
    # A command may be killed by a second Ctrl-C; in a notebook that would be its kernel.
    with _answering_signals(second_kills=True) as signals:
        workdir = Workdir(options.workdir)
        recorded = recorded_run(workdir)
        options, files = _as_recorded(options, recorded)
        if recorded is not None and not (override or new_version):
            check_same_files(workdir, recorded, options, files, override=False)
        if recorded is not None and workdir.result_file.exists():
            finished = _same_command(workdir, options, recorded, files)
            # A recipe of the user's own may read data that no option names.
            may_differ = set(files) == {RECIPE} or (new_version and not files)
            if finished is not None and not may_differ:
                return finished
        workdir.check()
        loaded = _checked_recipe(options)
        with _checking_process(None if new_version else recorded) as process:
            job = _recipe_job(loaded, options, files, override=override, new_version=new_version)
            return _run(job, workdir, signals, process, began=began)


def _as_recorded(
    options: TrainOptions, recorded: Mapping[str, Any] | None
) -> tuple[TrainOptions, dict[str, Any]]:
    """The options with the data's locations that they leave out, and the files they name."""
    if recorded is None:
        return options, look(options, {})
    options = options.located_like(TrainOptions.from_json(recorded["given"]))
    return options, look(options, recorded.get("files", {}))


def _same_command(
    workdir: Workdir, options: TrainOptions, recorded: Mapping[str, Any], files: Files
) -> TrainResult | None:
    """The result of a finished run, if these options and files are its own; without TensorFlow."""
    result, before = read_json(workdir.result_file), recorded.get("files", {})
    if differences(before, files) or not is_same_command(options, recorded, result, files):
        return None
    say_what_is_not_known(workdir, recorded, files)
    if before and files != before:
        with contextlib.suppress(WorkdirError), workdir.lock():  # The next look is cheap again.
            now = {"files": {**before, **files}}
            write_json(workdir.run_file, {**read_json(workdir.run_file), **now})
    return _result(workdir, result, already_finished=True)


def dry_run(
    options: TrainOptions, *, override: bool = False, new_version: bool = False
) -> list[str]:
    """Everything that `run_recipe` does before the first step; changes and writes nothing.

    Returns:
        A report for people, a line for each check.

    Raises:
        KerastrainError: what would keep the run from training.
    """
    check_alone()
    with _answering_signals() as signals:
        workdir = Workdir(options.workdir)
        recorded = recorded_run(workdir)
        options, files = _as_recorded(options, recorded)
        workdir.check()
        loaded = _checked_recipe(options)
        process_for = None if new_version else recorded
        with _checking_process(process_for) as process, contextlib.ExitStack() as held:
            job = _recipe_job(loaded, options, files, override=override)
            from kerastrain.session import Session

            try:
                if recorded is not None:
                    held.enter_context(workdir.lock())
                    job = evaluating_as_recorded(job, recorded)
                    check_same_run(job, workdir, recorded)
                    process = None  # Known to work.
            except ResumeError:
                if not new_version:
                    raise
                recorded = None
            if recorded is None:
                workdir = held.enter_context(workdir.rehearsal())
            starts = Starts(workdir)
            session = Session(job, workdir, starts=starts, signals=signals, process=process)
            return session.dry_run()


def find_learning_rate(options: TrainOptions) -> RangeTest:
    """What `--learning_rate=auto` does before the training; nothing is written.

    Raises:
        KerastrainError: data or model cannot be made, or the loss never falls.
    """
    with _answering_signals():
        loaded = _checked_recipe(options)
        from kerastrain.assembly import Assembly

        assembly = Assembly(_recipe_job(loaded, options, {}), None)
        return assembly.range_test(assembly.load_data())


def _checked_recipe(options: TrainOptions) -> LoadedRecipe:
    """The recipe; what needs no TensorFlow is refused, before two processes import it."""
    check_places(options)
    loaded = load_recipe(options.recipe)
    resolved = loaded.recipe.resolve(options)
    parse_criterion(resolved.stop_rule)
    check_places(resolved, loaded.recipe.reads or ())
    return loaded


def _recipe_job(
    loaded: LoadedRecipe,
    options: TrainOptions,
    files: Files,
    *,
    override: bool = False,
    new_version: bool = False,
) -> Job:
    resolved = loaded.recipe.resolve(options)
    from kerastrain.job import Job

    job = Job(
        name=loaded.name,
        given=options,
        options=resolved,
        load_data=lambda: _own_code(loaded, lambda: loaded.recipe.load_data(job.options)),
        build_model=lambda options, data: _own_code(
            loaded, lambda: loaded.recipe.build_model(options, data)
        ),
        step=loaded.recipe.step,
        recipe=options.recipe,
        recipe_sha256=loaded.source_sha256,
        override=override,
        files=files,
        new_version=new_version,
    )
    return job


def _checking_process(
    recorded: Mapping[str, Any] | None,
) -> contextlib.AbstractContextManager[FreshProcess | None]:
    """For the exports of a run's first start: it imports TensorFlow while this process does."""
    return contextlib.nullcontext() if recorded else fresh_process.FreshProcess()


def _run(
    job: Job, workdir: Workdir, signals: Signals, process: FreshProcess | None, *, began: float
) -> TrainResult:
    workdir.create()
    with workdir.lock():
        starts = Starts(workdir, clock=began)
        try:
            return _go_on(job, workdir, signals, process, starts)
        except ResumeError as error:
            if not job.new_version:
                raise
            logger.info("%s", str(error).rpartition("\n")[0])
            workdir.set_aside()
            return _go_on(job, workdir, signals, process, Starts(workdir, clock=began))


def _go_on(
    job: Job, workdir: Workdir, signals: Signals, process: FreshProcess | None, starts: Starts
) -> TrainResult:
    """Begins the run, goes on with it, or finds it finished."""
    from kerastrain.session import Session

    recorded = recorded_run(workdir)
    if recorded is not None:
        process = None  # Known to work.
        job = evaluating_as_recorded(job, recorded)
        check_same_run(job, workdir, recorded)
        if not workdir.result_file.exists():
            job = finishing_what_was_begun(job, recorded)
    session = Session(job, workdir, starts=starts, signals=signals, process=process)
    if workdir.result_file.exists():
        result = read_json(workdir.result_file)
        if not is_to_go_on(job, workdir, result):
            return _found_finished(session, recorded, result)
    elif job.options.more_epochs is not None and "ended_at_step" not in (recorded or {}):
        raise OptionsError(
            f"--more_epochs={job.options.more_epochs} goes on with a run that has ended; the "
            f"one in {workdir} has not. Run the command without it first."
        )
    with _recorded_start(starts, signals):
        return _result(workdir, *session.run())


def _found_finished(
    session: Session, recorded: Mapping[str, Any] | None, result: Mapping[str, Any]
) -> TrainResult:
    """The result of a run that has ended; a program's own model gets its best weights."""
    job, workdir, model = session.job, session.workdir, None
    if job.recipe is None:
        model = session.finished()
        if job.verbose:
            logger.warning(
                "The run in %s has ended. Nothing was trained; the model has its best weights.",
                workdir,
            )
    elif recorded is not None:
        say_what_is_not_known(workdir, recorded, job.files)
        check_same_data(job, workdir, recorded)
    if job.override:
        logger.warning(
            "The run in %s has ended, so --override changes nothing; --new_version trains anew.",
            workdir,
        )
    return _result(workdir, result, model, already_finished=True)


@contextlib.contextmanager
def _messages(*, shown: bool) -> Iterator[None]:
    """Shows what is said of the run to a program that has no logging of its own."""
    ours = logging.getLogger("kerastrain")
    if not shown or (ours.isEnabledFor(logging.INFO) and ours.hasHandlers()):
        yield
        return
    handler, level = logging.StreamHandler(), ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False  # Or warnings would come twice.
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        ours.propagate = True


@contextlib.contextmanager
def _answering_signals(*, second_kills: bool = False) -> Iterator[Signals]:
    """Inside, SIGINT, SIGTERM and SIGHUP end in `Interrupted`."""
    with Signals(second_kills=second_kills) as signals:
        try:
            yield signals
        except SignalReceived as received:
            assert signals.received is not None
            raise Interrupted(
                f"Stopped by {signals.received.name}{signals.where}; everything is saved. "
                "Run the same command to go on.",
                exit_status=signals.exit_status,
            ) from received


@contextlib.contextmanager
def _recorded_start(starts: Starts, signals: Signals) -> Iterator[None]:
    """Records that the run was started, and how this start ended."""
    starts.begin()
    ended = "error"
    try:
        yield
        ended = "finished"
    except KeyboardInterrupt:
        ended = "SIGINT" if signals.received is None else signals.received.name
        signals.where = f" {starts.where}"
        raise
    finally:
        try:
            starts.end(ended)
        except WorkdirError as error:  # A full disk; it is not what matters now.
            logger.warning("%s", error)


def _result(
    workdir: Workdir,
    values: Mapping[str, Any],
    model: keras.Model | None = None,
    *,
    already_finished: bool = False,
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
        model=model,
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


def _require_tensorflow() -> None:
    """Raises KerastrainError unless Keras runs on TensorFlow in this program."""
    try:
        import keras
    except (ImportError, ValueError) as error:
        found = f"cannot be imported ({error})"
    else:
        if keras.config.backend() == "tensorflow":
            return
        found = f"runs on {keras.config.backend()} in this program"
    raise KerastrainError(
        f"Keras {found}; kerastrain trains on TensorFlow. Set os.environ['KERAS_BACKEND'] = "
        "'tensorflow' before anything imports keras."
    )


def _model_of(model: keras.Model | Callable[[], keras.Model]) -> keras.Model:
    import keras

    return model if isinstance(model, keras.Model) else model()


def _objective(
    objective: str | None, data: Data, callbacks: Sequence[keras.callbacks.Callback]
) -> str:
    """What is asked for; else what a kerastrain.EarlyStopping monitors; else the loss."""
    own = _own_early_stopping(callbacks)
    if own is None:
        return objective or ("loss" if data.validation is None else "val_loss")
    direction = "" if own.mode == "auto" else f":{own.mode}"
    monitored = f"{own.monitor}{direction}"
    if objective and Objective.parse(objective) != Objective.parse(monitored):
        raise OptionsError(
            f"The objective is '{objective}' and the EarlyStopping given monitors "
            f"'{monitored}'; they decide the same thing. Leave one of them out."
        )
    return monitored


def _rule(
    stop: Criterion | str | None,
    patience: int | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Criterion | None:
    """When to stop: what is asked for, else the rule of a kerastrain.EarlyStopping."""
    if isinstance(stop, str):
        stop = parse_criterion(stop)
    own = _own_early_stopping(callbacks)
    if own is None:
        return stop
    if patience is not None or stop is not None:
        raise OptionsError(
            f"The EarlyStopping given stops by {str(own.rule)!r}, and patience or stop were given "
            "too; they decide the same thing. Leave one of them out."
        )
    return own.rule


def _own_early_stopping(callbacks: Sequence[keras.callbacks.Callback]) -> EarlyStopping | None:
    from kerastrain.callbacks.early_stopping import EarlyStopping

    return next((each for each in callbacks if isinstance(each, EarlyStopping)), None)


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
    if not isinstance(arrays, (tuple, list)) or len(arrays) not in (2, 3):
        raise DataError(
            f"{name} is {_kind(arrays)}; expected arrays (x, y) or (x, y, sample_weight), or a "
            "kerastrain.Data."
        )
    x, y, *weights = arrays
    if isinstance(x, Mapping):
        inputs: Any = {key: _array(value, f"{name}: input '{key}'") for key, value in x.items()}
    else:
        inputs = _array(x, f"{name}: x")
    sample_weight = _array(weights[0], f"{name}: sample_weight") if weights else None
    return Examples(inputs, _array(y, f"{name}: y"), sample_weight)


def _array(value: Any, what: str) -> np.ndarray:
    """One array of numbers or texts, rows first."""
    import numpy as np

    if isinstance(value, (Mapping, list, tuple)) and any(hasattr(v, "shape") for v in value):
        raise DataError(
            f"{what} is {_kind(value)} of arrays; expected one array. (Several inputs go as a dict "
            "of arrays; models with several outputs are not supported.)"
        )
    array = np.asarray(value)
    if array.ndim == 0 or array.dtype == object:
        raise DataError(f"{what} is {_kind(value)}; expected an array of numbers with rows first.")
    return array


def _kind(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    shape = getattr(value, "shape", None)
    if dtype is not None and shape is not None:
        return f"a {type(value).__name__} of {dtype}, shape {tuple(shape)}"
    return f"a {type(value).__name__}"
