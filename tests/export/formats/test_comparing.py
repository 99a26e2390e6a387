from __future__ import annotations

import numpy as np
import pytest

from kerastrain.export.formats.catalog import FLOAT16, INT8
from kerastrain.export.formats.comparing import compare

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(200, 3)).astype(np.float32) * 3
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
CLASSES = {"logits": LOGITS, "probabilities": PROBABILITIES}
NUMBERS = {"prediction": RANDOM.normal(size=200).astype(np.float32) * 1000}


def compared(received, expected, limits=None):
    return compare(received, expected, limits=limits, tolerance=1e-5)


@pytest.mark.parametrize("expected", [CLASSES, NUMBERS])
@pytest.mark.parametrize("limits", [None, FLOAT16])
def test_equal_answers_have_no_error_and_no_problem(expected, limits):
    found = compared(expected, expected, limits)
    assert (found.error, found.problems) == (0.0, ())
    assert found.agreement == (1.0 if "logits" in expected else None)


def test_the_error_reported_of_classes_is_that_of_the_probabilities():
    off = {"logits": LOGITS + 1, "probabilities": PROBABILITIES + 0.001}
    found = compared(off, CLASSES, FLOAT16)
    assert (found.error_of, found.error) == ("probabilities", pytest.approx(0.001, rel=1e-3))
    assert not found.problems  # logits by themselves are not limited


def test_a_float32_format_must_give_the_same_answers():
    off = {**CLASSES, "probabilities": PROBABILITIES + np.float32(1e-4)}
    (problem,) = compared(off, CLASSES).problems
    assert "'probabilities' differs in 200 of 200 rows" in problem


def test_a_format_that_rounds_too_much_is_refused_with_both_numbers():
    off = {**CLASSES, "probabilities": PROBABILITIES + 0.05}
    (problem,) = compared(off, CLASSES, FLOAT16).problems
    assert problem == "'probabilities' differs by up to 0.05; allowed is 0.01."


def test_other_labels_are_refused_however_small_the_error():
    near = np.full((200, 2), 0.5, np.float32) + np.float32([[0.001, -0.001]])
    found = compared({"probabilities": near[:, ::-1]}, {"probabilities": near}, INT8)
    assert found.agreement == 0
    assert "0.0% of the labels" in found.problems[0]


def test_a_label_that_is_a_matter_of_rounding_counts_as_agreed():
    tied = np.array([[0.5, 0.5], [0.9, 0.1]], np.float32)
    other = np.array([[0.4999999, 0.5000001], [0.9, 0.1]], np.float32)
    assert compared({"probabilities": other}, {"probabilities": tied}).agreement == 1


def test_numbers_may_be_off_by_a_share_of_what_they_span():
    span = float(np.ptp(NUMBERS["prediction"]))
    for share, is_right in ((0.009, True), (0.011, False)):
        off = {"prediction": NUMBERS["prediction"] + share * span}
        assert (not compared(off, NUMBERS, FLOAT16).problems) == is_right


@pytest.mark.parametrize("limits", [None, FLOAT16])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused(limits, bad):
    broken = NUMBERS["prediction"].copy()
    broken[7] = bad
    assert compared({"prediction": broken}, NUMBERS, limits).problems


def test_missing_answers_and_other_shapes_are_told():
    assert "expected logits, probabilities" in compared({"logits": LOGITS}, CLASSES).problems[0]
    flat = {"prediction": NUMBERS["prediction"][:, None]}
    assert "has shape (200, 1); expected (200,)" in compared(flat, NUMBERS).problems[0]
