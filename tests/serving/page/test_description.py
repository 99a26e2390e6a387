"""What the page is told of the models, and how its files are sent."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import tensorflow as tf

import kerastrain.serving.page
from kerastrain.data.tables.columns import raw_columns
from kerastrain.data.tables.schema import infer_schema
from kerastrain.data.tables.statistics import table_statistics
from kerastrain.serving.page.description import describe, describe_models
from kerastrain.serving.page.form import DATE_HINT, table_fields
from kerastrain.serving.servable import PREDICT, Signature, TensorInfo

FOLDER = Path(kerastrain.serving.page.__file__).parent


def signature(name="serving_default", method=PREDICT, outputs=(), **inputs) -> Signature:
    infos = {key: TensorInfo(key, dtype, shape) for key, (dtype, shape) in inputs.items()}
    return Signature(name, infos, dict(outputs), method)


def described(found: Signature, recorded=None):
    servable = SimpleNamespace(signatures={found.name: found}, manifest=recorded)
    return describe(servable)["signatures"][0]


def fields_of(table: pa.Table) -> dict[str, dict]:
    """The form for a table that a model was trained on, its last column the target."""
    schema = infer_schema(table, table.column_names[-1])
    statistics = table_statistics(raw_columns(table, schema), schema)
    inputs = {c.input: (tf.as_dtype(c.dtype), (None,)) for c in schema.columns}
    manifest = {"data": {"schema": schema.to_json(), "statistics": statistics}}
    return {field["label"]: field for field in table_fields(signature(**inputs), manifest)}


def test_a_field_is_filled_with_the_median_and_says_the_range():
    age = pa.array([0.42, 22, 38, 26, 35, 54, 2, 27, 14, 80], pa.float32())
    field = fields_of(pa.table({"age": age, "y": [0, 1] * 5}))["age"]
    assert (field["control"], field["example"], field["hint"]) == ("number", "26", "0.42 to 80")
    assert (field["minimum"], field["maximum"]) == (0.42, 80.0)


def test_a_median_that_many_rows_share_is_found():
    field = fields_of(pa.table({"n": [0] * 9 + [1] * 8 + [7] * 3, "y": [0, 1] * 10}))["n"]
    assert field["example"] == "1"


def test_a_category_whose_values_are_all_known_is_a_choice_and_the_most_frequent_is_chosen():
    field = fields_of(pa.table({"port": ["S", "C", "S", "Q"] * 10, "y": [0, 1] * 20}))["port"]
    assert field["control"] == "choice" and field["example"] == "S"
    assert [value for value, _ in field["options"]] == ["S", "C", "Q"]


def test_a_category_of_many_values_takes_any_text():
    towns = [f"town {n}" for n in range(150)] * 4
    field = fields_of(pa.table({"town": towns, "y": [0, 1] * 300}))["town"]
    assert field["control"] == "text" and len(field["options"]) == 100
    assert field["hint"] == "150 values in training"


def test_codes_are_numbers_and_yes_or_no_is_chosen():
    table = pa.table({"zip": [1000, 2000] * 20, "member": [True, False] * 20, "y": [0, 1] * 20})
    fields = fields_of(table)
    assert [value for value, _ in fields["zip"]["options"]] == ["1000", "2000"]
    assert fields["member"]["options"] == [["1", "yes"], ["0", "no"]]


def test_a_date_is_filled_in_as_iso_text_with_its_range():
    days = pa.array([f"2024-01-{day:02}" for day in range(1, 31)]).cast(pa.date32())
    field = fields_of(pa.table({"sold": days, "y": [0, 1] * 15}))["sold"]
    assert (field["example"], field["hint"]) == ("2024-01-15", "2024-01-01 to 2024-01-30")


def test_a_column_without_a_value_in_training_has_no_range():
    recorded = {"min": None, "max": None, "edges": [], "shares": [0.0]}
    column = {"name": "sold", "input": "sold", "kind": "date"}
    manifest = {
        "data": {"schema": {"columns": [column]}, "statistics": {"columns": {"sold": recorded}}}
    }
    (field,) = table_fields(signature(sold=(tf.string, (None,))), manifest)
    assert (field["example"], field["hint"]) == ("", DATE_HINT)


def test_without_a_manifest_the_form_follows_from_the_signature():
    found = described(
        signature(n=(tf.int64, (None,)), is_new=(tf.bool, (None,)), city=(tf.string, (None,)))
    )
    assert found["kind"] == "table"
    controls = {field["input"]: (field["control"], field["example"]) for field in found["fields"]}
    assert controls == {
        "n": ("number", "0"), "is_new": ("choice", "false"), "city": ("text", "")
    }  # fmt: skip
    may = {field["input"]: field["may_be_missing"] for field in found["fields"]}
    assert may == {"n": False, "is_new": False, "city": True}


@pytest.mark.parametrize(
    ("shape", "channels"), [((28, 28), None), ((28, 28, 1), 1), ((32, 24, 3), 3)]
)
def test_one_input_of_an_images_shape_is_drawn_on(shape, channels):
    recorded = {"pixels": {"brightest": 16.0}}
    found = described(signature(image=(tf.uint8, (None, *shape))), recorded)
    height, width = shape[:2]
    assert found["kind"] == "image"
    expected = {"height": height, "width": width, "channels": channels, "maximum": 16}
    assert found["image"] == expected


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": (tf.float32, (None, 784))},
        {"x": (tf.float32, (None, None, None, 3))},
        {"x": (tf.float32, (None, 4, 4))},
        {"x": (tf.float32, (None, 28, 28, 4))},
        {"x": (tf.string, (None, 28, 28))},
        {"image_bytes": (tf.string, (None,))},
        {"x": (tf.float32, None)},
        {"x": (tf.float32, ())},
        {"a": (tf.float32, (None, 28, 28)), "b": (tf.float32, (None,))},
        {},
    ],
)
def test_anything_else_is_asked_in_json(inputs):
    assert described(signature(**inputs))["kind"] == "other"


def test_classify_is_no_form_although_its_input_is_a_column():
    found = described(signature(method="tensorflow/serving/classify", inputs=(tf.string, (None,))))
    assert (found["kind"], found["method"]) == ("other", "classify")


def test_every_model_is_told_with_versions_states_labels_and_reasons(server):
    found = {model["name"]: model for model in describe_models(server.models)["models"]}
    assert list(found) == ["broken", "digits", "houses", "pair"]
    assert found["houses"]["labels"] == [["stable", 1]]
    assert found["houses"]["default"] == 1
    assert found["houses"]["versions"][0]["described"]["target"] == "price"
    (broken,) = found["broken"]["versions"]
    assert found["broken"]["default"] is None and broken["described"] is None
    assert broken["state"] == "END" and "saved_model.pb" in broken["error_message"]


def get(url: str, **headers: str):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
        return response.headers, response.read()


def test_the_models_are_sent_again_only_when_they_changed(server):
    headers, content = get(f"{server.url}/page/models")
    assert headers["Content-Type"] == "application/json"
    assert [model["name"] for model in json.loads(content)["models"]][1] == "digits"
    with pytest.raises(urllib.error.HTTPError, match="304"):
        get(f"{server.url}/page/models", **{"If-None-Match": headers["ETag"]})


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/page.css", "/page/models"])
def test_nothing_from_elsewhere_and_no_script_but_the_pages_own_is_allowed(server, path):
    headers, _ = get(server.url + path)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy and "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_files_refer_to_nothing_outside():
    for name in ("index.html", "page.css", "page.js"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert not re.findall(r"https?://|url\(|@import|import\(|innerHTML|insertAdjacent", text)


def test_only_the_files_of_the_page_are_sent(server):
    for path in ("/page/routes.py", "/page/../page.js", "/page/%2e%2e/models.py", "/page/"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(server.url + path)
