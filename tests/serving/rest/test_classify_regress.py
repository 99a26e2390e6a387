"""Classify and regress: tf.train.Example in, results out."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.serving.failures import ServingError
from kerastrain.serving.rest.classify_regress import (
    read_examples,
    write_classification,
    write_regression,
)

CLASSIFY, REGRESS = "/v1/models/m:classify", "/v1/models/m:regress"


def features(value, context=None):
    """The features of the example that {"f": value} becomes."""
    document = {"examples": [{"f": value}]}
    if context is not None:
        document["context"] = context
    (serialized,) = read_examples(document)
    return tf.train.Example.FromString(serialized).features.feature


def refused(document):
    with pytest.raises(ServingError) as caught:
        read_examples(document)
    assert caught.value.code == "INVALID_ARGUMENT"
    return caught.value.message


def test_classify_answers_labels_with_scores(server):
    body = {"signature_name": "classify", "examples": [{"age": 1.5}, {"age": [2.0]}]}
    assert server.post(CLASSIFY, body).json == {
        "results": [[["no", 1.5], ["yes", -1.5]], [["no", 2.0], ["yes", -2.0]]]
    }


def test_regress_answers_numbers(server):
    body = {"signature_name": "regress", "examples": [{"age": 1.5}, {"age": 2.0}]}
    assert server.post(REGRESS, body).json == {"results": [4.5, 6.0]}


def test_a_version_is_classified_by_number_or_label(server):
    body = {"signature_name": "regress", "examples": [{"age": 1.0}]}
    for where in ("versions/1", "labels/stable"):
        assert server.post(f"/v1/models/m/{where}:regress", body).json == {"results": [2.0]}


def test_the_context_is_in_every_example_that_does_not_say_otherwise(server):
    body = {"signature_name": "regress", "context": {"age": 1.0}, "examples": [{}, {"age": 2.0}]}
    assert server.post(REGRESS, body).json == {"results": [3.0, 6.0]}


def test_a_signature_of_another_kind_is_refused(server):
    reply = server.post(CLASSIFY, {"examples": [{"age": 1.0}]})
    assert (reply.status, reply.error) == (
        400,
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict",
    )


def test_a_signature_that_is_not_there_is_named(server):
    reply = server.post(REGRESS, {"signature_name": "x", "examples": [{}]})
    assert (reply.status, reply.error) == (400, "No signature was found with the name: x")


def test_an_example_that_the_model_does_not_take_is_refused(server):
    for row in ({"age": 1}, {"age": "x"}, {}, {"age": [1.0, 2.0]}):
        reply = server.post(REGRESS, {"signature_name": "regress", "examples": [row]})
        assert reply.status == 400 and reply.error


def test_which_feature_a_value_becomes():
    assert features(1.5)["f"].float_list.value == [1.5]
    assert features([1, -(2**63)])["f"].int64_list.value == [1, -(2**63)]
    assert features([True, False])["f"].int64_list.value == [1, 0]
    assert features(["ü", {"b64": "/w=="}])["f"].bytes_list.value == ["ü".encode(), b"\xff"]
    assert features([])["f"].WhichOneof("kind") is None
    assert np.isnan(features(float("nan"))["f"].float_list.value[0])


@pytest.mark.parametrize("value", [[1, 2.5], [1.5, "a"], ["a", True]])
def test_a_feature_has_values_of_one_kind(value):
    assert "Unexpected element type in feature: f" in refused({"examples": [{"f": value}]})


@pytest.mark.parametrize("value", [None, {"x": 1}, [[1]], {"b64": 5}])
def test_what_no_feature_holds_is_named(value):
    assert "f has element with unexpected JSON type" in refused({"examples": [{"f": value}]})


def test_numbers_that_no_feature_holds_are_named():
    assert "Only int64 is supported" in refused({"examples": [{"f": 2**63}]})
    assert "without loss of precision" in refused({"examples": [{"f": 1e39}]})


def test_examples_must_be_a_list_of_objects():
    assert "key 'examples' is expected and was not found" in refused({})
    assert "'examples' value to be an list/array" in refused({"examples": {}})
    assert "'examples' value is an empty array" in refused({"examples": []})
    assert refused({"examples": [1]}) == "Example must be JSON object but got JSON Number"
    assert refused({"examples": [{}], "context": []}) == (
        "Example must be JSON object but got JSON Array"
    )


def test_results_without_scores_or_labels_have_zeros_or_nothing_in_their_place():
    classes, scores = np.array([[b"a", b"b"]], object), np.array([[0.1, 0.9]], np.float32)
    assert write_classification({"classes": classes}, rows=1) == (
        b'{"results":[[["a",0.0],["b",0.0]]]}'
    )
    assert write_classification({"scores": scores}, rows=1) == (
        b'{"results":[[["",0.1],["",0.9]]]}'
    )


def test_nan_is_a_result_too():
    nan = np.array([np.nan, 0.1], np.float32)
    assert write_regression({"outputs": nan}, rows=2) == b'{"results":[NaN,0.1]}'
    assert write_classification({"scores": nan[:1, None]}, rows=1) == b'{"results":[[["",NaN]]]}'


def test_outputs_that_are_no_results_are_refused():
    for outputs in (
        {"scores": np.zeros(1, np.float32)},
        {"scores": np.zeros((2, 1), np.float32)},
        {"scores": np.zeros((1, 2), np.float32), "classes": np.full((1, 3), b"", object)},
        {"y": np.zeros((1, 2), np.float32)},
    ):
        with pytest.raises(ServingError):
            write_classification(outputs, rows=1)
    for outputs in ({"outputs": np.zeros((1, 2), np.float32)}, {"y": np.zeros(1, np.float32)}):
        with pytest.raises(ServingError):
            write_regression(outputs, rows=1)


@given(st.lists(st.floats(width=32), max_size=3) | st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_numbers_come_back_from_the_example(values):
    feature = features(values)["f"]
    found = list(feature.float_list.value) + list(feature.int64_list.value)
    np.testing.assert_array_equal(found, values)
