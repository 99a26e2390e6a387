"""What callbacks remember, kept in the checkpoint.

    progress = CallbackProgress(callbacks, folder, host)    # before anything calls them
    progress.begun()                                        # after on_train_begin
    write = progress.take()                                 # into host, for a checkpoint

A callback's progress is every attribute that differs from what its constructor or what
on_train_begin made of it; it is put back after on_train_begin. Of what Keras's own classes set
only what `KEPT` names is progress: the rest (an open file, the sign of min_delta) belongs to one
start. A class with `get_state()` and `set_state(values)` says itself what must survive (JSON
values). What it is set to is for `callback_settings` to compare.

A time that was read from a clock comes back as it was, so that what is counted from it
includes the time between two starts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastrain.errors import CheckpointError
from kerastrain.training.callback_settings import (
    Seen,
    as_made,
    attributes,
    is_library,
    named_callbacks,
    seen,
    set_by_libraries,
)
from kerastrain.training.checkpoint_files import CheckpointFiles
from kerastrain.training.kept_values import Unkept, decode, variables_of
from kerastrain.workdir import write_bytes

logger = logging.getLogger(__name__)

# Counts of batches, and what on_epoch_begin sets: a start may go on in the middle of an epoch.
SEEN = {"_batches_seen_since_last_saving", "_last_batch_seen", "_current_epoch"}
KEPT = {
    "ReduceLROnPlateau": {"best", "wait", "cooldown_counter"},
    "EarlyStopping": {"best", "best_epoch", "best_weights", "wait", "stopped_epoch"},
    "ModelCheckpoint": {"best", *SEEN},
    "OrbaxCheckpoint": {"best", *SEEN},
    "BackupAndRestore": SEEN,
    "TensorBoard": {
        "_global_train_batch",
        "_global_test_batch",
        "_epoch_start_time",
        "_previous_epoch_iterations",
    },
    "History": {"history", "epoch"},
}
# Beside the checkpoints, each under its own checksum: arrays that are too large for a text.
FOLDER = "callbacks"


class CallbackProgress:
    """Of the callbacks of one loop.

    Args:
        folder: of the checkpoints.
        host: the state's host values; "callbacks" in it is what an earlier start left. The
            callbacks then become what they were before their first start, in this process too.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], folder: Path, host: dict[str, Any]
    ):
        self._named = named_callbacks(callbacks)
        self._folder, self._host = folder, host
        self._begun: dict[str, dict[str, Seen]] = {}
        self._told: set[tuple[str, str]] = set()
        # Array files written or read here: another of that name may be a damaged one.
        self._on_disk: set[str] = set()
        for name, callback in self._named:
            as_made(callback)
            if "callbacks" in host:
                _make_anew(name, callback)
                if isinstance(callback, keras.callbacks.CSVLogger):
                    callback.append = True  # Its file has been begun.

    def begun(self) -> None:
        """Puts back what an earlier start left; called after on_train_begin, which forgets it."""
        recorded = self._host.get("callbacks", {})
        for name in sorted(set(recorded) - {name for name, _ in self._named}):
            logger.warning("The checkpoint has progress of a callback %s; there is none now.", name)
        for name, callback in self._named:
            if isinstance(callback, keras.callbacks.CSVLogger):
                callback.append = as_made(callback)["append"].kept
            self._begun[name] = seen(_progress(callback))
            if "callbacks" in self._host:
                self._told |= {(name, lost) for lost in _lost(self._begun[name], callback)}
            state = recorded.get(name, {})
            _give_back(name, callback, state.get("attributes", {}), self._read)
            if "state" in state:
                callback.set_state(state["state"])

    def take(self) -> Callable[[], None]:
        """Puts the progress into the host values; returns what writes large arrays."""
        arrays: dict[str, np.ndarray] = {}
        states = {name: self._state(name, callback, arrays) for name, callback in self._named}
        self._host["callbacks"] = {name: state for name, state in states.items() if state}
        self._host["callback_files"] = sorted(arrays)
        place = self._folder / FOLDER
        # Copied now, since they may change while they are written.
        new = {n: array.tobytes() for n, array in arrays.items() if n not in self._on_disk}

        def write() -> None:
            stale = [old for old in place.glob("*") if old.name not in arrays]
            needed = CheckpointFiles(self._folder).needed_elsewhere() if stale else set()
            for old in stale:
                if f"{FOLDER}/{old.name}" not in needed:
                    old.unlink()
                    self._on_disk.discard(old.name)
            for name, content in new.items():
                place.mkdir(exist_ok=True)
                write_bytes(place / name, content)
                self._on_disk.add(name)

        return write

    def _state(
        self, name: str, callback: keras.callbacks.Callback, arrays: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        state = {"state": callback.get_state()} if _speaker(type(callback)) else {}
        made, begun, now = as_made(callback), self._begun[name], seen(_progress(callback))
        changed = {}
        for attribute, each in now.items():
            earlier = [moment[attribute].text for moment in (made, begun) if attribute in moment]
            if not each.unkept and earlier != [each.text] * 2:
                changed[attribute] = each.kept
                arrays |= each.arrays
        self._tell(name, _lost(now, callback))
        return {**state, "attributes": changed} if changed else state

    def _tell(self, name: str, lost: Mapping[str, str]) -> None:
        """Once of each attribute."""
        new = {a: kind for a, kind in lost.items() if (name, a) not in self._told}
        self._told |= {(name, attribute) for attribute in new}
        if new:
            logger.warning(
                "The callback %s: %s cannot be kept in a checkpoint; a start that goes on finds "
                "there what its constructor and on_train_begin make. What must survive can be "
                "said by get_state() and set_state(values).",
                name,
                ", ".join(f"{attribute} ({kind})" for attribute, kind in new.items()),
            )

    def _read(self, sha256: str) -> bytes:
        self._on_disk.add(sha256)
        return (self._folder / FOLDER / sha256).read_bytes()


def _lost(now: Mapping[str, Seen], callback: keras.callbacks.Callback) -> dict[str, str]:
    """What cannot be kept; a function that the constructor set, it will set again."""
    made = as_made(callback)
    again = {a for a in made if made[a].unkept == "function" and made[a] == now.get(a)}
    return {a: each.unkept for a, each in now.items() if each.unkept and a not in again}


def needed_files(host: Mapping[str, Any]) -> dict[str, str]:
    """{path from the checkpoints' folder: checksum} of the arrays that host values refer to."""
    return {f"{FOLDER}/{name}": f"sha256:{name}" for name in host.get("callback_files", [])}


def _make_anew(name: str, callback: keras.callbacks.Callback) -> None:
    """Makes a callback what it was before its first start in this process."""
    made = as_made(callback)
    copies = {sha256: array for each in made.values() for sha256, array in each.arrays.items()}
    for attribute, now in seen(_progress(callback)).items():
        if attribute not in made:
            vars(callback).pop(attribute, None)
        elif not made[attribute].unkept and made[attribute].text != now.text:
            try:
                kept = {attribute: made[attribute].kept}
                _give_back(name, callback, kept, lambda sha256: copies[sha256].tobytes())
            except KeyError:
                raise CheckpointError(
                    f"The array {attribute} of the callback {name} was changed by an earlier "
                    "start, and is too large for a copy of it. Make the callback anew."
                ) from None


def _give_back(
    name: str,
    callback: keras.callbacks.Callback,
    kept: Mapping[str, Any],
    read: Callable[[str], bytes],
) -> None:
    there = attributes(callback)
    for attribute, value in kept.items():
        try:
            given = decode(value, there.get(attribute), read)
        except Unkept as error:
            logger.warning(
                "The callback %s: %s (%s) does not get back what it was, since on_train_begin "
                "made no such object.",
                name,
                attribute,
                error,
            )
            continue
        if given is not there.get(attribute) or attribute not in there:
            vars(callback)[attribute] = given


def _progress(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Those attributes that may be progress."""
    kind: Any = type(callback)
    speaker = _speaker(kind)
    if speaker is not None and not is_library(speaker):
        return {}
    kept = {name for base in kind.__mro__ for name in KEPT.get(base.__name__, ())}
    left_out = set_by_libraries(kind) - (kept if speaker is None else set())
    # Not by its property: one whose constructor does not call Keras's has no model yet.
    of_model = _variables_of_model(vars(callback).get("_model"))
    return {
        name: value
        for name, value in attributes(callback).items()
        if name not in left_out and not _is_of_model(value, of_model)
    }


def _variables_of_model(model: keras.Model | None) -> set[int]:
    """Their identities: they are in the state already."""
    if model is None:
        return set()
    optimizer = [] if model.optimizer is None else model.optimizer.variables
    kept = [*model.variables, *model.metrics_variables, *optimizer]
    return {id(v) for each in kept for v in (each, each.value)}


def _is_of_model(value: Any, of_model: set[int]) -> bool:
    """Whether it is a layer or a variable of the model, or lists some."""
    parts = value if isinstance(value, (list, tuple)) and value else [value]
    held = [
        part.variables
        if isinstance(part, (keras.layers.Layer, keras.Optimizer))
        else variables_of(part) or [None]
        for part in parts
    ]
    return all(id(variable) in of_model for variables in held for variable in variables)


def _speaker(kind: type) -> type | None:
    """The class that says by get_state and set_state what must survive."""
    if not hasattr(kind, "set_state"):
        return None
    return next((base for base in kind.__mro__ if "get_state" in vars(base)), None)
