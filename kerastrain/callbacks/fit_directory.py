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

from kerastrain.errors import OptionsError, WorkdirError
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
        self._inode = self._inode_now()  # Each record that is written has a new one.
        self.best_step: int | None = None

    def begin(self, model: Any, facts: Mapping[str, Any]) -> dict[str, Any] | None:
        """The state of an interrupted fit, which goes on; None where one begins anew.

        Args:
            facts: what is known besides of the model, plain values by name.

        Raises:
            OptionsError: the interrupted one was another; the differences are listed.
            WorkdirError: the record cannot be read.
        """
        record = {} if self._inode is None else read_json(self._file)
        is_over = record.get("finished", False)
        self._recorded = {} if is_over else record.get("belongs_to", {})
        self.best_step = record.get("best_step")
        self.learn(facts)
        self.learn_model(model)
        if is_over:
            logger.warning(
                "The last fit with directory=%s has finished; this one begins anew, and its best "
                "weights will replace those there.",
                self._path,
            )
            return None
        if record:
            logger.warning(
                "Going on with the interrupted fit in directory=%s, whose evaluations so far are "
                "%d: with its progress and best weights. The weights to train on from are the "
                "model's own, unless keras.callbacks.BackupAndRestore brings them. If this is "
                "another fit, on other data, say, remove the directory or give another.",
                self._path,
                len(record["evaluations"]),
            )
        return record or None

    def learn(self, facts: Mapping[str, Any]) -> None:
        """Adds what has become known of this fit; what was known first stays.

        Raises:
            OptionsError: the one that goes on was another.
        """
        new = {name: value for name, value in facts.items() if name not in self._facts}
        self._facts |= new
        differences = []
        for name in sorted(new.keys() & self._recorded.keys()):
            recorded, now = self._recorded[name], new[name]
            if name == "model":
                differences += model_differences(recorded, now)
            elif recorded != now:
                differences.append(f"{name}: {recorded} recorded, {now} now")
        if differences:
            raise OptionsError(
                f"directory={self._path} holds the progress of an interrupted fit, and this is "
                "another:\n  "
                + "\n  ".join(differences)
                + "\nNothing there was changed. Fit as it "
                "was to go on; to begin anew, remove the directory or give another."
            )

    def learn_model(self, model: Any) -> None:
        """Adds how a model is made and compiled, and for what data, once it is built."""
        is_compiled = isinstance(model, keras.Model) and hasattr(model, "optimizer")
        if not is_compiled or not model.built or "model" in self._facts:
            return
        facts: dict[str, Any] = {"model": describe_model(model)}
        shapes = (model.get_build_config() or {}).get("input_shape")
        if shapes is not None:
            per_example = keras.tree.map_shape_structure(lambda shape: list(shape[1:]), shapes)
            facts["shape of an example"] = str(per_example)
        self.learn(facts)

    def learn_rows(self, what: str, model: Any) -> None:
        """Adds how many examples this pass over the data had, by Keras's own mean of the loss."""
        counts = [
            getattr(m, "count", None) for m in getattr(model, "metrics", ()) if m.name == "loss"
        ]
        if counts and counts[0] is not None:
            # By NumPy, since over several replicas it is no plain variable.
            self.learn({what: int(counts[0].numpy())})

    def write(self, state: Mapping[str, Any], *, finished: bool = False) -> None:
        """Records the state and what it belongs to, in one step.

        Raises:
            WorkdirError: it cannot be written.
        """
        belongs_to = {**self._facts, **self._recorded}
        write_json(self._file, {"finished": finished, "belongs_to": belongs_to, **state})
        self.best_step, self._inode = state["best_step"], self._inode_now()

    def check_alone(self) -> None:
        """Raises WorkdirError if another callback has written there; fits side by side, say."""
        if self._inode_now() not in (None, self._inode):
            raise WorkdirError(
                f"Another EarlyStopping writes to directory={self._path} at the same time; best "
                "weights would be lost. Give each a directory of its own."
            )

    def _inode_now(self) -> int | None:
        return self._file.stat().st_ino if self._file.exists() else None
