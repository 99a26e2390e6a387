"""The model of a recorded run as it was at one of its checkpoints.

    chosen = choose_checkpoint(workdir, "best")         # or "latest", "5000"; no TensorFlow yet
    with restored(workdir, recorded, chosen, data) as model:
        …                                               # with the weights that were evaluated

Restoring is strict: every variable is matched both ways, and checksums must fit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastrain.errors import CheckpointError, RecipeError, UsageError, suggestion
from kerastrain.options import TrainOptions
from kerastrain.training.checkpoint_files import CheckpointFiles
from kerastrain.workdir import Workdir, read_json

if TYPE_CHECKING:
    import keras

    from kerastrain.assembly import Assembly
    from kerastrain.data.source import Data

logger = logging.getLogger(__name__)

BEST, LATEST = "best", "latest"


@dataclass(frozen=True)
class Chosen:
    """A checkpoint of a run.

    Attributes:
        kind: "best", "latest" or "step", as it was asked for.
        folder: where it lies: whole states (`latest`), or the best weights alone (`best`).
    """

    kind: str
    step: int
    folder: Path


def choose_checkpoint(workdir: Workdir, said: str) -> Chosen:
    """The checkpoint that --checkpoint means.

    Raises:
        UsageError: it is no such word or number.
        CheckpointError: there is no such checkpoint; the message lists those there are.
    """
    states, best = (CheckpointFiles(f) for f in (workdir.latest_checkpoints, _best(workdir)))
    if said == BEST:
        step = _best_step(workdir, states)
        if step is not None and step in best.steps():
            return Chosen(BEST, step, best.folder)
    elif said == LATEST:
        if states.steps():
            return Chosen(LATEST, states.steps()[-1], states.folder)
    elif said.isascii() and said.isdecimal():
        for files in (states, best):
            if int(said) in files.steps():
                return Chosen("step", int(said), files.folder)
    else:
        raise UsageError(
            f"--checkpoint is '{said}'; expected {BEST}, {LATEST}, or the step of a checkpoint."
            f"{suggestion(said, (BEST, LATEST))}"
        )
    raise CheckpointError(
        f"The run in {workdir} has no checkpoint '{said}'. It has states of step "
        f"{_listed(states)}, and best weights of step {_listed(best)}."
    )


def _best(workdir: Workdir) -> Path:
    return workdir.best_checkpoints


def _listed(files: CheckpointFiles) -> str:
    return ", ".join(map(str, files.steps())) or "none"


def _best_step(workdir: Workdir, states: CheckpointFiles) -> int | None:
    """Of the run's result, or of the newest state when it has not ended."""
    if workdir.result_file.exists():
        return read_json(workdir.result_file)["best"]["step"]
    records = states.records()
    return records[-1].best_step if records else None


@contextlib.contextmanager
def restored(
    workdir: Workdir, recorded: Mapping[str, Any], chosen: Chosen, data: Data
) -> Iterator[keras.Model]:
    """The run's model, built anew, with the checkpoint's weights (averaged ones, if they were).

    Raises:
        CheckpointError: it is damaged, or belongs to another model.
        RecipeError: the recipe makes another model than the run trained.
    """
    assembly = _assembly(workdir, recorded, chosen)
    state = assembly.state(data)
    _check_same_model(recorded, state.model)
    from kerastrain.training.checkpoints import (
        CheckpointFolder,
        keep_newest,
        restore_best_weights,
    )

    if chosen.folder == _best(workdir):
        restore_best_weights(state.model, chosen.folder, chosen.step)
        yield state.model
        return
    from kerastrain.training.staging import Staging

    staging = Staging(state)
    folder = CheckpointFolder(
        chosen.folder, staging.checkpoint, describe=state.describe, keep=keep_newest(1)
    )
    folder.restore(chosen.step)
    staging.give_back()
    state.average_replicas()
    with state.averaged_weights():
        yield state.model


def _assembly(workdir: Workdir, recorded: Mapping[str, Any], chosen: Chosen) -> Assembly:
    from kerastrain.assembly import Assembly
    from kerastrain.job import Job
    from kerastrain.recipe import load_recipe

    loaded = load_recipe(recorded["recipe"])
    options = dataclasses.replace(
        TrainOptions.from_json(recorded["resolved"]), workdir=str(workdir.path)
    )
    if chosen.folder == _best(workdir):
        # The best weights are one copy, whatever the number of devices.
        options = dataclasses.replace(options, strategy="one_device")
    if recorded.get("recipe_sha256") not in (None, loaded.source_sha256):
        logger.warning("The recipe %s was edited since the run began.", recorded["recipe"])
    job = Job(
        name=loaded.name,
        given=options,
        options=options,
        load_data=lambda: loaded.recipe.load_data(options),
        build_model=loaded.recipe.build_model,
        step=loaded.recipe.step,
        recipe=recorded["recipe"],
        recipe_sha256=loaded.source_sha256,
    )
    assembly = Assembly(job, recorded.get("environment"))
    if recorded.get("found_learning_rate") is not None:
        assembly.take_rate(recorded["found_learning_rate"])
    return assembly


def _check_same_model(recorded: Mapping[str, Any], model: keras.Model) -> None:
    from kerastrain.training.identity import describe_model, model_differences

    differences = model_differences(recorded.get("model", {}), describe_model(model))
    if differences:
        raise RecipeError(
            f"The recipe {recorded['recipe']} makes another model than the run trained:\n  "
            + "\n  ".join(differences)
            + "\nUndo the changes of the recipe; what the run published before is untouched."
        )
