"""What callbacks remember, kept in the checkpoint; and what they were set to, which may not differ.

    progress = CallbackProgress(callbacks, folder, host)    # before anything calls them
    progress.begun()                                        # after on_train_begin
    write = progress.take()                                 # into host, for a checkpoint

A callback's *settings* are its attributes as they stand when it is first seen, after its
constructor: they are compared (`setting_differences`) and not restored. Its *progress* is every
attribute that differs from that or from what on_train_begin made of it; it is put back after
on_train_begin. Of what Keras's own classes set only what `KEPT` names is progress: the rest (an
open file, the sign of min_delta) belongs to one start. A class with `get_state()` and
`set_state(values)` says itself what must survive (JSON values).

A time that was read from a clock comes back as it was, so that what is counted from it
includes the time between two starts.
"""

from __future__ import annotations

import collections
import dis
import hashlib
import itertools
import json
import logging
import re
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastrain.errors import CheckpointError
from kerastrain.training.checkpoint_files import CheckpointFiles
from kerastrain.training.kept_values import Unkept, decode, encode, variables_of
from kerastrain.workdir import write_bytes

logger = logging.getLogger(__name__)

KEPT = {
    "ReduceLROnPlateau": {"best", "wait", "cooldown_counter"},
    "EarlyStopping": {"best", "best_epoch", "best_weights", "wait", "stopped_epoch"},
    "ModelCheckpoint": {"best", "_batches_seen_since_last_saving", "_last_batch_seen"},
    "OrbaxCheckpoint": {"best", "_batches_seen_since_last_saving", "_last_batch_seen"},
    "BackupAndRestore": {"_batches_seen_since_last_saving", "_last_batch_seen", "_current_epoch"},
    "TensorBoard": {"_global_train_batch", "_global_test_batch"},
    "History": {"history", "epoch"},
}
# Beside the checkpoints, each under its own checksum: arrays that are too large for a text.
FOLDER = "callbacks"
# Arrays that a callback was made with are copied up to this size, to be brought back if need be.
COPIED_BYTES = 1 << 26
# Where a callback has what it was when it was first seen: one object may be in several runs.
MADE = "_kerastrain_made"
# Nothing that is learned: what Keras's base class sets, and how much is shown.
NO_SETTINGS = {"params", "_model", "verbose"}
# A text that may differ from start to start: a path, the name of a file, a date, an id.
OF_ONE_START = re.compile(r'^".*([/\\]|\d{4}-\d\d|\d{6}|0x|[0-9a-f]{8}|\.\w{1,8}"$)')
STARTED = time.time(), time.monotonic()


@dataclass
class _Seen:
    """Attributes at one moment.

    Attributes:
        kept: as JSON values. arrays: {attribute: {sha256: array}}, those they refer to.
        functions: {attribute: its name and the checksum of its code}.
        unkept: {attribute: its class}, of all others.
        by_libraries: names of attributes that Keras's classes set, or this package's.
    """

    kept: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    unkept: dict[str, str] = field(default_factory=dict)
    by_libraries: frozenset[str] = frozenset()

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> _Seen:
        seen = cls()
        for name, value in attributes.items():
            arrays: dict[str, np.ndarray] = {}
            function = _function_text(value)
            if function is not None:
                seen.functions[name] = function
                continue
            try:
                seen.kept[name], seen.arrays[name] = encode(value, arrays), arrays
            except Unkept as error:
                seen.unkept[name] = str(error)
            except RecursionError:
                seen.unkept[name] = f"{type(value).__name__} that holds itself"
        return seen

    def text(self, name: str) -> str | None:
        """By which two values are compared: NaN is not equal to itself."""
        if name in self.kept:
            return json.dumps(self.kept[name])
        return self.functions.get(name) or self.unkept.get(name)


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
        self._named = _named(callbacks)
        self._folder, self._host = folder, host
        self._begun: dict[str, _Seen] = {}
        self._told: set[tuple[str, str]] = set()
        for name, callback in self._named:
            made = _made(callback)
            if "callbacks" in host:
                _make_anew(name, callback, made)
                if isinstance(callback, keras.callbacks.CSVLogger):
                    callback.append = True  # Its file has been begun.

    def begun(self) -> None:
        """Puts back what an earlier start left; called after on_train_begin, which forgets it."""
        recorded = self._host.get("callbacks", {})
        for name in sorted(set(recorded) - {name for name, _ in self._named}):
            logger.warning("The checkpoint has progress of a callback %s; there is none now.", name)
        for name, callback in self._named:
            if isinstance(callback, keras.callbacks.CSVLogger):
                callback.append = _made(callback).kept["append"]
            self._begun[name] = _Seen.of(_progress(callback))
            if "callbacks" in self._host:
                self._told |= {
                    (name, attribute) for attribute in _lost(self._begun[name], callback)
                }
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
        new = {name: a.tobytes() for name, a in arrays.items() if not (place / name).exists()}

        def write() -> None:
            stale = [old for old in place.glob("*") if old.name not in arrays]
            needed = CheckpointFiles(self._folder).needed_elsewhere() if stale else set()
            for old in stale:
                if f"{FOLDER}/{old.name}" not in needed:
                    old.unlink()
            for name, content in new.items():
                place.mkdir(exist_ok=True)
                write_bytes(place / name, content)

        return write

    def _state(
        self, name: str, callback: keras.callbacks.Callback, arrays: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        state = {"state": callback.get_state()} if _speaker(type(callback)) else {}
        made, begun, now = _made(callback), self._begun[name], _Seen.of(_progress(callback))
        changed = {
            attribute: kept
            for attribute, kept in now.kept.items()
            if not made.text(attribute) == begun.text(attribute) == now.text(attribute)
        }
        for attribute in changed:
            arrays |= now.arrays[attribute]
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
        return (self._folder / FOLDER / sha256).read_bytes()


def _lost(seen: _Seen, callback: keras.callbacks.Callback) -> dict[str, str]:
    """What cannot be kept; a function that the constructor set, it will set again."""
    made = _made(callback).functions
    functions = {
        name: "function" for name, text in seen.functions.items() if made.get(name) != text
    }
    return {**seen.unkept, **functions}


def needed_files(host: Mapping[str, Any]) -> dict[str, str]:
    """{path from the checkpoints' folder: checksum} of the arrays that host values refer to."""
    return {f"{FOLDER}/{name}": f"sha256:{name}" for name in host.get("callback_files", [])}


def callback_settings(
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, dict[str, str]]:
    """{"0 Patience": {"patience": "3", …}, …}: what every callback was set to, as texts."""
    return {name: _settings(callback) for name, callback in _named(callbacks)}


def setting_differences(
    recorded: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Lines "callback 0 Patience: patience: 3 recorded, 5 now", for what both have.

    Paths, names of files, dates, ids and times that differ are no difference, but told.
    """
    differences = []
    for name in sorted(set(recorded) & set(now)):
        before, after = recorded[name], now[name]
        for attribute in (a for a in after if a in before and before[a] != after[a]):
            line = f"{attribute}: {before[attribute]} recorded, {after[attribute]} now"
            if _is_of_one_start(before[attribute], after[attribute]):
                logger.info("The callback %s was made otherwise: %s.", name, line)
            else:
                differences.append(f"callback {name}: {line}")
    return differences


def _is_of_one_start(before: str, now: str) -> bool:
    if OF_ONE_START.match(before) and OF_ONE_START.match(now):
        return True
    # A time: such a number lies between the start of this process and now.
    clocks = zip(STARTED, (time.time(), time.monotonic()), strict=True)
    is_number = re.fullmatch(r"\d+\.\d+", now) is not None
    return is_number and any(began - 1e-3 <= float(now) <= ends for began, ends in clocks)


def _named(
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[tuple[str, keras.callbacks.Callback]]:
    """Each with its class and its number in that: one more of another kind changes no name."""
    counts: collections.Counter[str] = collections.Counter()
    named = []
    for callback in callbacks:
        kind = type(callback).__name__
        named.append((f"{counts[kind]} {kind}", callback))
        counts[kind] += 1
    return named


def _made(callback: keras.callbacks.Callback) -> _Seen:
    """What a callback was when it was first seen; large arrays are copies, or left out."""
    if MADE not in vars(callback):
        seen, left = _Seen.of(_attributes(callback)), COPIED_BYTES
        for arrays in seen.arrays.values():
            left -= sum(array.nbytes for array in arrays.values())
            copies = {sha256: array.copy() for sha256, array in arrays.items() if left >= 0}
            arrays.clear()
            arrays.update(copies)
        seen.by_libraries = _set_by_libraries(type(callback))
        vars(callback)[MADE] = seen
    return vars(callback)[MADE]


def _make_anew(name: str, callback: keras.callbacks.Callback, made: _Seen) -> None:
    """Makes a callback what it was before its first start in this process."""
    now = _Seen.of(_progress(callback))
    copies = {key: array for arrays in made.arrays.values() for key, array in arrays.items()}
    for attribute in {*now.kept, *now.functions, *now.unkept}:
        if made.text(attribute) is None:
            vars(callback).pop(attribute, None)
        elif attribute in made.kept and made.text(attribute) != now.text(attribute):
            try:
                kept = {attribute: made.kept[attribute]}
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
    there = _attributes(callback)
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


def _attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """A callback's own, and what its class holds for it: a list that every instance adds to."""
    shared = {
        name: value
        for kind in reversed(type(callback).__mro__)
        if not _is_library(kind)
        for name, value in vars(kind).items()
        if isinstance(value, (list, dict, set, np.ndarray)) and not name.startswith("__")
    }
    return {**shared, **{n: v for n, v in vars(callback).items() if n != MADE}}


def _progress(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Those attributes that may be progress."""
    kind = type(callback)
    speaker = _speaker(kind)
    if speaker is not None and not _is_library(speaker):
        return {}
    kept = {name for base in kind.__mro__ for name in KEPT.get(base.__name__, ())}
    left_out = _made(callback).by_libraries - (kept if speaker is None else set())
    of_model = _variables_of_model(callback.model)
    return {
        name: value
        for name, value in _attributes(callback).items()
        if name not in left_out and not _is_of_model(value, of_model)
    }


def _variables_of_model(model: keras.Model | None) -> set[int]:
    """Their identities: they are in the state already."""
    if model is None:
        return set()
    optimizer = [] if model.optimizer is None else model.optimizer.variables
    return {id(v) for each in [*model.variables, *optimizer] for v in (each, each.value)}


def _is_of_model(value: Any, of_model: set[int]) -> bool:
    parts = value if isinstance(value, (list, tuple)) and value else [value]
    return all(_is_part_of_model(part, of_model) for part in parts)


def _is_part_of_model(part: Any, of_model: set[int]) -> bool:
    is_layer = isinstance(part, (keras.layers.Layer, keras.Optimizer))
    found = part.variables if is_layer else variables_of(part)
    return (is_layer or bool(found)) and all(id(variable) in of_model for variable in found)


def _speaker(kind: type) -> type | None:
    """The class that says by get_state and set_state what must survive."""
    if not hasattr(kind, "set_state"):
        return None
    return next((base for base in kind.__mro__ if "get_state" in vars(base)), None)


def _settings(callback: keras.callbacks.Callback) -> dict[str, str]:
    made, kind = _made(callback), type(callback)
    # When to stop is an option, and is compared there.
    is_own = any(base.__module__.startswith("kerastrain.") for base in kind.__mro__)
    left_out = NO_SETTINGS | (made.by_libraries if is_own else set())
    texts = {name: json.dumps(kept) for name, kept in made.kept.items()}
    texts |= made.functions
    own = [name for name in texts if name in vars(callback) and name not in left_out]
    return {name: _short(texts[name]) for name in own}


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _is_library(kind: type) -> bool:
    return kind is object or kind.__module__.partition(".")[0] in ("keras", "kerastrain")


def _set_by_libraries(kind: type) -> frozenset[str]:
    """Names of the attributes that Keras's classes, or this package's, set among its bases."""
    codes = [
        member.__code__
        for base in kind.__mro__
        if _is_library(base)
        for member in vars(base).values()
        if isinstance(member, types.FunctionType)
    ]
    names = set()
    for code in codes:
        steps = list(dis.get_instructions(code))
        for before, step in itertools.pairwise(steps):
            if step.opname == "STORE_ATTR" and before.argval == "self":
                names.add(step.argval)
    return frozenset(names)


def _function_text(value: Any) -> str | None:
    """ "halve (code 3f2a…)"; by its name where the code is not Python's; None for no function."""
    if isinstance(value, types.MethodType):
        value = value.__func__
    if isinstance(value, types.FunctionType):
        return f"{value.__qualname__} (code {_code_checksum(value.__code__)[:16]})"
    if isinstance(value, (type, types.BuiltinFunctionType, np.ufunc)):
        return f"{value.__name__} (function)"
    return None


def _code_checksum(code: types.CodeType) -> str:
    texts = [_constant_text(constant) for constant in code.co_consts]
    content = repr((code.co_code, code.co_names, texts))
    return hashlib.sha256(content.encode()).hexdigest()


def _constant_text(constant: Any) -> str:
    if isinstance(constant, types.CodeType):
        return _code_checksum(constant)
    # A set has another order in each process.
    return repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)
