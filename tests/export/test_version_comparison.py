from __future__ import annotations

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from hand_made_versions import WEATHER, point_data, publish, save_scaled, save_weather, weather_data

from kerastrain.data.source import Classification, Regression
from kerastrain.errors import ExportError, OptionsError
from kerastrain.export.answer_differences import differences_between
from kerastrain.export.version_comparison import compare_versions
from kerastrain.export.version_list import list_versions

DATA = weather_data(800)


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Of classes: a worse and a good one, and one of other classes."""
    base = tmp_path_factory.mktemp("weather")
    publish(base, partial(save_weather, threshold=0.4), data={"fingerprint": "another"})
    publish(base, save_weather, data={"fingerprint": "this"})
    publish(base, save_weather, task=Classification(("cold", "mild")))
    publish(base, save_weather, task=Classification(("cold", "warm"), "cold"))
    return list_versions(base, verify=False)


def test_both_are_measured_on_the_same_rows_with_an_interval_of_the_difference(versions):
    found = compare_versions(*versions[:2], DATA, resamples=200)
    accuracy = found.metrics["accuracy"]
    assert found.rows == 200 and set(found.metrics) > {"accuracy", "loss", "roc_auc"}
    assert 0 < accuracy.low < accuracy.difference < accuracy.high
    # The same order of the rows by their warmth: the area is the same in every draw.
    area = found.metrics["roc_auc"]
    assert (area.low, area.high) == (0, 0)
    again = compare_versions(*versions[:2], DATA, resamples=200)
    assert again.to_json() == found.to_json()
    assert compare_versions(*versions[:2], DATA, resamples=0).metrics["loss"].low is None


def test_other_labels_are_counted_by_who_is_right_and_by_class(versions):
    found = compare_versions(*versions[:2], DATA, resamples=0)
    differences = found.differences
    temperature = DATA.test.inputs["temperature"]
    between = (temperature > 0) & (temperature < 0.4)
    assert differences.rows == between.sum()
    assert differences.counts[0][1] == between.sum() and differences.counts[1][0] == 0
    right = differences.both_right, differences.only_a_right, differences.only_b_right
    assert sum(right) + differences.both_wrong == 200
    assert differences.only_b_right == (between & (DATA.test.targets == 1)).sum()
    first = differences.cells[0]
    assert (first["true"], first["a"], first["b"]) == ("warm", "cold", "warm")
    assert sum(cell["rows"] for cell in differences.cells) == differences.rows


def test_the_rows_that_differ_most_are_told_with_their_place_in_the_source(versions):
    found = compare_versions(*versions[:2], DATA, resamples=0, shown=3)
    assert len(found.most) == 3
    distances = [each["difference"] for each in found.most]
    assert distances == sorted(distances, reverse=True) and 0 < distances[-1] <= distances[0] < 1
    each = found.most[0]
    assert each["source_row"] == 600 + each["row"]
    assert each["inputs"]["temperature"] == DATA.test.inputs["temperature"][each["row"]]
    assert each["a"]["label"] == "cold" and each["a"]["probability"] > 0.5
    assert json.loads(json.dumps(found.to_json()))["most"][0]["inputs"].keys() == {
        "temperature", "wind"
    }  # fmt: skip


def test_a_version_trained_on_other_rows_is_named(versions):
    assert compare_versions(*versions[:2], DATA, fingerprint="this", resamples=0).foreign == ("a",)


def test_versions_of_other_classes_are_not_compared(versions):
    with pytest.raises(ExportError, match="version 2 and version 3 cannot be compared.*cold, mild"):
        compare_versions(*versions[1:3], DATA)
    with pytest.raises(ExportError, match="of which warm is positive.*of which cold is positive"):
        compare_versions(versions[1], versions[3], DATA)
    with pytest.raises(OptionsError, match="--bootstrap is -1"):
        compare_versions(*versions[:2], DATA, resamples=-1)


def test_a_version_that_does_not_take_the_rows_is_named(tmp_path):
    publish(tmp_path, save_weather)
    publish(tmp_path, partial(save_weather, columns=("temperature", "humidity")))
    with pytest.raises(ExportError, match=r"Version 2 cannot take the rows .*'humidity'"):
        compare_versions(*list_versions(tmp_path), DATA)


def test_a_damaged_version_is_not_compared(tmp_path):
    for _ in range(2):
        publish(tmp_path, save_weather)
    (tmp_path / "1" / "fingerprint.pb").write_bytes(b"other")
    with pytest.raises(ExportError, match="is not the file that was published"):
        compare_versions(*list_versions(tmp_path), DATA)


def test_numbers_are_compared_by_how_far_they_are_apart(tmp_path):
    data, task = point_data(400), Regression("sum")
    for factor in (0.8, 1.0):
        publish(tmp_path, partial(save_scaled, factor=factor), task=task)
    found = compare_versions(*list_versions(tmp_path), data, resamples=200)
    sums = np.abs(data.test.inputs.sum(1))
    assert found.differences.mean == pytest.approx(0.2 * sums.mean(), rel=1e-4)
    assert found.differences.largest == pytest.approx(0.2 * sums.max(), rel=1e-4)
    assert found.differences.nearer_b > 80
    assert found.metrics["rmse"].high < 0
    assert found.most[0]["row"] == sums.argmax() and found.most[0]["inputs"] is None


def test_several_numbers_a_row_are_as_far_apart_as_the_farthest():
    a = {"prediction": np.array([[0.0, 0.0], [1.0, 1.0]], np.float32)}
    b = {"prediction": np.array([[0.0, 3.0], [1.0, 1.0]], np.float32)}
    found, most = differences_between(Regression("y"), a, b, np.zeros((2, 2)), shown=5)
    assert found.largest == 3 and found.mean == 0.75
    assert (found.nearer_a, found.nearer_b, found.as_near) == (1, 0, 1)
    assert [each["row"] for each in most] == [0] and most[0]["b"] == [0.0, 3.0]


def test_the_same_answers_differ_nowhere():
    p = {"probabilities": np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)}
    found, most = differences_between(WEATHER, p, p, np.array([0, 1]), shown=5)
    assert (found.rows, found.both_right, found.cells, most) == (0, 2, [], [])


def test_without_a_task_in_the_data_the_versions_own_is_taken(versions):
    data = dataclasses.replace(DATA, task=None)
    assert "accuracy" in compare_versions(*versions[:2], data, resamples=0).metrics
