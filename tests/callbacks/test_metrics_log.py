"""The metrics file: what is in a line, and what a resumed run does with the old ones."""

import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.callbacks.metrics_log import MetricsLog
from kerastrain.errors import TrainingError
from kerastrain.objective import Objective
from kerastrain.training.status import RunStatus


class SimulatedLoop:
    """Calls callbacks as the training loop does: 10 steps an epoch, a log point every 5."""

    def __init__(self, callback, *, step=0, last_step=40):
        self.status = RunStatus(
            Objective("val_loss", "min"), step=step, last_step=last_step, steps_per_epoch=10
        )
        self.callbacks = keras.callbacks.CallbackList([callback])
        self.callbacks.set_params({"epochs": 4, "steps": 10, "verbose": 1, "run": self.status})
        self.callbacks.on_train_begin()

    def to(self, last_step):
        """Runs up to `last_step` in chunks of five steps, without ending the run."""
        while self.status.step < last_step:
            self.status.step += 5
            step = self.status.step
            self.status.epoch = step / 10
            self.status.learning_rate = 0.001
            self.status.examples_per_second = 1000.0
            self.status.is_log_point = step % 10 == 5
            logs = {"loss": 1 / step} if self.status.is_log_point else {}
            self.callbacks.on_train_batch_end(step, logs)
            if step % 10 == 0:
                logs = {"loss": 1 / step, "val_loss": 2 / step}
                self.callbacks.on_epoch_end(step // 10 - 1, logs)
        return self


def read(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def steps(path):
    return [(record["kind"], record["step"]) for record in read(path)]


UNINTERRUPTED = [("train", 5), ("evaluation", 10), ("train", 15), ("evaluation", 20)]


def test_a_line_holds_position_metrics_learning_rate_and_speed(tmp_path):
    path = tmp_path / "logs" / "metrics.jsonl"
    SimulatedLoop(MetricsLog(path)).to(10).callbacks.on_train_end()
    assert read(path)[1] == {
        "kind": "evaluation",
        "step": 10,
        "epoch": 1.0,
        "seconds": 0.0,
        "loss": 0.1,
        "val_loss": 0.2,
        "learning_rate": 0.001,
        "examples_per_second": 1000.0,
    }


def test_log_points_and_round_ends_are_recorded_and_nothing_else(tmp_path):
    path = tmp_path / "metrics.jsonl"
    SimulatedLoop(MetricsLog(path)).to(20).callbacks.on_train_end()
    assert steps(path) == UNINTERRUPTED


@given(kept=st.integers(0, 4), torn=st.integers(0, 60))
def test_a_killed_run_continues_without_overlap_or_gap(tmp_path_factory, kept, torn):
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    first = MetricsLog(path)
    SimulatedLoop(first).to(20)
    first.close()
    # Killed in the middle of writing a line that is later than the checkpoint at `resumed`.
    lines = path.read_bytes().splitlines(keepends=True)
    resumed = kept * 5
    path.write_bytes(b"".join(lines[:kept]) + b"".join(lines[kept:])[:torn])
    SimulatedLoop(MetricsLog(path), step=resumed).to(20).callbacks.on_train_end()
    assert steps(path) == UNINTERRUPTED


def test_an_evaluation_repeated_after_a_kill_is_recorded_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    SimulatedLoop(MetricsLog(path)).to(10)
    # The checkpoint at step 10 is one from before the evaluation, which therefore runs again.
    loop = SimulatedLoop(MetricsLog(path), step=10)
    loop.callbacks.on_epoch_end(0, {"loss": 0.1, "val_loss": 0.2})
    assert steps(path) == UNINTERRUPTED[:2]


def test_a_fresh_start_drops_the_lines_of_a_run_killed_before_its_first_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    SimulatedLoop(MetricsLog(path)).to(20)
    SimulatedLoop(MetricsLog(path))
    assert path.read_bytes() == b""


def test_lines_are_in_the_file_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    SimulatedLoop(log).to(5)
    assert steps(path) == [("train", 5)]
    log.commit()
    log.close()
    log.close()


def test_numbers_that_json_does_not_know_are_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    loop = SimulatedLoop(MetricsLog(path))
    loop.callbacks.on_epoch_end(0, {"loss": math.nan, "val_loss": -math.inf})
    record = read(path)[0]
    assert record["loss"] is None
    assert record["val_loss"] is None


def test_a_metric_with_a_value_per_class_gives_an_entry_per_class(tmp_path):
    path = tmp_path / "metrics.jsonl"
    loop = SimulatedLoop(MetricsLog(path))
    loop.callbacks.on_epoch_end(0, {"f1": np.array([0.5, 1.0], np.float32), "note": "text"})
    record = read(path)[0]
    assert (record["f1_0"], record["f1_1"]) == (0.5, 1.0)
    assert "note" not in record


def test_in_fit_rounds_are_recorded_against_the_optimizers_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    model = small_model()
    x, y = np.ones((20, 3), np.float32), np.ones((20, 1), np.float32)
    fit = {"batch_size": 5, "verbose": 0, "validation_data": (x, y)}
    model.fit(x, y, epochs=2, callbacks=[MetricsLog(path)], **fit)
    model.fit(x, y, epochs=1, callbacks=[MetricsLog(path)], **fit)
    assert steps(path) == [("evaluation", 4), ("evaluation", 8), ("evaluation", 12)]
    record = read(path)[1]
    assert record["epoch"] == 2.0
    assert record["learning_rate"] == pytest.approx(0.01)
    assert {"loss", "val_loss", "seconds"} <= set(record)
    assert "examples_per_second" not in record


def test_in_fit_a_model_without_an_optimizer_is_an_error(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.set_model(keras.Sequential([keras.layers.Dense(1)]))
    log.set_params({"epochs": 1, "steps": 1})
    with pytest.raises(TrainingError, match="has no optimizer"):
        log.on_train_begin()


def small_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model
