import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from kerastrain.errors import WorkdirError
from kerastrain.resume_check.comparison import differences, what_remains
from kerastrain.training.checkpoint_files import CheckpointFiles
from kerastrain.workdir import Workdir, write_json

RECORDS = [{"kind": "evaluation", "step": n, "seconds": 0.1 * n, "loss": 1 / n} for n in (1, 2, 3)]
HOST = {"step": 30, "history": RECORDS[:1], "seconds": 12.5, "callbacks": {"wait": 1}}


def write_checkpoint(folder, step, values, **others):
    folder.mkdir(parents=True, exist_ok=True)
    variables = [tf.Variable(value) for value in values]
    tf.train.Checkpoint(model=variables, **others).write(str(folder / f"ckpt-{step}"))
    described = [["model", f"dense/{i}", list(v.shape), "float32"] for i, v in enumerate(values)]
    CheckpointFiles(folder).commit(step, {"variables": described})


def finished_run(path, *, weights=(1.0, 2.0, 3.0), host=HOST, records=RECORDS, **result):
    """The files of a run that has ended, as far as they are compared."""
    workdir = Workdir(path)
    values = [np.zeros(2, np.float32), np.array(weights, np.float32)]
    text = tf.Variable(json.dumps(host))
    write_checkpoint(workdir.latest_checkpoints, 20, values)
    write_checkpoint(workdir.latest_checkpoints, 30, values, host=text)
    write_checkpoint(workdir.best_checkpoints, 10, values)
    variables = path / "export" / "digits" / "1" / "variables"
    variables.mkdir(parents=True)
    tf.train.Checkpoint(kernel=tf.Variable(values[1])).write(str(variables / "variables"))
    workdir.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in records))
    np.savez(workdir.splits_file, train=np.arange(5), test=np.arange(5, 7))
    shown = {"ended": "budget", "best": {"value": 0.5}, "metrics": {"accuracy": 0.9}, **result}
    write_json(workdir.result_file, {**shown, "export": "export/digits/1", "given": {"a": 1}})
    return path


@pytest.fixture
def whole(tmp_path):
    return finished_run(tmp_path / "whole")


def test_everything_that_is_left_of_a_run_is_compared(whole):
    names = set(what_remains(whole))
    assert {
        "latest: step",
        "latest: host: history",
        "latest: host: callbacks",
        "latest: model/1 (dense/1)",
        "best: step",
        "best: model/0 (dense/0)",
        "export: kernel",
        "metrics.jsonl",
        "result: ended",
        "result: best",
        "result: metrics",
        "splits: train",
        "splits: test",
    } <= names
    assert not [name for name in names if "seconds" in name or "given" in name]


def test_two_runs_that_differ_by_the_clock_and_the_place_are_the_same(whole, tmp_path):
    slower = [{**record, "seconds": 9.0} for record in RECORDS]
    other = finished_run(tmp_path / "other", host={**HOST, "seconds": 99.0}, records=slower)
    assert differences(what_remains(other), what_remains(whole)) == []


def test_one_bit_of_a_weight_is_a_difference_wherever_it_lies(whole, tmp_path):
    least = np.nextafter(np.float32(3), np.float32(4))
    other = finished_run(tmp_path / "other", weights=(1.0, 2.0, least))
    assert differences(what_remains(other), what_remains(whole)) == [
        "latest: model/1 (dense/1): 1 of 12 bytes differ",
        "best: model/1 (dense/1): 1 of 12 bytes differ",
        "export: kernel: 1 of 12 bytes differ",
    ]


def test_a_metric_that_differs_is_named_with_its_record(whole, tmp_path):
    other = finished_run(tmp_path / "other", records=[*RECORDS[:2], {**RECORDS[2], "loss": 0.4}])
    (line,) = differences(what_remains(other), what_remains(whole))
    assert line.startswith("metrics.jsonl: record 3 is {") and "'loss': 0.4}, expected" in line


@pytest.mark.parametrize("change", ["history", "callbacks"])
def test_host_values_that_differ_are_named(whole, tmp_path, change):
    other = finished_run(tmp_path / "other", host={**HOST, change: [1]})
    (line,) = differences(what_remains(other), what_remains(whole))
    assert line.startswith(f"latest: host: {change}: ")


def test_best_weights_of_another_step_are_a_difference(whole, tmp_path):
    other = finished_run(tmp_path / "other")
    write_checkpoint(Workdir(other).best_checkpoints, 20, [np.zeros(2, np.float32)])
    found = differences(what_remains(other), what_remains(whole))
    assert "best: step: 20, expected 10" in found
    assert "best: model/1 (dense/1): missing" in found


def test_a_damaged_checkpoint_is_a_difference(whole, tmp_path):
    other = finished_run(tmp_path / "other")
    (data,) = Workdir(other).latest_checkpoints.glob("ckpt-30.data-*")
    data.write_bytes(data.read_bytes()[:-1])
    found = differences(what_remains(other), what_remains(whole))
    assert found[-1].startswith("latest: damage: not expected, ckpt-30.data-00000-of-00001 has")
    assert "latest: model/1 (dense/1): missing" in found


def test_a_run_that_is_not_finished_is_no_run_to_compare(whole):
    Workdir(whole).result_file.unlink()
    with pytest.raises(WorkdirError, match=r"result\.json is missing"):
        what_remains(whole)


def test_a_run_without_best_weights_differs_from_one_that_has_some(whole, tmp_path):
    other = finished_run(tmp_path / "other")
    shutil.rmtree(Workdir(other).best_checkpoints)
    found = differences(what_remains(other), what_remains(whole))
    assert found and all(line.startswith("best: ") and "missing" in line for line in found)


def test_values_are_the_same_only_to_the_last_digit_and_type():
    nan = float("nan")
    assert differences({"a": nan, "b": [nan]}, {"a": nan, "b": [nan]}) == []
    assert differences({"a": 1}, {"a": 1.0}) == ["a: 1, expected 1.0"]
    assert differences({"a": 0.1 + 0.2}, {"a": 0.3}) == ["a: 0.30000000000000004, expected 0.3"]
    assert differences({"a": b"12"}, {"a": b"123"}) == ["a: 2 bytes, expected 3"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a: 1 records, expected 2"]
    assert differences({"a": 1, "b": 2}, {"a": 1, "c": 3}) == ["c: missing", "b: not expected, 2"]
    (line,) = differences({"a": "x" * 1000}, {"a": "y"})
    assert len(line) < 250
