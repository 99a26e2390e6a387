"""Which fit the progress in the directory of an EarlyStopping belongs to.

    fit = FitDirectory(Path("runs/best"))
    state = fit.begin(model, {"monitor": "val_loss"})   # of an interrupted one, else None
    fit.learn({"training examples": 64})                # raises OptionsError if it was another
    fit.write(state, finished=True)

One that was interrupted goes on, if it is the same as far as a callback can know. One that has
finished is over, as for Keras's BackupAndRestore: the next fold, or trial, begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from kerastrain.errors import OptionsError
from kerastrain.training.identity import describe_model, model_differences
from kerastrain.workdir import read_json, write_json

logger = logging.getLogger(__name__)


class FitDirectory:
    """The record of the last fit in a directory, `early_stopping.json`.

    Attributes:
        best_step: of the best weights that the record on the disk refers to.
    """

    def __init__(self, path: Path):
        self._path, self._file = path, path / "early_stopping.json"
        self._facts: dict[str, Any] = {}
        self._recorded: Mapping[str, Any] = {}
        self.best_step: int | None = None

    def begin(self, model: Any, facts: Mapping[str, Any]) -> dict[str, Any] | None:
        """The state of an interrupted fit, which goes on; None where one begins anew.

        Args:
            facts: what is known besides the model, plain values by name.

        Raises:
            OptionsError: the interrupted one was another; the differences are listed.
            WorkdirError: the record cannot be read.
        """
        record = read_json(self._file) if self._file.exists() else {}
        # Earlier versions did not say whether it had finished; one that had stopped had.
        is_over = record.get("finished", bool(record) and record["progress"]["stopped"])
        self._recorded = {} if is_over else record.get("belongs_to", {})
        self.best_step = record.get("best_step")
        self.learn({**facts, **_facts_of(model)})
        if is_over:
            logger.warning(
                "The last fit with directory=%s has finished; this one begins anew, and its best "
                "weights will replace those there.",
                self._path,
            )
        if is_over or not record:
            return None
        logger.warning(
            "Going on with the interrupted fit in directory=%s after %d evaluations%s. If this is "
            "another one, on other data, say, give it another directory or remove that one.",
            self._path,
            len(record["evaluations"]),
            "" if self._recorded else "; an earlier version did not record of what",
        )
        return record

    def learn(self, facts: Mapping[str, Any]) -> None:
        """Adds what has become known of this fit; what was known first stays.

        Raises:
            OptionsError: the one that goes on was another.
        """
        self._facts = {**facts, **self._facts}
        differences = model_differences(self._recorded, self._facts)
        if differences:
            raise OptionsError(
                f"directory={self._path} holds the progress of an interrupted fit, and this is "
                "another:\n  "
                + "\n  ".join(differences)
                + "\nNothing there was changed. Fit as it "
                "was to go on; to begin anew, remove the directory or give another."
            )

    def learn_built(self, model: Any) -> None:
        """Adds what a model has only after its first steps."""
        self.learn(_facts_of(model))

    def learn_rows(self, what: str, model: Any) -> None:
        """Adds how many examples this pass over the data had, by Keras's own mean of the loss."""
        mean = next((each for each in getattr(model, "metrics", ()) if each.name == "loss"), None)
        count = getattr(mean, "count", None)
        if count is not None:
            self.learn({what: int(count)})

    def write(self, state: Mapping[str, Any], *, finished: bool = False) -> None:
        """Records the state and what it belongs to, in one step.

        Raises:
            WorkdirError: it cannot be written.
        """
        belongs_to = {**self._facts, **self._recorded}
        write_json(self._file, {"finished": finished, "belongs_to": belongs_to, **state})
        self.best_step = state["best_step"]


def _facts_of(model: Any) -> dict[str, Any]:
    """The model, how it is compiled, and the shape of the data; examples no callback is shown."""
    if not isinstance(model, keras.Model) or getattr(model, "optimizer", None) is None:
        return {}  # In a loop of one's own.
    facts = {"optimizer class_name": type(model.optimizer).__name__, **describe_model(model)}
    if not model.built:
        facts.pop("layers", None)  # Their configuration changes when the model is built.
    shapes = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if shapes is not None:
        per_example = keras.tree.map_shape_structure(lambda shape: list(shape[1:]), shapes)
        facts["shape of an example"] = str(per_example)
    return facts
