import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.errors import ObjectiveError
from kerastrain.objective import DIRECTIONS, Objective, known_direction

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NOT_FINITE = st.sampled_from([None, math.nan, math.inf, -math.inf])
DIRECTION = st.sampled_from(["min", "max"])


@pytest.mark.parametrize(("name", "direction"), DIRECTIONS.items())
def test_a_well_known_metric_has_its_direction_with_and_without_val(name, direction):
    assert Objective.parse(name) == Objective(name, direction)
    assert Objective.parse(f"val_{name}") == Objective(f"val_{name}", direction)


def test_a_direction_that_is_said_wins():
    assert Objective.parse("val_my_score:max") == Objective("val_my_score", "max")
    assert Objective.parse("val_loss:max").direction == "max"


@given(st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True), DIRECTION)
def test_what_an_objective_shows_reads_back_as_the_same(name, direction):
    objective = Objective(name, direction)
    assert Objective.parse(str(objective)) == objective


def test_an_unknown_metric_is_not_guessed_but_asked_about():
    with pytest.raises(ObjectiveError, match="'val_score:min' or 'val_score:max'"):
        Objective.parse("val_score")


def test_a_misspelt_metric_is_answered_with_the_nearest():
    with pytest.raises(ObjectiveError, match="Did you mean 'val_loss'"):
        Objective.parse("val_los")
    with pytest.raises(ObjectiveError, match="Did you mean 'accuracy'"):
        Objective.parse("acuracy")


@pytest.mark.parametrize("text", ["loss:", "loss:up", "loss:MIN", "a:b:min", ":min", ""])
def test_what_is_no_objective_is_refused(text):
    with pytest.raises(ObjectiveError, match=r"expected|Say it"):
        Objective.parse(text)


@given(FINITE, NOT_FINITE, DIRECTION)
def test_what_is_not_finite_is_never_better(best, value, direction):
    objective = Objective("loss", direction)
    assert not objective.is_better(value, than=best)
    assert not objective.is_better(value, than=None)


@given(FINITE, DIRECTION)
def test_every_finite_value_is_better_than_none_and_nan(value, direction):
    objective = Objective("loss", direction)
    assert objective.is_better(value, than=None)
    assert objective.is_better(value, than=math.nan)


@given(FINITE, FINITE)
def test_lower_is_better_for_min_and_higher_for_max(one, other):
    assert Objective("loss", "min").is_better(one, than=other) == (one < other)
    assert Objective("auc", "max").is_better(one, than=other) == (one > other)


def test_an_improvement_must_exceed_min_delta():
    accuracy = Objective("accuracy", "max")
    assert not accuracy.is_better(0.75, than=0.5, min_delta=0.25)
    assert accuracy.is_better(0.875, than=0.5, min_delta=0.25)
    loss = Objective("loss", "min")
    assert not loss.is_better(0.5, than=0.75, min_delta=0.25)
    assert loss.is_better(0.375, than=0.75, min_delta=0.25)


def test_an_objective_that_is_not_reported_is_named_with_those_that_are():
    with pytest.raises(ObjectiveError) as raised:
        Objective("val_accurcy", "max").check_reported(["loss", "accuracy", "val_accuracy"])
    assert str(raised.value) == (
        "The objective 'val_accurcy' is not among the metrics loss, accuracy, val_accuracy. "
        "Did you mean 'val_accuracy'?"
    )
    Objective("loss", "min").check_reported(iter(["loss"]))


def test_the_direction_of_an_unknown_metric_is_none():
    assert known_direction("val_my_score") is None
    assert known_direction("val_val_loss") is None
