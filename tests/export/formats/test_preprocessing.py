from __future__ import annotations

import json

import keras
import numpy as np
import pyarrow as pa
import pytest

from kerastrain.data.tables.columns import plain_table, raw_columns, raw_rows
from kerastrain.data.tables.encoding import fit_encoder
from kerastrain.data.tables.reading import open_table
from kerastrain.data.tables.schema import infer_schema
from kerastrain.errors import ExportError
from kerastrain.export.formats.encoding_reader import encode
from kerastrain.export.formats.preprocessing import describe_encoder

N = 400
# The second, third and last are none.
ODD_DATES = (
    "2012-02-29",
    "2011-02-29",
    "2012-02-29T24:00",
    "2012-02-29 23:59",
    "2012-12-31T23:59:59.5",
    "2012-12-31T23:59:59Z",
)


def mixed_table() -> pa.Table:
    """Every kind of column, missing values in most of them."""
    random = np.random.default_rng(0)

    def gaps(values, share=0.1):
        return [None if random.random() < share else v for v in values]

    seconds = random.integers(0, 3000 * 86_400, N)
    times = np.where(seconds % 2, seconds, seconds - seconds % 86_400) + 1_300_000_000
    return plain_table(
        pa.table(
            {
                "amount": gaps(random.lognormal(8, 2, N).tolist()),
                "steps": random.integers(0, 5, N),
                "flag": gaps(random.integers(0, 2, N).tolist()),
                "sold on": pa.array(gaps(times.tolist()), pa.timestamp("s")),
                "city": gaps(random.choice(["Köln", "Bonn", "a b", "x/y"], N).tolist()),
                "rare": [f"v{min(int(v), 50)}" for v in random.exponential(8, N)],
                "shop_id": gaps(random.integers(1, 9, N).tolist()),
                "constant": gaps([3.5] * N, 0.3),
                "target": random.choice(["no", "yes"], N),
            }
        )
    )


def odd_rows(rows):
    """Real rows, and values that no training row had."""
    odd = {}
    for name, values in rows.items():
        values = values[:60].copy()
        if values.dtype.kind == "f":
            values[:8] = [np.nan, np.inf, -np.inf, 0, -1e30, 1e30, 3.5, 1e-20]
        else:
            values[:8] = ["", "nowhere", *ODD_DATES]
        odd[name] = values
    return odd


def by_encoder(model, rows):
    tensors = {n: keras.ops.convert_to_tensor(v.tolist(), "string") if v.dtype == object
               else keras.ops.convert_to_tensor(v) for n, v in rows.items()}  # fmt: skip
    return {name: array.numpy() for name, array in model(tensors).items()}


@pytest.fixture(scope="module", params=["standard", "quantiles"])
def mixed(request):
    table = mixed_table()
    if request.param == "quantiles":  # categories are the same
        table = table.drop_columns(["steps", "city", "rare"])
    schema = infer_schema(table, "target")
    assert {column.kind for column in schema.columns} == {"number", "boolean", "category", "date"}
    encoder = fit_encoder(raw_columns(table, schema), schema, numbers=request.param)
    return encoder, odd_rows(raw_rows(table, schema))


def assert_same(content, rows, expected):
    received = encode(json.loads(json.dumps(content)), rows)
    assert received.keys() == expected.keys()
    for name, values in expected.items():
        assert received[name].dtype == values.dtype
        np.testing.assert_allclose(received[name], values, rtol=1e-5, atol=1e-5)


def test_whoever_reads_the_description_encodes_as_the_encoder_does(mixed):
    encoder, rows = mixed
    content = describe_encoder(encoder.model, encoder.columns)
    assert_same(content, rows, by_encoder(encoder.model, rows))
    assert [one["name"] for one in content["numbers"]] == list(encoder.columns.numbers)
    assert [one["name"] for one in content["categories"]] == list(encoder.columns.categories)
    assert {one["kind"] for one in content["numbers"]} <= content["rules"].keys()


def test_a_reloaded_encoder_is_described_alike(tmp_path):
    table = mixed_table().select(["amount", "flag", "city", "target"])
    schema = infer_schema(table, "target")
    encoder = fit_encoder(raw_columns(table, schema), schema, numbers="quantiles")
    encoder.model.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    described = describe_encoder(loaded, encoder.columns)
    assert described == describe_encoder(encoder.model, encoder.columns)


@pytest.mark.parametrize("column", ["amount", "city", "shop_id"])
def test_a_table_of_one_column_is_described(column):
    table = mixed_table().select([column, "target"])
    schema = infer_schema(table, "target")
    encoder = fit_encoder(raw_columns(table, schema), schema)
    rows = odd_rows(raw_rows(table, schema))
    content = describe_encoder(encoder.model, encoder.columns)
    assert_same(content, rows, by_encoder(encoder.model, rows))


def test_an_encoder_of_the_users_own_is_not_guessed_at():
    value = keras.Input((), name="x")
    own = keras.Model([value], {"numbers": keras.layers.Rescaling(2.0)(value)[:, None]})
    with pytest.raises(ExportError, match="not one that kerastrain has made"):
        describe_encoder(own, None)


def test_real_rows_of_adult_are_encoded_by_the_description_alone(real_data):
    table = open_table(str(real_data / "tabular" / "adult.parquet")).read()
    schema = infer_schema(table, "income")
    train, others = table.slice(0, 5000), table.slice(20_000, 2000)
    encoder = fit_encoder(raw_columns(train, schema), schema)
    rows = raw_rows(others, schema)
    content = describe_encoder(encoder.model, encoder.columns)
    assert_same(content, rows, by_encoder(encoder.model, rows))
