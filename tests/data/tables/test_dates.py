"""Dates as text to their parts: as Python's calendar has it; what is no date is missing."""

from __future__ import annotations

import datetime
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.tables.dates import PARTS, date_parts
from kerastrain.data.tables.statistics import days

EPOCH = datetime.datetime(1970, 1, 1)


@pytest.fixture(scope="module")
def model():
    text = keras.Input((), dtype="string")
    return keras.Model(text, date_parts(text, name="date"))


@pytest.fixture(scope="module")
def parts_of(model):
    compiled = tf.function(model, input_signature=[tf.TensorSpec([None], tf.string)])

    def parts(*texts) -> dict[str, np.ndarray]:
        encoded = compiled(tf.constant(texts)).numpy()
        assert encoded.dtype == np.float32
        return dict(zip(PARTS, encoded.T, strict=True))

    return parts


@settings(max_examples=60)
@given(st.lists(st.dates(), min_size=1, max_size=50))
def test_any_day_is_counted_as_pythons_calendar_counts_it(parts_of, dates):
    parts = parts_of(*(date.isoformat() for date in dates))
    since = [(date - EPOCH.date()).days for date in dates]
    np.testing.assert_array_equal(parts["days"], since)
    weekday = np.array([date.weekday() for date in dates])
    np.testing.assert_allclose(parts["weekday (sin)"], np.sin(2 * np.pi * weekday / 7), atol=1e-5)
    np.testing.assert_allclose(parts["weekday (cos)"], np.cos(2 * np.pi * weekday / 7), atol=1e-5)
    assert not parts["missing"].any()
    assert not parts["time of day (sin)"].any()


@settings(max_examples=60)
@given(st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)))
def test_any_time_is_a_share_of_its_day(parts_of, moment):
    moment = moment.replace(microsecond=0)
    seconds = (moment - datetime.datetime.combine(moment.date(), datetime.time())).seconds
    for text in (moment.isoformat(), str(moment), moment.isoformat() + ".25"):
        parts = parts_of(text)
        angle = 2 * math.pi * seconds / 86_400
        assert parts["missing"][0] == 0
        assert parts["time of day (sin)"][0] == pytest.approx(math.sin(angle), abs=1e-5)
        assert parts["time of day (cos)"][0] == pytest.approx(math.cos(angle), abs=1e-5)
        since = (moment - EPOCH).total_seconds() / 86_400
        assert parts["days"][0] == pytest.approx(since, abs=0.01)


def test_seconds_may_be_left_out(parts_of):
    with_seconds, without = parts_of("2011-01-31T13:05:00"), parts_of("2011-01-31T13:05")
    assert with_seconds == without


def test_december_is_near_january_and_sunday_near_monday(parts_of):
    parts = parts_of("2010-12-31", "2011-01-01", "2011-07-01")
    year = np.stack([parts["day of year (sin)"], parts["day of year (cos)"]])
    assert np.linalg.norm(year[:, 0] - year[:, 1]) < 0.05
    assert np.linalg.norm(year[:, 0] - year[:, 2]) > 1.9


NO_DATES = [
    "",
    "soon",
    "2011",
    "2011-01",
    "2011-1-31",
    "31.01.2011",
    "01/31/2011",
    "2011/01/31",
    "20110131",
    "2011101231",  # a number of ten digits
    "2011-00-10",
    "2011-13-01",
    "2011-01-00",
    "2011-01-32",
    "2011-02-29",
    "1900-02-29",
    "2011-04-31",
    "2011-01-31x",
    "2011-01-31 ",
    " 2011-01-31",
    "2011-01-31T",
    "2011-01-31T13",
    "2011-01-31T13:0",
    "2011-01-31T24:00:00",
    "2011-01-31T13:60:00",
    "2011-01-31T13:00:60",
    "2011-01-31T13-00-00",
    "2011-01-31T13:00:00Z",
    "2011-01-31T13:00:00+05:00",
    "2011-01-31T1:00 pm",
    "２０１１-01-31",
    "--------------------",
]


@pytest.mark.parametrize("text", NO_DATES)
def test_what_is_no_date_is_missing_and_never_another_day(parts_of, text):
    parts = parts_of(text)
    assert parts.pop("missing")[0] == 1
    assert not np.concatenate(list(parts.values())).any()


@pytest.mark.parametrize("text", ["2012-02-29", "2000-02-29", "0001-01-01", "9999-12-31"])
def test_the_edges_of_the_calendar_are_dates(parts_of, text):
    assert parts_of(text)["missing"][0] == 0


near_dates = st.one_of(
    st.text("0123456789-T :.", max_size=22),
    st.from_regex(r"\d{4}-[01]\d-[0-3]\d([T ][0-2]\d:[0-6]\d(:[0-6]\d(\.\d)?)?)?", fullmatch=True),
)


@settings(max_examples=200)
@given(st.lists(near_dates, min_size=1, max_size=20))
def test_the_encoder_and_the_statistics_agree_on_what_a_date_is(parts_of, texts):
    texts = [text for text in texts if text.isascii()] or ["x"]
    recorded = days(np.array(texts, object))
    parts = parts_of(*texts)
    np.testing.assert_array_equal(parts["missing"] == 1, np.isnan(recorded))
    present = parts["missing"] == 0
    np.testing.assert_allclose(parts["days"][present], recorded[present], rtol=1e-6, atol=0.01)


def test_saved_and_loaded_it_reads_the_same(model, tmp_path):
    model.save(tmp_path / "dates.keras")
    loaded = keras.models.load_model(tmp_path / "dates.keras")
    texts = tf.constant(["2011-01-31", "2011-01-31 13:00:00", "2011-01-31T13:00:00.5", *NO_DATES])
    np.testing.assert_array_equal(loaded(texts), model(texts))
