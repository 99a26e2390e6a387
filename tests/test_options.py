import contextlib
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.errors import ObjectiveError, OptionsError
from kerastrain.options import (
    JIT,
    PRECISIONS,
    STRATEGIES,
    TABLE_LOCATIONS,
    TASKS,
    Interval,
    TableOptions,
    TrainOptions,
)

COUNT = st.integers(1, 10**9)
SETTING = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20))
LEVELS = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4, unique=True)
TABLE = st.one_of(
    st.builds(
        TableOptions,
        schema=st.none() | st.text(),
        ignore_columns=st.lists(st.text(), max_size=3).map(tuple),
        task=st.none() | st.sampled_from(TASKS),
        weights=st.none() | st.text(),
        balance=st.booleans(),
        split_time=st.none() | st.text(),
        separator=st.none() | st.sampled_from([",", ";", " "]),
        header=st.none() | st.booleans(),
    ),
    st.builds(TableOptions, quantiles=LEVELS.map(sorted).map(tuple), test_data=st.text()),
)
OPTIONS = st.builds(
    TrainOptions,
    table=TABLE,
    recipe=st.text(min_size=1),
    data=st.none() | st.text(),
    target=st.none() | st.text(),
    max_epochs=st.none() | COUNT,
    batch_size=st.none() | COUNT,
    learning_rate=st.none() | st.floats(min_value=1e-12, max_value=1e6),
    seed=st.integers(0, 2**31 - 1),
    patience=st.none() | st.integers(0, 1000),
    objective=st.sampled_from([None, "val_loss", "val_f2:max"]),
    evaluate_every=st.sampled_from(["1epochs", "20steps"]),
    strategy=st.sampled_from(STRATEGIES),
    jit=st.sampled_from(JIT),
    precision=st.sampled_from(PRECISIONS),
    settings=st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), SETTING, max_size=4),
)


# Intervals


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("500steps", Interval(500, "steps")),
        ("1step", Interval(1, "steps")),
        ("step", Interval(1, "steps")),
        ("epoch", Interval(1, "epochs")),
        (" 2 epochs ", Interval(2, "epochs")),
        ("2.0epochs", Interval(2, "epochs")),
        ("30s", Interval(30, "seconds")),
        ("0.5seconds", Interval(0.5, "seconds")),
        ("10min", Interval(600, "seconds")),
        ("1minute", Interval(60, "seconds")),
        ("2h", Interval(7200, "seconds")),
        ("1.5hours", Interval(5400, "seconds")),
    ],
)
def test_an_interval_is_a_count_and_a_unit(text, interval):
    assert Interval.parse(text) == interval


@given(COUNT, st.sampled_from(["steps", "epochs", "seconds"]))
def test_what_an_interval_shows_reads_back_as_the_same(count, unit):
    interval = Interval(float(count), unit)
    assert Interval.parse(str(interval)) == interval


@given(st.floats(min_value=1e-9, max_value=1e15))
def test_any_number_of_seconds_reads_back_as_the_same(seconds):
    interval = Interval(seconds, "seconds")
    assert Interval.parse(str(interval)) == interval


@pytest.mark.parametrize(
    "text", ["", "5", "0steps", "-1steps", "1.5epochs", "0s", "1day", "steps5", "1e3steps", "nans"]
)
def test_what_is_no_interval_is_refused_by_the_flags_name(text):
    with pytest.raises(OptionsError, match="--checkpoint_every is .*; expected .*500steps"):
        Interval.parse(text, flag="checkpoint_every")


@given(st.text() | st.from_regex(r"\d{1,400}(steps|s)", fullmatch=True))
def test_any_text_is_an_interval_or_a_clear_error(text):
    with contextlib.suppress(OptionsError):
        assert 0 < Interval.parse(text).count < math.inf


# Options


@given(OPTIONS)
def test_options_survive_json(options):
    assert TrainOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_epochs", 0),
        ("max_epochs", 2.5),
        ("max_steps", -1),
        ("batch_size", 0),
        ("batch_size", "64"),
        ("batch_size", True),
        ("patience", -1),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", "fast"),
        ("seed", -1),
        ("seed", 2**31),
        ("strategy", "tpu"),
        ("jit", "yes"),
        ("precision", "float16"),
        ("checkpoint_every", "often"),
        ("keep_every", "often"),
        ("keep_last", 0),
        ("keep_best", -1),
        ("max_seconds", 0),
        ("more_epochs", 0),
        ("on_nonfinite", "ignore"),
        ("evaluate_every", "often"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_is_expected(field, value):
    with pytest.raises(OptionsError, match=f"^--{field} is .*expected"):
        TrainOptions(**{field: value})


def test_an_objective_of_unknown_direction_is_refused_at_once():
    with pytest.raises(ObjectiveError, match="Say it"):
        TrainOptions(objective="val_score")


def test_recorded_options_of_another_version_are_refused():
    with pytest.raises(OptionsError, match=r"hold 'batchsize'.*Did you mean 'batch_size'"):
        TrainOptions.from_json({"batchsize": 3})


def test_a_difference_says_what_was_recorded_and_what_is_now():
    recorded = TrainOptions(batch_size=128, learning_rate=0.1)
    assert replace(recorded, batch_size=64, learning_rate=None).differences(recorded) == [
        "batch_size: 128 recorded, 64 now",
        "learning_rate: 0.1 recorded, (the recipe's default) now",
    ]


def test_evaluating_in_batches_of_the_training_is_the_same_said_or_not():
    recorded = TrainOptions(batch_size=128)
    assert replace(recorded, evaluate_batch=128).differences(recorded) == []
    assert replace(recorded, evaluate_batch=64).differences(recorded) == [
        "evaluate_batch: (the recipe's default) recorded, 64 now"
    ]


def test_when_to_stop_is_no_difference_of_options_since_the_record_decides():
    recorded = TrainOptions(patience=5)
    assert replace(recorded, patience=4).differences(recorded) == []
    assert replace(recorded, patience=None, stop="gl(2)").differences(recorded) == []


def test_patience_is_one_of_the_stopping_rules():
    assert TrainOptions(patience=3).stop_rule == "patience(3)"
    assert TrainOptions(stop="gl(2)").stop_rule == "gl(2)"
    assert TrainOptions().stop_rule == "never"


def test_patience_and_another_rule_are_not_given_at_once():
    with pytest.raises(OptionsError, match="decide the same thing"):
        TrainOptions(patience=3, stop="gl(2)")


def test_the_same_optimizer_written_otherwise_is_no_difference():
    recorded = TrainOptions(optimizer="sgd(momentum=0.9)")
    assert replace(recorded, optimizer="SGD( momentum = .9 )").differences(recorded) == []
    assert len(replace(recorded, optimizer="sgd(momentum=0.8)").differences(recorded)) == 1


# Of tables


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task", "clustering"),
        ("quantiles", (0.9, 0.1)),
        ("quantiles", (0.5, 0.5)),
        ("quantiles", (0.0, 0.5)),
        ("quantiles", (0.5, 1.0)),
        ("quantiles", (-0.1,)),
        ("quantiles", (math.nan,)),
        ("quantiles", ("0.5",)),
        ("quantiles", (True,)),
    ],
)
def test_a_table_option_that_cannot_be_used_is_named_with_what_is_expected(field, value):
    with pytest.raises(OptionsError, match=f"^--{field} is .*expected"):
        TableOptions(**{field: value})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"quantiles": (0.5,), "task": "classification"}, "--quantiles=0.5 is for numbers"),
        ({"split_time": "a", "split_group": "b"}, "--split_time and --split_group both say"),
        ({"split_column": "a", "test_data": "t.csv"}, "--split_column and --test_data both say"),
        ({"validation_data": "v.csv"}, "without --test_data"),
    ],
)
def test_table_options_that_contradict_each_other_are_refused(given, says):
    with pytest.raises(OptionsError, match=says):
        TableOptions(**given)


def test_quantiles_make_a_regression_and_may_be_called_one():
    assert TableOptions(quantiles=(0.1, 0.9), task="regression").quantiles == (0.1, 0.9)


def test_lists_from_json_are_the_same_options():
    written = json.loads(json.dumps(TrainOptions(table=TableOptions(quantiles=(0.5,))).to_json()))
    assert written["table"]["quantiles"] == [0.5]
    assert TrainOptions.from_json(written).table == TableOptions(quantiles=(0.5,))


def test_records_from_before_there_were_table_options_are_read():
    values = TrainOptions().to_json()
    del values["table"]
    assert TrainOptions.from_json(values) == TrainOptions()


def test_table_options_of_another_version_are_refused():
    values = {**TrainOptions().to_json(), "table": {"sheet": 3}}
    with pytest.raises(OptionsError, match="hold 'sheet' for tables"):
        TrainOptions.from_json(values)


def test_what_changes_the_table_is_a_difference_and_where_it_lies_is_none():
    recorded = TrainOptions(table=TableOptions(weights="w", test_data="a.csv"))
    now = replace(recorded, table=TableOptions(balance=True, test_data="moved/a.csv"))
    assert now.differences(recorded) == [
        "weights: 'w' recorded, None now",
        "balance: False recorded, True now",
    ]


def test_locations_of_a_table_that_are_left_out_are_taken_from_the_record():
    at = {"schema": "s.json", "validation_data": "v.csv", "test_data": "t.csv"}
    recorded = TrainOptions(data="d.csv", table=TableOptions(**at))
    assert TrainOptions().located_like(recorded).table == recorded.table
    moved = TrainOptions(table=TableOptions(test_data="moved.csv")).located_like(recorded)
    assert (moved.table.test_data, moved.table.schema) == ("moved.csv", "s.json")
    assert set(at) <= set(TABLE_LOCATIONS)
