"""`kerastrain train`: train a recipe, or go on with an interrupted run.

The flags are the fields of `TrainOptions`, one each; what a recipe adds of its
own is given with --set.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from absl import flags

from kerastrain.cli import table_flags
from kerastrain.errors import UsageError
from kerastrain.options import JIT, ON_NONFINITE, PRECISIONS, STRATEGIES, TrainOptions
from kerastrain.recipe import locate_recipe

if TYPE_CHECKING:
    from kerastrain.run import TrainResult

SUMMARY = "Train a recipe, or go on with an interrupted run."
FLAGS = flags.FlagValues()

flags.DEFINE_string(
    "recipe",
    TrainOptions.recipe,
    "What to train: the name of a recipe that comes along, or a Python file of your own; "
    "--recipe= itself may be left out.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "workdir",
    None,
    "The run's folder: checkpoints, metrics, export. The same command with the same folder "
    "goes on where the run was. Default: runs/ and the recipe's name.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data",
    None,
    "The table to learn from: a CSV or Parquet file, a folder of them, or a pattern such as "
    "'part-*.csv' (recipes tabular*).",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data_dir",
    None,
    "The folder of the data set's files (recipes mnist_*). Default: Keras's cache, or a download.",
    flag_values=FLAGS,
)
flags.DEFINE_string("target", None, "The column to predict (recipes tabular*).", flag_values=FLAGS)
table_flags.define(FLAGS)
flags.DEFINE_integer(
    "max_epochs",
    None,
    "End after that many passes over the training data. Default: the recipe's.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "max_steps",
    None,
    "End after that many optimizer steps, if that is sooner. Default: no limit.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "batch_size",
    None,
    "Examples in one optimizer step, over all devices together; all: every example in each "
    "step. Default: the recipe's.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "optimizer",
    None,
    "One of Keras's optimizers by name, with its arguments if need be: adam, "
    "'sgd(momentum=0.9, nesterov=True)', 'adamw(weight_decay=0.1, global_clipnorm=1.0, "
    "use_ema=True)', … Default: the recipe's.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "learning_rate",
    None,
    "A number; auto: what a learning-rate range test suggests (kerastrain find_lr shows it). "
    "Default: the recipe's, or else the optimizer's.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "schedule",
    None,
    "How the learning rate changes: constant, 'cosine(warmup_epochs=1)', one_cycle, "
    "'exponential(rate=0.9)', 'step(epochs=[30, 60])', 'plateau(patience=3)'. "
    "Default: the recipe's.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "seed",
    TrainOptions.seed,
    "Decides initial weights, splits, the order of examples and all other chance.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "patience",
    None,
    "Stop after that many evaluations without a better objective: short for "
    "--stop='patience(N)'. Default: the recipe's.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "stop",
    None,
    "When to stop: 'patience(5) or target(0.995)', 'gl(2) and after(epochs=3)', never, … "
    "'kerastrain replay --help' lists the criteria. Default: --patience.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "objective",
    None,
    "The metric by which the best weights are chosen: val_loss, val_accuracy, …; one that is "
    "not well known with its direction, as val_score:max. Default: the recipe's.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "evaluate_every",
    TrainOptions.evaluate_every,
    "How often the validation data are evaluated: 500steps, 1epoch, 30s, … A time is turned "
    "into steps once, by the measured time of a step, so that every start evaluates at the same.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "evaluate_examples",
    None,
    "Evaluate that many of the validation examples, always the same ones. Default: all.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "evaluate_batch",
    None,
    "Validation examples evaluated at once, on which losses of a batch as a whole depend; all: "
    "every example. Default: the batch size of the training.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "checkpoint_every",
    TrainOptions.checkpoint_every,
    "How often everything is saved: 500steps, 1epoch, 30s, 10min, …; auto: as often as it pays, "
    "by what a save was measured to cost and how often the run was killed.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_seconds",
    None,
    "The whole run, all its starts and the export, takes at most so long. Default: no limit.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "more_epochs",
    None,
    "Go on with a run that has ended (stopped early, say), for that many epochs beyond its end.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "on_nonfinite",
    TrainOptions.on_nonfinite,
    ON_NONFINITE,
    "When the loss is no finite number: stop, or go back to the last evaluation with half the "
    "learning rate, three times at most.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "inexact_resume",
    TrainOptions.inexact_resume,
    "Train although the step keeps state that cannot be saved (random ops without a seed, "
    "iterators): after an interruption the run goes on otherwise than without. Recorded.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "keep_last",
    TrainOptions.keep_last,
    "How many of the newest checkpoints stay.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "keep_best",
    TrainOptions.keep_best,
    "How many checkpoints stay because they are the best by the objective.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "keep_every",
    None,
    "Besides, one checkpoint stays every 2hours of training, every 10epochs, … Default: none.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "strategy",
    TrainOptions.strategy,
    STRATEGIES,
    "On which devices: auto is mirrored with two GPUs or more.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "jit",
    TrainOptions.jit,
    JIT,
    "Whether the steps are compiled by XLA: auto measures both and keeps the faster.",
    flag_values=FLAGS,
)
flags.DEFINE_enum(
    "precision",
    TrainOptions.precision,
    PRECISIONS,
    "Keras's dtype policy for the model.",
    flag_values=FLAGS,
)
flags.DEFINE_multi_string(
    "set",
    [],
    "A setting of the recipe's own, as --set=hidden=256; its file lists them.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "override",
    False,
    "Go on with a run although options, recipe or environment differ from those it was "
    "started with. It is then no longer exactly the run that it would have been.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "new_version",
    False,
    "Where data, recipe or options differ from those of the run in --workdir, set it aside (in the "
    "folder earlier/) and train anew; the next version is published beside the last. Where "
    "nothing differs, or to go on with an interrupted one, it changes nothing.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "dry_run",
    False,
    "Check all that can be checked before the first step, report, and stop; nothing is changed.",
    flag_values=FLAGS,
)

_PATHS = ("recipe", "workdir", "data", "data_dir")


def run(values: flags.FlagValues) -> int:
    """Trains, prints what was reached, and returns the exit status."""
    options = options_from(values)
    # Only now, with the command line in order: this imports TensorFlow.
    from kerastrain.run import dry_run, run_recipe

    how = {"override": values.override, "new_version": values.new_version}
    if values.dry_run:
        print("\n".join(dry_run(options, **how)))
        print(f"All checks passed; nothing was trained. The run would be in {options.workdir}.")
        return 0
    result = run_recipe(options, **how)
    print("\n".join(summary_lines(result)))
    return 0


def options_from(values: flags.FlagValues) -> TrainOptions:
    """The options that the flags say; what they leave open is the recipe's to decide.

    A command with fewer flags may have its options read by this, too.

    Raises:
        RecipeError: there is no such recipe.
        OptionsError: a value is out of range.
        UsageError: --set is malformed.
    """
    settings = parse_settings(values["set"].value)
    names = {field.name for field in dataclasses.fields(TrainOptions)}
    given = {name: values[name].value for name in values if name in names}
    for name in _PATHS:
        # The shell leaves the ~ of --data=~/x.csv to us.
        if given.get(name):
            given[name] = os.path.expanduser(given[name])
    given["batch_size"] = _number_or_word(given["batch_size"], int)
    given["evaluate_batch"] = _number_or_word(given.get("evaluate_batch"), int)
    given["learning_rate"] = _number_or_word(given.get("learning_rate"), float)
    path = locate_recipe(given["recipe"])
    if given.get("workdir") == "":  # An unset variable of the shell's.
        raise UsageError("--workdir is empty; expected a folder. Leave it out for runs/RECIPE.")
    given["workdir"] = given.get("workdir") or os.path.join("runs", path.stem)
    given.pop("table", None)
    return TrainOptions(**given, table=table_flags.table_options(values), settings=settings)


def _number_or_word(text: str | None, kind: Callable[[str], Any]) -> Any:
    """The number that a text says, else the text, which the options know or refuse."""
    try:
        return text if text is None else kind(text)
    except ValueError:
        return text


def parse_settings(texts: Iterable[str]) -> dict[str, str]:
    """Reads ["hidden=256", …]; the values' types are the recipe's to know.

    Raises:
        UsageError: one has no name or no "=".
    """
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set is '{text}'; expected name=value, as in --set=hidden=256.")
        settings[name] = value
    return settings


def summary_lines(result: TrainResult) -> list[str]:
    """What the run reached, what to do next, and, last, why it ended."""
    lines = [f"already finished: {result.stopped}"] if result.already_finished else []
    if result.best:
        best = result.best
        lines.append(f"best:    {best['name']} {_number(best['value'])} at step {best['step']:,}")
    if result.metrics:
        first = list(result.metrics.items())[:4]  # `kerastrain evaluate` shows all of them.
        shown = ", ".join(f"{name} {_number(value)}" for name, value in first)
        lines.append(f"test:    {shown}")
    if result.export:
        lines.append(f"export:  {result.export}")
        lines.append(f"next:    kerastrain evaluate --workdir={shlex.quote(str(result.workdir))}")
        lines.append(f"         tensorboard --logdir={shlex.quote(str(result.workdir))}")
    if not result.already_finished and result.best:
        reached = f"{result.best['name']} {_number(result.best['value'])}"
        where = f"step {result.best['step']:,} ({reached})"
        kept = f"The weights of {where} were restored and exported."
        lines.append(f"stopped: {result.stopped} {kept}")
    return lines


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
