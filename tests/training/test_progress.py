"""What callbacks remember survives exactly; what they were set to is compared."""

import collections
import json
import math
import threading
import types
from typing import ClassVar

import keras
import ml_dtypes
import numpy as np
import pytest
import small_runs as small
import tensorflow as tf

from kerastrain.training.progress import FOLDER, CallbackProgress, needed_files

MODEL = small.classifier()


class Start:
    """One start of a run, as far as callbacks are concerned; `host` is what a checkpoint holds."""

    def __init__(self, folder, *callbacks, host=None):
        self.host = {} if host is None else json.loads(json.dumps(host))
        self.folder = folder
        progress = CallbackProgress(callbacks, folder, self.host)
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=MODEL, epochs=9)
        self.callbacks.on_train_begin()
        progress.begun()
        self._progress = progress

    def epochs(self, *values, first=0):
        for epoch, value in enumerate(values, first):
            self.callbacks.on_epoch_end(epoch, {"val_loss": value})
        return self

    def saved(self):
        """What the next start finds."""
        self._progress.take()()
        return json.loads(json.dumps(self.host))


def resumed(folder, make, *, epochs=(1.0, 0.5)):
    """The callback of a start that goes on, and the one that it is to be like."""
    first, again = make(), make()
    host = Start(folder, first).epochs(*epochs).saved()
    Start(folder, again, host=host)
    return again, first


class AsInTheGuide(keras.callbacks.Callback):
    """Keras's guide: its progress is set where the training begins."""

    def __init__(self, patience=0):  # Without Keras's own, which fit does not miss either.
        self.patience = patience
        self.best_weights = None

    def on_train_begin(self, logs=None):
        self.wait, self.best = 0, np.inf

    def on_epoch_end(self, epoch, logs=None):
        if logs["val_loss"] < self.best:
            self.best, self.wait = logs["val_loss"], 0
            self.best_weights = self.model.get_weights()
        else:
            self.wait += 1


def test_progress_that_on_train_begin_sets_is_restored_after_it(tmp_path):
    again, first = resumed(tmp_path, AsInTheGuide, epochs=(0.5, 0.7, 0.6))
    assert (again.wait, again.best) == (first.wait, first.best) == (2, 0.5)
    assert small.same(again.best_weights, first.best_weights)
    again, _ = resumed(tmp_path, AsInTheGuide, epochs=())
    assert (again.wait, again.best, again.best_weights) == (0, math.inf, None)


VALUES = {
    "not finite": [math.inf, -math.inf, math.nan, -0.0, 2**80],
    "texts": ["é", None, True],
    "keys that are no texts": {1: "a", (2, "b"): {None: 3.5}},
    "tuples and sets": ((1, [2, (3,)]), {3, 1}, frozenset("ab")),
    "collections": [
        collections.Counter("aab"),
        collections.OrderedDict(b=1, a=2),
    ],
    "numpy's numbers": [np.float32(0.1), np.int8(3), np.bool_(True), np.float64(math.nan)],
    "arrays": [np.zeros((0, 3), np.int16), np.array("ab"), np.array([1, 2], ">i4")],
    "half": np.ones(3, ml_dtypes.bfloat16),
    "a large array": np.arange(9000.0).reshape(90, 100).T,
    "a tensor": tf.constant([[1, 2]]),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_comes_back_as_it_was(tmp_path, value):
    class Holding(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.value = value

    again, _ = resumed(tmp_path, Holding)
    assert repr(again.value) == repr(value) and type(again.value) is type(value)
    if isinstance(value, np.ndarray):
        assert (again.value.dtype, again.value.shape) == (value.dtype, value.shape)
        assert again.value.tobytes() == value.tobytes()


class ChangedInPlace(keras.callbacks.Callback):
    shared: ClassVar[list[int]] = []

    def __init__(self, notes):
        super().__init__()
        self.notes = self.other_name = notes
        self.counts = np.zeros(2000)
        self.variables = [tf.Variable([0.0]), keras.Variable(1)]
        self.mean = keras.metrics.Mean()
        self.source, self.last = np.random.default_rng(0), collections.deque(maxlen=1)
        self.active = False

    def on_train_begin(self, logs=None):
        self.active = True

    def on_epoch_end(self, epoch, logs=None):
        self.last.append(self.source.random())
        self.notes.append((epoch, list(self.last)))
        self.shared.append(epoch)
        self.counts[epoch] += 1
        self.variables[0].assign_add([0.5])
        self.mean.update_state(epoch)
        self.active = False  # As the constructor left it, and not as on_train_begin does.


def test_what_is_changed_in_place_is_noticed_and_changed_back_in_place(tmp_path):
    # As in a new process: the list of the class is empty there.
    notes, more = [], []
    whole = ChangedInPlace(more)
    Start(tmp_path, whole).epochs(1.0, 0.5, 0.3)
    ChangedInPlace.shared.clear()
    host = Start(tmp_path, ChangedInPlace([])).epochs(1.0, 0.5).saved()
    ChangedInPlace.shared.clear()
    again = ChangedInPlace(notes)
    held = list(again.variables)
    start = Start(tmp_path, again, host=host)
    assert not again.active
    start.epochs(0.3, first=2)
    assert again.notes is again.other_name is notes and notes == more
    assert ChangedInPlace.shared == [0, 1, 2] and "shared" not in vars(again)
    assert again.counts.tolist() == whole.counts.tolist()
    assert again.variables == held and held[0].numpy() == [1.5]
    assert again.mean.result() == whole.mean.result() == 1.0


def test_a_callback_that_was_used_before_goes_back_to_its_checkpoint(tmp_path):
    used = ChangedInPlace([])
    start = Start(tmp_path, used)
    beginning = start.saved()
    start.epochs(1.0, 0.5)
    used.made_later = 1
    Start(tmp_path, used, host=beginning)
    assert used.notes == [] and not used.counts.any() and used.active
    assert used.variables[0].numpy() == [0.0] and used.mean.result() == 0.0
    assert not hasattr(used, "made_later")


def test_arrays_are_written_once_and_only_if_they_changed(tmp_path):
    class Largest(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.rows, self.best = np.ones((300, 300)), None

        def on_epoch_end(self, epoch, logs=None):
            if epoch in (1, 3):
                self.best = np.full(1000, float(epoch))

    def files():
        return {file.name: file.stat().st_mtime_ns for file in (tmp_path / FOLDER).glob("*")}

    start = Start(tmp_path, Largest())
    start.saved()
    assert not files()
    host = start.epochs(1.0, 0.5).saved()
    written = files()
    assert set(needed_files(host)) == {f"{FOLDER}/{name}" for name in written}
    assert len(written) == 1
    start.epochs(0.4, first=2).saved()
    assert files() == written
    start.epochs(0.3, first=3).saved()
    (replaced,) = files()  # No checkpoint needs the other any more.
    assert replaced not in written
    (tmp_path / FOLDER / replaced).write_bytes(b"damaged")
    again = Start(tmp_path, Largest()).epochs(1.0, 0.5, 0.4, 0.3).saved()
    assert len((tmp_path / FOLDER / replaced).read_bytes()) == 8000
    assert set(needed_files(again)) == {f"{FOLDER}/{replaced}"}


def test_what_cannot_be_kept_is_told_once_by_name(tmp_path, caplog):
    class Logging(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.transform = lambda value: value  # The constructor makes it again.

        def on_train_begin(self, logs=None):
            self.file, self.lock = (tmp_path / "log").open("w"), threading.Lock()
            self.rule, self.teacher = (lambda: 1), small.classifier()
            self.layers, self.weights = self.model.layers, self.model.trainable_variables
            self.mixed = [types.SimpleNamespace()]

    start = Start(tmp_path, Logging())
    host = start.epochs(1.0).saved()
    start.saved()
    assert caplog.text.count("cannot be kept") == 1
    assert "The callback 0 Logging: " in caplog.text
    for told in ("file (TextIOWrapper)", "lock (lock)", "rule (function)", "teacher (Functional)"):
        assert told in caplog.text
    assert "mixed (SimpleNamespace)" in caplog.text
    assert "transform" not in caplog.text and "layers" not in caplog.text  # The model's own.
    caplog.clear()
    Start(tmp_path, Logging(), host=host).saved()
    assert not caplog.text
    Start(tmp_path, host={"callbacks": {"0 Logging": {}}})
    assert "progress of a callback 0 Logging; there is none now" in caplog.text


class WithState(keras.callbacks.Callback):
    seen = ()

    def get_state(self):
        return {"seen": list(self.seen)}

    def set_state(self, state):
        self.seen = state["seen"]

    def on_epoch_end(self, epoch, logs=None):
        self.seen, self.other = [*self.seen, epoch], epoch


def test_a_callback_may_say_itself_what_must_survive(tmp_path):
    again, _ = resumed(tmp_path, WithState)
    assert again.seen == [0, 1] and not hasattr(again, "other")


# Keras's own


def plateau():
    return keras.callbacks.ReduceLROnPlateau("val_loss", patience=5, min_delta=0.1)


def test_reduce_lr_on_plateau_goes_on_counting_where_it_was(tmp_path):
    again, first = resumed(tmp_path, plateau, epochs=(1.0, 0.5, 0.49, 0.48))
    assert (again.wait, again.best) == (first.wait, first.best) == (2, 0.5)
    again.on_epoch_end(4, {"val_loss": 0.47})  # better by less than min_delta: still waiting
    assert again.wait == 3


def test_keras_early_stopping_has_its_best_weights_again(tmp_path):
    def stopping():
        return keras.callbacks.EarlyStopping("val_loss", 5, restore_best_weights=True, patience=9)

    again, first = resumed(tmp_path, stopping, epochs=(0.5, 0.7))
    assert (again.wait, again.best, again.best_epoch) == (1, 0.5, 0)
    assert small.same(again.best_weights, first.best_weights)


def test_a_worse_epoch_does_not_replace_the_file_of_a_better_one(tmp_path):
    path = tmp_path / "best.weights.h5"

    def saving():
        return keras.callbacks.ModelCheckpoint(
            path, "val_loss", save_best_only=True, save_weights_only=True
        )

    again, _ = resumed(tmp_path, saving, epochs=(0.5, 0.3))
    path.unlink()
    again.on_epoch_end(2, {"val_loss": 0.4})
    assert not path.exists()


@pytest.mark.parametrize("append", [True, False])
def test_a_csv_logger_goes_on_with_its_file(tmp_path, append):
    path = tmp_path / "log.csv"

    def logger():
        return keras.callbacks.CSVLogger(path, append=append)

    host = Start(tmp_path, logger()).epochs(1.0).saved()
    again = logger()
    Start(tmp_path, again, host=host).epochs(0.5, first=1).callbacks.on_train_end()
    assert path.read_text().splitlines() == ["epoch,val_loss", "0,1.0", "1,0.5"]
    assert again.append is append


def test_what_a_subclass_of_keras_adds_is_its_own(tmp_path):
    class Counting(keras.callbacks.ReduceLROnPlateau):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            self.calls = getattr(self, "calls", 0) + 1

    again, _ = resumed(tmp_path, lambda: Counting("val_loss", patience=9), epochs=(0.5, 0.7))
    assert (again.calls, again.wait, again.monitor_op) == (2, 1, None)
