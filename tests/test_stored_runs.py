"""`kerastrain.train` on examples on disk: whole runs, interrupted ones, the checks before."""

import keras
import numpy as np
import pytest
import small_runs as small
from checked_here import check_here

import kerastrain
from kerastrain.data.source import Classification, Data, Examples
from kerastrain.data.stored import ExamplesWriter
from kerastrain.errors import DataError, ResumeError
from kerastrain.resume_check.comparison import differences, what_remains

EXAMPLES = small.blobs(1003)
VALIDATION = small.blobs(200)


@pytest.fixture(autouse=True)
def checked_here(monkeypatch):
    """Exports are checked in this process: quick. The fresh one has its own tests."""
    check_here(monkeypatch)


def stored(folder, examples=EXAMPLES, *, block_rows=20):
    with ExamplesWriter(folder, block_rows=block_rows, window_blocks=4) as writer:
        writer.append(examples)
        return writer.finish()


def train(workdir, train_examples, **changed):
    validation = changed.pop("validation", VALIDATION)
    data = Data(train=train_examples, validation=validation, task=Classification((0, 1, 2)))
    settings = {"max_epochs": 3, "batch_size": 32, "verbose": 0, "jit": "off", **changed}
    model = settings.pop("model", lambda: small.classifier(dropout=0.3))
    return kerastrain.train(model, data, workdir=workdir, **settings)


class Crash(Exception):
    pass


class CrashAfter(keras.callbacks.Callback):
    """So many steps of a start: in the middle of an epoch, a window, and between checkpoints."""

    def __init__(self, steps):
        super().__init__()
        # No number, which a resumed run would restore.
        self.steps = iter(range(steps))

    def on_train_batch_begin(self, batch, logs=None):
        if next(self.steps, None) is None:
            raise Crash


def remaining(workdir):
    """What remains of a run, without names that count the models of this process."""
    return {name.partition(" (")[0]: value for name, value in what_remains(workdir).items()}


def test_an_interrupted_run_on_disk_ends_as_one_that_was_not(tmp_path):
    settings = {"checkpoint_every": "7steps", "max_epochs": 4}
    whole, crashed = tmp_path / "whole", tmp_path / "crashed"
    train(whole, stored(tmp_path / "rows"), callbacks=[CrashAfter(1000)], **settings)
    for steps in (43, 60):
        with pytest.raises(Crash):
            train(crashed, stored(tmp_path / "rows"), callbacks=[CrashAfter(steps)], **settings)
    train(crashed, stored(tmp_path / "rows"), callbacks=[CrashAfter(1000)], **settings)
    assert differences(remaining(crashed), remaining(whole)) == []


def test_other_rows_or_another_order_are_refused_on_resume(tmp_path):
    train(tmp_path / "run", stored(tmp_path / "rows"), max_steps=5)
    for other in (stored(tmp_path / "a", VALIDATION), stored(tmp_path / "b", block_rows=21)):
        with pytest.raises(ResumeError, match="other data"):
            train(tmp_path / "run", other, max_steps=6)


def test_criteria_that_measure_and_a_range_test_work_on_disk(tmp_path):
    result = train(
        tmp_path / "run",
        stored(tmp_path / "rows"),
        stop="evidence & significance(z=2)",
        model=lambda: small.classifier(optimizer=keras.optimizers.SGD(0.1)),
        max_epochs=2,
    )
    assert all(np.isfinite(record["evidence"]) for record in result.history)


def test_a_run_on_disk_without_validation_is_exported(tmp_path):
    result = train(tmp_path / "run", stored(tmp_path / "rows"), validation=None, max_epochs=1)
    assert result.export is not None


def test_labels_beyond_the_outputs_are_found_in_any_block(tmp_path):
    targets = EXAMPLES.targets.copy()
    targets[700] = 3
    with pytest.raises(DataError, match="labels of train go from 0 to 3; the model has 3"):
        train(tmp_path / "run", stored(tmp_path / "rows", Examples(EXAMPLES.inputs, targets)))


def test_numbers_that_are_not_finite_are_found_and_said_as_in_memory(tmp_path):
    inputs = np.array(EXAMPLES.inputs)
    inputs[[500, 900, 37], [2, 2, 5]] = np.nan
    examples = Examples(inputs, EXAMPLES.targets)
    messages = []
    for name, rows in (("a", examples), ("b", stored(tmp_path / "rows", examples))):
        with pytest.raises(DataError) as caught:
            train(tmp_path / name, rows)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "3 of 1,003 rows have NaN or infinity in inputs of train (columns 2, 5" in messages[1]
    assert "the first is row 37." in messages[1]


def test_missing_numbers_that_the_model_takes_are_no_error_on_disk(tmp_path):
    def model():
        features = keras.Input((8,), name="features")
        known = keras.ops.nan_to_num(features)
        net = keras.Model(features, keras.layers.Dense(3, name="logits")(known))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        net.compile("adam", loss, metrics=["accuracy"])
        return net

    inputs = np.array(EXAMPLES.inputs)
    inputs[::50, 3] = np.nan
    rows = stored(tmp_path / "rows", Examples(inputs, EXAMPLES.targets))
    assert train(tmp_path / "run", rows, model=model, max_steps=3).step == 3
