"""TensorBoard's files, read back with TensorBoard's own reader."""

import os
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kerastrain.callbacks.tensorboard import TensorBoardLog
from kerastrain.objective import Objective
from kerastrain.training.status import RunStatus


def begin(log, *, step=0):
    """Starts the callback as the training loop does, at `step`."""
    status = RunStatus(Objective("val_loss", "min"), step=step, last_step=40, steps_per_epoch=10)
    callbacks = keras.callbacks.CallbackList([log])
    callbacks.set_params({"epochs": 4, "steps": 10, "verbose": 1, "run": status})
    callbacks.on_train_begin()
    return callbacks, status


def run(callbacks, status, *, to):
    """Goes on up to step `to`: a log point every 5 steps, a round every 10."""
    while status.step < to:
        status.step += 5
        status.learning_rate, status.examples_per_second = 0.001, 1000.0
        status.is_log_point = status.step % 10 == 5
        if status.is_log_point:
            callbacks.on_train_batch_end(status.step, {"loss": 1 / status.step})
        else:
            logs = {"loss": 1 / status.step, "accuracy": 0.5, "val_loss": 2.0, "val_accuracy": 0.5}
            callbacks.on_epoch_end(status.step // 10 - 1, logs)


def read(folder):
    """Every point of every file, unsampled, in the order in which TensorBoard sees them."""
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: [
            (event.step, tf.make_ndarray(event.tensor_proto)) for event in accumulator.Tensors(tag)
        ]
        for tag in accumulator.Tags()["tensors"]
    }


def steps(folder, tag="loss"):
    return [step for step, _ in read(folder)[tag]]


def test_train_and_validation_share_their_tags(tmp_path):
    log = TensorBoardLog(tmp_path)
    callbacks, status = begin(log)
    run(callbacks, status, to=20)
    callbacks.on_train_end()
    train, validation = read(tmp_path / "train"), read(tmp_path / "validation")
    assert set(train) == {"loss", "accuracy", "learning_rate", "examples_per_second"}
    assert set(validation) == {"loss", "accuracy"}
    assert steps(tmp_path / "train") == [5, 10, 15, 20]
    assert steps(tmp_path / "validation") == [10, 20]
    assert train["loss"][3][1] == pytest.approx(0.05)
    assert validation["loss"][0][1] == pytest.approx(2.0)


def test_without_validation_no_empty_run_appears(tmp_path):
    callbacks, _ = begin(TensorBoardLog(tmp_path))
    callbacks.on_epoch_end(0, {"loss": 1.0})
    callbacks.on_train_end()
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


@pytest.mark.parametrize("resumed", [0, 5, 10, 15, 20])
def test_a_resumed_run_has_one_point_a_step_and_none_beyond(tmp_path, resumed):
    killed = TensorBoardLog(tmp_path)
    run(*begin(killed), to=20)
    killed.commit()  # what it wrote is in the files; nothing was closed
    again = TensorBoardLog(tmp_path)
    callbacks, status = begin(again, step=resumed)
    if resumed:
        assert max(steps(tmp_path / "train")) == resumed
    run(callbacks, status, to=30)
    callbacks.on_train_end()
    assert steps(tmp_path / "train") == [5, 10, 15, 20, 25, 30]
    assert steps(tmp_path / "validation", "accuracy") == [10, 20, 30]


def test_many_resumes_leave_two_files_and_every_point_once(tmp_path):
    for step in range(0, 40, 5):
        callbacks, status = begin(TensorBoardLog(tmp_path), step=step)
        run(callbacks, status, to=step + 5)
        callbacks.on_train_end()
    assert steps(tmp_path / "train") == list(range(5, 45, 5))
    assert len(list((tmp_path / "train").iterdir())) == 2


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_file_cut_anywhere_is_read_up_to_there(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("log")
    log = TensorBoardLog(folder)
    run(*begin(log), to=20)
    log.close()
    (events,) = (folder / "train").iterdir()
    content = events.read_bytes()
    events.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    begin(TensorBoardLog(folder), step=20)
    remaining = read(folder / "train").get("loss", [])
    assert [step for step, _ in remaining] == [5, 10, 15, 20][: len(remaining)]


def test_a_process_killed_while_it_cut_the_files_back_doubles_nothing(tmp_path):
    log = TensorBoardLog(tmp_path)
    run(*begin(log), to=20)
    log.close()
    (events,) = (tmp_path / "train").iterdir()
    content = events.read_bytes()
    begin(TensorBoardLog(tmp_path), step=20)
    events.write_bytes(content)  # as if the old file had not been removed yet
    begin(TensorBoardLog(tmp_path), step=20)
    assert steps(tmp_path / "train") == [5, 10, 15, 20]


def test_an_evaluation_repeated_after_a_kill_is_recorded_once(tmp_path):
    log = TensorBoardLog(tmp_path)
    run(*begin(log), to=10)
    log.close()
    callbacks, _ = begin(TensorBoardLog(tmp_path), step=10)
    callbacks.on_epoch_end(0, {"loss": 0.1, "val_loss": 2.0})
    callbacks.on_train_end()
    assert steps(tmp_path / "train") == [5, 10]
    assert steps(tmp_path / "validation") == [10]


def test_the_description_is_written_once(tmp_path):
    for step in (0, 10, 20):
        callbacks, status = begin(TensorBoardLog(tmp_path, description="batch 128"), step=step)
        run(callbacks, status, to=step + 10)
        callbacks.on_train_end()
    assert [(step, text.item()) for step, text in read(tmp_path / "train")["run"]] == [
        (0, b"batch 128")
    ]


def test_flushed_points_survive_a_kill(tmp_path):
    program = """
        import os, signal, sys
        sys.path.insert(0, os.path.dirname(sys.argv[2]))
        from test_tensorboard import TensorBoardLog, begin, run
        log = TensorBoardLog(sys.argv[1])
        callbacks, status = begin(log)
        run(callbacks, status, to=20)
        log.commit()
        run(callbacks, status, to=40)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), __file__]
    process = subprocess.run(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=False)
    assert process.returncode == -signal.SIGKILL
    callbacks, status = begin(TensorBoardLog(tmp_path), step=20)
    run(callbacks, status, to=40)
    callbacks.on_train_end()
    assert steps(tmp_path / "train") == list(range(5, 45, 5))


def test_points_are_written_within_the_scope_of_a_strategy(tmp_path):
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        callbacks, status = begin(TensorBoardLog(tmp_path))
        run(callbacks, status, to=10)
        callbacks.on_train_end()
    assert steps(tmp_path / "train") == [5, 10]


def test_in_fit_rounds_are_recorded_against_the_optimizers_steps(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x, y = np.ones((20, 3), np.float32), np.ones((20, 1), np.float32)
    fit = {"batch_size": 5, "verbose": 0, "validation_data": (x, y)}
    model.fit(x, y, epochs=2, callbacks=[TensorBoardLog(tmp_path)], **fit)
    model.fit(x, y, epochs=1, callbacks=[TensorBoardLog(tmp_path)], **fit)
    assert set(read(tmp_path / "train")) == {"loss", "learning_rate"}
    assert steps(tmp_path / "train") == steps(tmp_path / "validation") == [4, 8, 12]
