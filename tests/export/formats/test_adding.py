from __future__ import annotations

import json
import logging

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from checked_here import check_here

from kerastrain.data.source import Classification, Data, Examples, Regression
from kerastrain.data.tables import columns
from kerastrain.data.tables.encoding import fit_encoder
from kerastrain.data.tables.schema import infer_schema
from kerastrain.export.formats import adding, checking, keras_files, making, processes
from kerastrain.export.formats.adding import add_formats
from kerastrain.export.formats.catalog import FORMATS, missing_packages
from kerastrain.export.formats.stage import Stage, write_stage
from kerastrain.export.manifest import read_manifest
from kerastrain.export.publishing import check_rows, publish
from kerastrain.export.rows import raw_rows
from kerastrain.export.serving import ServedModel


def image_data(rows: int = 300) -> Data:
    images = np.random.default_rng(0).integers(0, 256, (rows, 4, 4), dtype=np.uint8)
    labels = (images.mean((1, 2)) > 127).astype(np.int64)
    return Data(train=Examples(images, labels), task=Classification(("dark", "light", "grey")))


def image_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4), dtype="uint8", name="image")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(16, activation="relu")(x))
    model = keras.Model(image, keras.layers.Dense(3)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    return model


def step_here(step, folder, names):
    """`processes.run_step` without processes."""
    do = {"making": making.make, "checking": checking.check}[step]
    return {name: do(Stage.read(folder), FORMATS[name]) for name in names}


@pytest.fixture
def here(monkeypatch):
    """Everything is made and checked in this process."""
    monkeypatch.setattr(processes, "run_step", step_here)
    check_here(monkeypatch)


@pytest.fixture(scope="module")
def images() -> tuple[ServedModel, Data]:
    data = image_data()
    return ServedModel.of(image_model(), data), data


def need(name: str) -> None:
    """Skips the test where a format's packages are not installed."""
    lacking = missing_packages(FORMATS[name])
    if lacking:
        pytest.skip(f"{', '.join(lacking)} is not installed")


KERAS = ("weights", "architecture", "h5")
FAST = ("litert", "litert_int8", "onnx")
RARE = ("litert_float16", "litert_dynamic_int8", "openvino")
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def stage(images, tmp_path_factory):
    served, data = images
    return write_stage(
        tmp_path_factory.mktemp("formats") / "stage",
        served,
        check_rows(raw_rows(data, served.inputs)),
        sample={"image": data.train.inputs[:50]},
        tolerance=1e-5,
    )


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(n, marks=SLOW) for n in RARE)])
def test_a_converted_format_answers_as_the_live_model_does(stage, name):
    need(name)
    one = FORMATS[name]
    assert making.make(stage, one) == {}
    report = checking.check(stage, one)
    assert report["problems"] == []
    assert report["error_of"] == "probabilities"
    assert report["agreement"] >= 0.97
    assert report["error"] <= (1e-5 if one.limits is None else 0.05)
    assert (stage.made / one.file).exists()


def test_a_converted_format_with_other_weights_is_refused(stage, tmp_path):
    need("litert")
    one = FORMATS["litert"]
    making.make(stage, one)
    path = stage.made / one.file
    right = path.read_bytes()
    weight = stage.folder / "network"  # the first dense layer's, found in the file
    kernel = tf.train.load_checkpoint(str(weight / "variables" / "variables"))
    largest = max(
        (kernel.get_tensor(n) for n in kernel.get_variable_to_shape_map() if "variables_" in n),
        key=np.size,
    )
    changed = right.replace(largest.T.tobytes(), (largest.T * np.float32(1.01)).tobytes())
    assert changed != right
    path.write_bytes(changed)
    assert "'logits' differs" in checking.check(stage, one)["problems"][0]
    path.write_bytes(right[: len(right) // 2])
    assert "cannot load or ask it" in checking.check(stage, one)["problems"][0]


@pytest.mark.parametrize("name", KERAS)
def test_a_file_of_keras_answers_as_the_live_model_does(stage, images, name):
    for made in KERAS:
        keras_files.make(images[0], made, stage.made / FORMATS[made].file)
    report = checking.check(stage, FORMATS[name])
    assert (report["problems"], report["error_of"], report["agreement"]) == ([], "logits", 1.0)
    assert report["error"] <= 1e-5


def test_weights_come_without_the_optimizer(stage, images):
    served = images[0]
    keras_files.make(served, "weights", stage.made / "model.weights.h5")
    size = sum(variable.numpy().nbytes for variable in served.model.variables)
    assert (stage.made / "model.weights.h5").stat().st_size < size + 30_000
    assert "compile_config" not in json.loads(keras_files.architecture(served.model))
    assert served.model.optimizer is not None


def test_a_model_that_takes_text_is_refused_by_formats_that_do_not(tmp_path):
    text = keras.Input((), dtype="string", name="city")
    index = keras.layers.StringLookup(vocabulary=["Bonn", "Köln"])(text)
    model = keras.Model(text, keras.layers.Embedding(3, 1)(index))
    model.compile(loss="mse")
    cities = np.array(["Bonn", "Köln", "Ulm"] * 10, object)
    data = Data(Examples(cities, np.zeros(30, np.float32)), task=Regression("size"))
    served = ServedModel.of(model, data)
    stage = write_stage(
        tmp_path / "stage",
        served,
        check_rows(raw_rows(data, served.inputs)),
        sample={"city": cities},
        tolerance=1e-5,
    )
    (reason,) = making.make(stage, FORMATS["litert"])["problems"]
    assert "the model's input 'city' is text" in reason
    assert "encoder" in reason
    for name in ("weights", "architecture"):
        keras_files.make(served, name, stage.made / FORMATS[name].file)
    assert checking.check(stage, FORMATS["weights"])["problems"] == []


def test_whole_numbers_and_members_are_added_as_litert_can(tmp_path):
    """Keras makes tf.nn.bias_add of both sums, which LiteRT refuses."""
    need("litert")
    keras.utils.set_random_seed(0)
    codes = keras.Input((3,), dtype="int32", name="codes")
    hot = keras.ops.one_hot(codes + np.array([0, 4, 8], np.int32), 12)
    members = keras.layers.RepeatVector(5)(keras.layers.Flatten()(hot))
    outputs = keras.layers.EinsumDense("bki,kio->bko", (5, 1), bias_axes="ko")(members)
    model = keras.Model(codes, keras.ops.mean(outputs, axis=1))
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    model.compile(loss="mse")
    rows = np.random.default_rng(0).integers(0, 4, (40, 3)).astype(np.int32)
    data = Data(Examples(rows, np.zeros(40, np.float32)), task=Regression("size"))
    served = ServedModel.of(model, data)
    stage = write_stage(
        tmp_path / "stage",
        served,
        check_rows(raw_rows(data, served.inputs)),
        sample={"codes": rows},
        tolerance=1e-5,
    )
    assert making.make(stage, FORMATS["litert"]) == {}
    assert checking.check(stage, FORMATS["litert"])["problems"] == []


def test_a_process_that_dies_of_one_format_is_started_again_for_the_others(tmp_path, monkeypatch):
    asked = []

    def dies_of_onnx(step, folder, names):
        asked.append(list(names))
        for name in names:
            if name == "onnx":
                return "SIGSEGV; core dumped"
            (folder / f"{step}-{name}.json").write_text('{"problems": []}')
        return "status 0; "

    monkeypatch.setattr(processes, "_run", dies_of_onnx)
    reports = processes.run_step("checking", tmp_path, ["litert", "onnx", "openvino"])
    assert asked == [["litert", "onnx", "openvino"], ["openvino"]]
    assert reports["litert"] == reports["openvino"] == {"problems": []}
    assert reports["onnx"]["problems"] == ["checking it ended the process: SIGSEGV; core dumped"]


def test_the_end_of_what_a_dead_process_wrote_is_told(tmp_path):
    reports = processes.run_step("making", tmp_path / "nothing-there", [])
    assert reports == {}
    reports = processes.run_step("checking", tmp_path, ["onnx"])
    assert "stage.json" in reports["onnx"]["problems"][0]


@pytest.mark.slow
def test_a_version_holds_the_formats_asked_for_and_says_what_is_known_of_them(
    tmp_path, here, caplog, monkeypatch
):
    need("litert")
    limits = FORMATS["litert_float16"]
    unmet = type(limits.limits)(probability=0.0, share=0.0, agreement=1.0)
    monkeypatch.setitem(
        FORMATS, "litert_float16", type(limits)(**{**vars(limits), "limits": unmet})
    )
    names = ("savedmodel", "litert", "litert_float16")
    with caplog.at_level(logging.WARNING, "kerastrain"):
        published = publish(
            image_model(), image_data(), base=tmp_path / "images", facts={}, formats=names
        )
    assert (published.path / "model.tflite").exists()
    assert not (published.path / "model.keras").exists()  # not asked for
    assert not (published.path / "model_float16.tflite").exists()
    assert "allowed is 0" in published.left_out["model_float16.tflite"]
    assert "model_float16.tflite is not published" in caplog.text
    content = read_manifest(published.path)
    assert content["formats"] == published.formats
    assert list(content["formats"]) == ["savedmodel", "litert"]
    itself = content["formats"]["savedmodel"]
    assert itself["error_of"] == "probabilities" and itself["error"] <= 1e-5
    assert itself["bytes"] > (published.path / "saved_model.pb").stat().st_size
    report = content["formats"]["litert"]
    assert report["bytes"] == (published.path / "model.tflite").stat().st_size
    assert report["inputs"] == {"image": {"dtype": "uint8", "shape": [None, 4, 4]}}
    assert report["takes"] == "raw rows"
    assert "model.tflite" in content["files"]
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["1"]


def test_a_package_that_is_not_installed_is_the_reason_why_a_format_is_left_out(
    tmp_path, images, monkeypatch
):
    monkeypatch.setattr(adding, "missing_packages", lambda one: ["tf2onnx"])
    served, data = images
    added = add_formats(
        served,
        data,
        ("savedmodel", "onnx"),
        folder=tmp_path,
        rows=check_rows(raw_rows(data, served.inputs)),
    )
    assert added.left_out == {
        "model.onnx": "tf2onnx is not installed: pip install 'kerastrain[formats]'"
    }


def test_behind_an_encoder_a_format_takes_features_and_the_description_lies_beside_it(
    tmp_path, here
):
    need("litert")
    added = added_to(tmp_path, *table_data_and_model(), names=("litert", "weights"))
    assert added.left_out == {}
    report = added.reports["litert"]
    assert report["takes"] == added.reports["weights"]["takes"] == "features"
    assert set(report["inputs"]) == {"numbers", "categories"}
    content = json.loads((tmp_path / "version" / "preprocessing.json").read_text())
    assert content["classes"] == ["no", "yes"]


def test_keras_files_have_the_inputs_own_names_and_any_operations(tmp_path, here):
    left = keras.Input((4,), name="left part")
    right = keras.Input((4,), name="right")
    inner = keras.Sequential([keras.Model(right, keras.ops.tanh(right) * 2.0)])
    outputs = keras.layers.Dense(2)(left + inner(right))
    model = keras.Model({"left part": left, "right": right}, outputs)
    model.compile(loss="mse")
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    data = Data(Examples({"left part": rows, "right": rows + 1}, rows[:, :2]))
    added = added_to(tmp_path, data, model, names=KERAS)
    assert added.left_out == {} and set(added.reports) == set(KERAS)


def test_an_encoder_that_cannot_be_described_is_told_and_the_formats_stay(tmp_path, here):
    data, model = table_data_and_model()
    x = keras.Input((), name="size")
    town = keras.Input((), dtype="string", name="town")
    index = keras.layers.StringLookup(vocabulary=["a", "b"])(town)
    outputs = {
        "numbers": x[:, None] * 2.0,
        "categories": keras.ops.cast(index, "int32")[:, None],
    }
    data = data.with_encoder(keras.Model([x, town], outputs))
    added = added_to(tmp_path, data, model, names=("weights",))
    assert "not one that kerastrain has made" in added.left_out["preprocessing.json"]
    assert (tmp_path / "version" / "model.weights.h5").exists()


def added_to(tmp_path, data, model, *, names):
    (tmp_path / "version").mkdir()
    served = ServedModel.of(model, data)
    rows = check_rows(raw_rows(data, served.inputs))
    return add_formats(served, data, names, folder=tmp_path / "version", rows=rows)


def table_data_and_model():
    random = np.random.default_rng(0)
    sizes = random.normal(size=200)
    table = columns.plain_table(
        pa.table(
            {
                "size": sizes,
                "town": random.choice(["Bonn", "Köln", "Ulm"], 200),
                "sold": np.where(sizes > 0, "yes", "no"),
            }
        )
    )
    schema = infer_schema(table, "sold")
    encoder = fit_encoder(columns.raw_columns(table, schema), schema)
    encoded = encoder.encode(columns.raw_columns(table, schema))
    data = Data(
        train=Examples(encoded, (sizes > 0).astype(np.int64)),
        task=Classification(("no", "yes")),
        encoder=encoder.model,
        test_rows=columns.raw_rows(table, schema),
        columns=encoder.columns,
    )
    keras.utils.set_random_seed(0)
    numbers = keras.Input((1,), name="numbers")
    categories = keras.Input((1,), dtype="int32", name="categories")
    x = keras.layers.Concatenate()(
        [numbers, keras.layers.Flatten()(keras.layers.Embedding(4, 2)(categories))]
    )
    model = keras.Model({"numbers": numbers, "categories": categories}, keras.layers.Dense(2)(x))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return data, model


def test_a_stage_is_read_as_it_was_written(stage):
    again = Stage.read(stage.folder)
    assert again.inputs == stage.inputs
    assert list(again.expected) == ["logits", "probabilities"]
    assert len(again.asked["image"]) == 256
    np.testing.assert_array_equal(again.raw[0], stage.raw[0])
