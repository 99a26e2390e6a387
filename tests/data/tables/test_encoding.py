"""The encoder: the same numbers alone, in a batch, saved, served; finite for anything."""

from __future__ import annotations

import json
import zipfile

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.source import Regression
from kerastrain.data.tables import encoding
from kerastrain.data.tables.columns import Texts, expanded, plain_table, raw_columns, raw_rows
from kerastrain.data.tables.encoding import (
    SCALINGS,
    SQUASH,
    category_statistics,
    fit_encoder,
    number_statistics,
)
from kerastrain.data.tables.reading import read_table
from kerastrain.data.tables.schema import Column, Schema, infer_schema

NAN = float("nan")


def schema_of(**kinds) -> Schema:
    columns = tuple(Column(name, name, kind) for name, kind in kinds.items())
    return Schema(columns, "y", Regression("y"))


def numbers(*values) -> np.ndarray:
    return np.array(values, np.float32)


def texts(*values) -> Texts:
    different, codes = np.unique(np.array(values, object), return_inverse=True)
    return Texts(different, codes.astype(np.int32))


def encode(encoder, columns) -> np.ndarray:
    """Numbers, then categories, side by side."""
    encoded = encoder.encode(columns)
    return np.concatenate(
        [encoded[name] for name in ("numbers", "categories") if name in encoded], 1
    )


MIXED = schema_of(age=("number"), job=("category"), hours=("number"))
TRAIN = {
    "age": numbers(20, 30, 40, 50, NAN, 60),
    "job": texts("clerk", "cook", "clerk", "", "", "smith"),
    "hours": numbers(1, 2, 3, 4, 5, 6),
}


@pytest.fixture(scope="module")
def encoder():
    return fit_encoder(TRAIN, MIXED)


def row(age, job, hours) -> dict[str, np.ndarray]:
    return {"age": numbers(age), "job": texts(job), "hours": numbers(hours)}


# age, hours, age is missing, then job: 0 rare, 1 "", 2 clerk


def test_numbers_are_standardised_and_squashed(encoder):
    features = encode(encoder, row(60, "", 3.5))[0]
    z = (60 - 40) / np.std([20, 30, 40, 50, 60])
    assert features[0] == pytest.approx(z / np.sqrt(1 + (z / SQUASH) ** 2), rel=1e-6)
    assert features[1] == 0


def test_a_missing_number_is_the_mean_and_is_marked(encoder):
    assert encode(encoder, row(NAN, "clerk", 3.5))[0].tolist() == [0, 0, 1, 2]
    assert encode(encoder, row(40, "clerk", 3.5))[0].tolist() == [0, 0, 0, 2]


def test_a_number_never_missing_in_training_has_no_mark_and_becomes_the_mean(encoder):
    assert encode(encoder, row(40, "clerk", NAN))[0].tolist() == [0, 0, 0, 2]


def test_missing_text_is_a_value_and_rare_and_unseen_ones_share_an_index(encoder):
    assert encode(encoder, row(40, "", 3.5))[0, 3] == 1
    assert encode(encoder, row(40, "smith", 3.5))[0, 3] == 0
    assert encode(encoder, row(40, "pilot", 3.5))[0, 3] == 0


def test_an_unseen_value_has_no_index_when_nothing_was_rare_in_training():
    only = fit_encoder({"a": texts("x", "y", "x", "y")}, schema_of(a="category"))
    assert encode(only, {"a": texts("x", "y", "z", "")})[:, 0].tolist() == [0, 1, -1, -1]
    assert only.columns.sizes == (2,)


def test_codes_are_categories_of_numbers_and_a_missing_one_is_like_a_rare_one():
    schema = Schema((Column("a", "a", "category", "float32"),), "y", Regression("y"))
    fitted = fit_encoder({"a": numbers(7, 7, 3, 3, 3, -1, NAN)}, schema)
    assert encode(fitted, {"a": numbers(3, 7, -1, 5, NAN)})[:, 0].tolist() == [1, 2, 0, 0, 0]
    assert fitted.columns.sizes == (3,)


def test_booleans_stay_what_they_are_and_tell_when_they_are_missing():
    fitted = fit_encoder({"a": numbers(0, 1, 1, NAN)}, schema_of(a="boolean"))
    assert encode(fitted, {"a": numbers(0, 1, NAN)}).tolist() == [[0, 0], [1, 0], [0, 1]]


def test_dates_become_their_parts_and_days_are_scaled_like_a_number():
    days = [f"2021-03-{day:02d}" for day in range(1, 29)]
    fitted = fit_encoder({"a": texts(*days)}, schema_of(a="date"))
    parts = encode(fitted, {"a": texts(*days)})
    assert fitted.columns.numbers[0] == "a: days" and len(fitted.columns.numbers) == parts.shape[1]
    assert np.all(np.diff(parts[:, 0]) > 0) and abs(parts[:, 0].mean()) < 1e-6
    assert encode(fitted, {"a": texts("", "soon")}).tolist() == [[0] * 7 + [1]] * 2


def test_quantiles_make_any_distribution_normal():
    values = np.exp(np.random.default_rng(0).normal(0, 3, 20_000)).astype(np.float32)
    fitted = fit_encoder({"a": values}, schema_of(a="number"), numbers="quantiles")
    encoded = encode(fitted, {"a": values})[:, 0]
    assert abs(encoded.mean()) < 0.02 and abs(encoded.std() - 1) < 0.02
    assert np.all(np.diff(encoded[np.argsort(values)]) >= 0)
    outside = encode(fitted, {"a": numbers(-1e9, 1e9)})[:, 0]
    assert np.isfinite(outside).all() and outside[0] < -3 and outside[1] > 3


def test_vocabularies_are_ordered_by_count_then_value_and_limited(monkeypatch):
    values = texts("b", "b", "a", "a", "c", "c", "c", "once")
    assert category_statistics(values).vocabulary == ("c", "a", "b")
    assert category_statistics(values).has_rare
    monkeypatch.setattr(encoding, "MAX_CATEGORIES", 2)
    assert category_statistics(values).vocabulary == ("c", "a")


def test_a_column_missing_or_constant_in_training_stays_finite():
    schema = schema_of(none="number", same="number")
    rows = {"none": numbers(NAN, NAN), "same": numbers(7, 7)}
    features = encode(fit_encoder(rows, schema), {"none": numbers(5), "same": numbers(9)})
    assert np.isfinite(features).all()
    assert number_statistics(rows["same"]).scale == 1


@pytest.mark.parametrize("unit", [1e-30, 1e-9, 1.0, 1e20])
def test_the_unit_of_a_number_makes_no_difference(unit):
    values = numbers(1, 2, 3, 4, 5)
    scaled = encode(fit_encoder({"a": values * unit}, schema_of(a="number")), {"a": values * unit})
    plain = encode(fit_encoder({"a": values}, schema_of(a="number")), {"a": values})
    np.testing.assert_allclose(scaled, plain, atol=1e-5)


def test_a_column_may_be_named_like_any_layer():
    names = ["encoder", "encode", "join", "number_0", "category_1", "stack", "where"]
    schema = schema_of(**dict.fromkeys(names, "number"))
    fitted = fit_encoder(dict.fromkeys(names, numbers(1, 2)), schema)
    assert encode(fitted, dict.fromkeys(names, numbers(1, 2))).shape == (2, 7)


def test_values_that_keras_reserves_or_cannot_hold_are_encoded():
    values = ["[UNK]", "a\nb", "x\0", "", "[UNK]_", "ü"]
    fitted = fit_encoder({"a": texts(*values * 2)}, schema_of(a="category"))
    encoded = encode(fitted, {"a": texts(*values)})[:, 0]
    assert len(set(encoded.tolist())) == 6 and encoded.min() == 0


def test_training_precision_does_not_reach_the_encoding(encoder):
    rows = {**TRAIN, "age": numbers(20.1, 30.2, 40.3, 50.4, NAN, 60.6)}
    expected = encode(fit_encoder(rows, MIXED), rows)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        received = encode(fit_encoder(rows, MIXED), rows)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(received, expected)


def test_training_precision_does_not_reach_the_encoding_in_the_composed_model(encoder):
    rows = {**TRAIN, "age": numbers(20.1, 30.2, 40.3, 50.4, NAN, 60.6)}
    expected = encoder.encode(rows)["numbers"]
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = {
            name: keras.Input(t.shape[1:], dtype=t.dtype, name=name) for name, t in outputs(encoder)
        }
        model = keras.Model(inputs, keras.layers.Rescaling(1.0, dtype="float32")(inputs["numbers"]))
        full = keras.Model(encoder.model.inputs, model(encoder.model(encoder.model.inputs)))
        received = full(tensors(rows))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(received, expected, atol=1e-6)


def outputs(encoder):
    return sorted(encoder.model.output.items())


def test_a_table_encoded_in_pieces_is_encoded_the_same(encoder, monkeypatch):
    rows = {"age": np.tile(TRAIN["age"], 50), "hours": np.tile(TRAIN["hours"], 50)}
    rows["job"] = texts(*TRAIN["job"].expanded().tolist() * 50)
    whole = encode(encoder, rows)
    for batch_size in (1, 7, 299):
        monkeypatch.setattr(encoding, "BATCH_ROWS", batch_size)
        np.testing.assert_allclose(encode(encoder, rows), whole, atol=1e-6)


# The way to the client: with a model behind, saved, reloaded, served.


@pytest.fixture(scope="module")
def full(encoder):
    numbers = keras.Input((3,), name="numbers")
    categories = keras.Input((1,), dtype="int32", name="categories")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(3, 2)(categories))
    joined = keras.layers.Concatenate()([numbers, embedded])
    inputs = {"numbers": numbers, "categories": categories}
    model = keras.Model(inputs, keras.layers.Dense(3)(joined))
    return keras.Model(encoder.model.inputs, model(encoder.model(encoder.model.inputs)))


def tensors(rows) -> dict[str, tf.Tensor]:
    return {name: tf.constant(values) for name, values in expanded(rows).items()}


def test_encoder_and_model_in_one_give_what_they_give_apart(encoder, full):
    apart = full.layers[-1](encoder.encode(TRAIN))
    np.testing.assert_allclose(full(tensors(TRAIN)), apart, atol=1e-6)


def test_the_composed_model_is_the_same_after_saving_and_loading(full, tmp_path):
    full.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(tensors(TRAIN)), full(tensors(TRAIN)))


def test_the_saved_model_needs_nothing_of_this_package(full, tmp_path):
    full.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = archive.read("config.json").decode()
    assert "kerastrain" not in config
    assert json.loads(config)["registered_name"] == "Functional"


def test_a_saved_model_takes_rows_of_named_columns(full, tmp_path):
    module = tf.Module()
    module.state = [variable.value for variable in full.variables]
    module.tables = [
        layer.lookup_table
        for layer in full._flatten_layers()
        if isinstance(layer, keras.layers.StringLookup)
    ]
    columns = {
        tensor.name: tf.TensorSpec([None], tensor.dtype, name=tensor.name) for tensor in full.inputs
    }
    serve = tf.function(lambda columns: {"logits": full(columns, training=False)})
    signatures = {"serving_default": serve.get_concrete_function(columns)}
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=signatures)
    loaded = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    received = loaded(**tensors(TRAIN))["logits"]
    np.testing.assert_allclose(received, full(tensors(TRAIN)), atol=1e-6)


def test_raw_rows_are_what_clients_send():
    table = plain_table(pa.table({"age": [1, None], "job": ["x", None], "hours": [True, False]}))
    rows = raw_rows(table, MIXED)
    np.testing.assert_array_equal(rows["age"], numbers(1, NAN))
    assert rows["job"].tolist() == ["x", ""]
    assert rows["hours"].tolist() == [1, 0] and rows["hours"].dtype == np.float32


any_number = st.floats(width=32, allow_nan=True, allow_infinity=True)
any_text = st.text(st.characters(codec="utf-8"), max_size=5)


@settings(max_examples=60)
@given(st.lists(st.tuples(any_number, any_text, any_number), min_size=1, max_size=9))
def test_any_row_gives_finite_features_alone_as_in_a_batch(encoder, rows):
    ages, jobs, hours = zip(*rows, strict=True)
    batch = {"age": numbers(*ages), "job": texts(*jobs), "hours": numbers(*hours)}
    together = encoder.model(tensors(batch))
    assert np.isfinite(together["numbers"]).all()
    for place in range(len(rows)):
        sent = {name: values[place : place + 1] for name, values in expanded(batch).items()}
        alone = encoder.model({name: tf.constant(values) for name, values in sent.items()})
        np.testing.assert_allclose(alone["numbers"][0], together["numbers"][place], atol=1e-6)
        np.testing.assert_array_equal(alone["categories"][0], together["categories"][place])


finite_number = st.one_of(st.floats(width=32, allow_infinity=False), st.just(NAN))


@settings(max_examples=20)
@given(st.lists(st.tuples(finite_number, any_text), min_size=1, max_size=9))
def test_any_training_rows_give_an_encoder_with_finite_features(rows):
    values, words = zip(*rows, strict=True)
    train = {"a": numbers(*values), "b": texts(*words)}
    features = encode(fit_encoder(train, schema_of(a="number", b="category")), train)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(
    ("file", "target"), [("adult.parquet", "income"), ("bike-sharing-hour.csv.gz", "cnt")]
)
def test_ten_thousand_real_rows_are_encoded_by_the_saved_encoder_as_in_training(
    real_data, tmp_path, scaling, file, target
):
    """With values missing, and unseen, that the training rows had."""
    table = read_table(real_data / "tabular" / file)
    schema = infer_schema(table, target)
    columns = raw_columns(table, schema)
    fitted = fit_encoder(
        {name: values.take(np.arange(5000)) if isinstance(values, Texts) else values[:5000]
         for name, values in columns.items()},
        schema,
        numbers=scaling,
    )  # fmt: skip
    encoded = fitted.encode(columns)
    rows = {name: values[-10_000:].copy() for name, values in expanded(columns).items()}
    for values in rows.values():
        is_text = values.dtype == object
        values[::97] = "" if is_text else np.nan
        values[1::97] = "never seen" if is_text else np.float32(-1e9)
    expected = fitted.encode(
        {name: texts(*v) if v.dtype == object else v for name, v in rows.items()}
    )
    fitted.model.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    received = loaded({name: tf.constant(values) for name, values in rows.items()})
    untouched = np.setdiff1d(np.arange(10_000), [*range(0, 10_000, 97), *range(1, 10_000, 97)])
    for name, array in encoded.items():
        np.testing.assert_allclose(received[name], expected[name], atol=1e-6)
        np.testing.assert_allclose(
            received[name].numpy()[untouched], array[-10_000:][untouched], atol=1e-6
        )
