from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
from checked_here import check_here

import kerastrain
from kerastrain.data.source import Classification, Data, Examples, Regression
from kerastrain.errors import ExportError
from kerastrain.export import serving, verification
from kerastrain.export.manifest import NAME, read_manifest, task_from_json, task_to_json, versions
from kerastrain.export.publishing import Rehearsal, check_rows, publish
from kerastrain.export.scoring import evaluate_export
from kerastrain.export.serving import ServedModel

LOGITS = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}


def digits_data():
    digits = sklearn.datasets.load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target
    return Data(
        train=Examples(images[:1400], labels[:1400]),
        test=Examples(images[1400:], labels[1400:]),
        task=Classification(tuple(range(10))),
    )


def digits_model(*layers):
    model = keras.Sequential([keras.Input((8, 8), dtype="uint8", name="image")])
    model.add(keras.layers.Rescaling(1 / 16))
    for layer in layers:
        model.add(layer)
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(10))
    model.compile(optimizer="adam", **LOGITS)
    return model


@pytest.fixture
def checked_here(monkeypatch):
    """Checks exports in this process: quick, for what does not hang on the fresh one."""
    check_here(monkeypatch)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A trained model with augmentation and dropout, and its export."""
    data = digits_data()
    keras.utils.set_random_seed(0)  # By chance alone it may learn less in so few epochs.
    layers = [
        keras.layers.Reshape((8, 8, 1)),
        keras.layers.RandomRotation(0.05),
        keras.layers.Dropout(0.1),
    ]
    model = digits_model(*layers)
    model.fit(data.train.inputs, data.train.targets, epochs=8, batch_size=32, verbose=0)
    base = tmp_path_factory.mktemp("export") / "digits"
    facts = {"recipe": "digits", "step": np.int64(352), "options": {"batch_size": 32}}
    return model, data, publish(model, data, base=base, facts=facts)


def test_a_version_holds_the_saved_model_the_keras_file_and_the_manifest(digits):
    _, _, published = digits
    found = {path.name for path in published.path.iterdir()}
    assert found >= {"saved_model.pb", "variables", "model.keras", "assets.extra"}
    assert published.version == 1
    assert [path.name for path in published.path.parent.iterdir()] == ["1"]
    assert published.left_out == {}


def test_the_signatures_are_named_and_typed_as_documented(digits):
    def strings(*shape):
        return {"dtype": "string", "shape": list(shape)}

    scores = {"dtype": "float32", "shape": [None, 10]}
    label = {"dtype": "int64", "shape": [None]}
    answers = {"label": label, "logits": scores, "probabilities": scores}
    assert digits[2].signatures == {
        "serving_default": {
            "inputs": {"image": {"dtype": "uint8", "shape": [None, 8, 8]}},
            "outputs": answers,
        },
        "image_bytes": {"inputs": {"image_bytes": strings(None)}, "outputs": answers},
        "classify": {
            "inputs": {"inputs": strings(None)},
            "outputs": {"classes": strings(None, 10), "scores": scores},
        },
    }


def test_a_process_with_tensorflow_alone_gets_the_live_models_answers(digits, tmp_path):
    model, data, published = digits
    np.save(tmp_path / "images.npy", data.test.inputs)
    script = """
        import sys, numpy as np, tensorflow as tf
        ask = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
        np.savez(sys.argv[3], **ask(image=tf.constant(np.load(sys.argv[2]))))
        assert "kerastrain" not in sys.modules
    """
    answers = tmp_path / "answers.npz"
    command = [sys.executable, "-c", textwrap.dedent(script), published.path]
    subprocess.run([*command, tmp_path / "images.npy", answers], check=True)
    with np.load(answers) as received:
        logits = model(data.test.inputs, training=False)
        np.testing.assert_allclose(received["logits"], logits, atol=1e-4)
        np.testing.assert_array_equal(received["label"], np.argmax(logits, -1))
        np.testing.assert_allclose(received["probabilities"].sum(1), 1, atol=1e-5)


@pytest.mark.slow
def test_saved_model_cli_shows_the_signature(digits):
    shown = subprocess.run(
        [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show"]
        + ["--all", "--dir", str(digits[2].path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "inputs['image'] tensor_info:\n        dtype: DT_UINT8\n" in shown
    assert "outputs['probabilities'] tensor_info:\n        dtype: DT_FLOAT\n" in shown
    assert "Method name is: tensorflow/serving/predict" in shown


def test_the_keras_file_is_loaded_by_keras_alone(digits):
    model, data, published = digits
    loaded = keras.saving.load_model(published.path / "model.keras")
    expected = model(data.test.inputs, training=False)
    np.testing.assert_allclose(loaded(data.test.inputs, training=False), expected, atol=1e-4)


def test_the_manifest_says_what_was_published_and_how_it_was_checked(digits):
    _, data, published = digits
    manifest = read_manifest(published.path)
    assert manifest["recipe"] == "digits"
    assert manifest["step"] == 352
    assert manifest["classes"] == list(range(10))
    assert task_from_json(manifest["task"]) == data.task
    assert manifest["metrics"] == published.metrics
    assert manifest["signatures"] == published.signatures
    assert manifest["verified"]["rows"] == 256
    assert manifest["verified"]["batch_sizes"] == [1, 7, 32]
    assert manifest["verified"]["unchecked"] == {}
    assert manifest["verified"]["largest_differences"]["probabilities"] <= 1e-5
    assert manifest["versions"]["tensorflow"] == tf.__version__
    assert manifest["versions"]["kerastrain"] == kerastrain.__version__
    assert manifest["created"].endswith("Z")


def test_the_digest_is_over_every_published_byte(digits):
    _, _, published = digits
    manifest = read_manifest(published.path)
    folder = published.path
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(manifest["files"]) == files - {NAME}
    for name, sha256 in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    lines = "".join(f"{manifest['files'][name]}  {name}\n" for name in sorted(manifest["files"]))
    assert hashlib.sha256(lines.encode()).hexdigest() == manifest["digest"] == published.digest


def test_the_metrics_are_those_of_the_saved_model_on_the_test_split(digits):
    model, data, published = digits
    correct = np.argmax(model(data.test.inputs, training=False), -1) == data.test.targets
    assert published.metrics["accuracy"] == pytest.approx(correct.mean())
    assert published.metrics["accuracy"] > 0.7
    assert evaluate_export(published.path, data) == pytest.approx(published.metrics)


def test_no_function_needs_xla(digits):
    assert b"_XlaMustCompile" not in (digits[2].path / "saved_model.pb").read_bytes()


def test_a_changed_file_is_noticed(digits, tmp_path, checked_here):
    model, data, _ = digits
    published = publish(model, data, base=tmp_path / "digits", facts={})
    weights = next((published.path / "variables").glob("*.data*"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ExportError, match="not the file that was published"):
        read_manifest(published.path)
    weights.unlink()
    with pytest.raises(ExportError, match="is missing"):
        read_manifest(published.path)


def test_versions_count_on_and_nothing_is_overwritten(digits, tmp_path, checked_here):
    model, data, _ = digits
    base = tmp_path / "digits"
    for name in ("7", "12", "not-a-version", ".hidden"):
        (base / name).mkdir(parents=True)
    assert publish(model, data, base=base, facts={}).version == 13
    assert versions(base) == [7, 12, 13]
    assert list((base / "12").iterdir()) == []


def test_leftovers_of_killed_publishes_go_and_those_of_running_ones_stay(
    digits, tmp_path, checked_here
):
    import fcntl

    model, data, _ = digits
    base = tmp_path / "digits"
    (base / ".pending-killed" / "model").mkdir(parents=True)
    (base / ".pending-running").mkdir()
    running = os.open(base / ".pending-running", os.O_RDONLY)
    fcntl.flock(running, fcntl.LOCK_EX)
    try:
        publish(model, data, base=base, facts={})
    finally:
        os.close(running)
    assert {path.name for path in base.iterdir()} == {".pending-running", "1"}


def test_a_model_that_changes_when_it_is_reloaded_is_not_published(
    tmp_path, monkeypatch, checked_here
):
    layer = keras.layers.Rescaling(3.0, name="forgetful")
    config = keras.layers.Rescaling(1.0, name="forgetful").get_config()
    monkeypatch.setattr(layer, "get_config", lambda: config)
    model = digits_model(layer)
    base = tmp_path / "digits"
    with pytest.raises(ExportError, match=r"model.keras: 'output 0' differs in \d+ of 256 rows"):
        publish(model, digits_data(), base=base, facts={})
    assert list(base.iterdir()) == []


def test_an_export_that_answers_differently_is_not_published(tmp_path, monkeypatch, checked_here):
    save = ServedModel.save

    def save_other_weights(served, folder):
        own = served.model.get_weights()
        served.model.set_weights([weight * 1.001 for weight in own])
        signatures = save(served, folder)
        served.model.set_weights(own)
        return signatures

    monkeypatch.setattr(ServedModel, "save", save_other_weights)
    base = tmp_path / "digits"
    with pytest.raises(ExportError, match="SavedModel, batch size 1: 'logits' differs") as error:
        publish(digits_model(), digits_data(), base=base, facts={})
    assert "batch size 7" in str(error.value)
    assert "batch size 256" in str(error.value)
    assert list(base.iterdir()) == []


def test_a_check_that_dies_is_shown_and_nothing_is_published(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    base = tmp_path / "digits"
    with pytest.raises(ExportError, match="in a fresh process failed"):
        publish(digits_model(), digits_data(), base=base, facts={})
    assert list(base.iterdir()) == []


def test_a_model_whose_weights_are_nan_is_not_published(tmp_path):
    model = digits_model()
    kernel, bias = model.get_weights()
    for spoilt in (np.full_like(bias, np.nan), np.array([*bias[:-1], np.inf])):
        model.set_weights([kernel, spoilt])
        with pytest.raises(ExportError, match="NaN or infinity"):
            publish(model, digits_data(), base=tmp_path / "digits", facts={})
    assert list((tmp_path / "digits").iterdir()) == []


class Noisy(keras.layers.Layer):
    """Random also outside of training: drawn by a generator of its own, and by the global one."""

    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        seed = self.generator
        noise = keras.random.normal(keras.ops.shape(inputs), seed=seed)
        return inputs + noise + keras.random.uniform(keras.ops.shape(inputs))


def test_a_model_that_draws_random_numbers_is_compared_from_equal_seeds(
    tmp_path, monkeypatch, checked_here
):
    model, data, base = digits_model(Noisy()), digits_data(), tmp_path / "digits"
    before = [variable.numpy().tolist() for variable in model.non_trainable_variables]
    facts = {"options": {"batch_size": 100}}
    published = publish(model, data, base=base, facts=facts, formats=("savedmodel",))
    verified = read_manifest(published.path)["verified"]
    # What is drawn for one row is nothing of what is drawn for seven.
    assert verified["batch_sizes"] == [100]
    assert verified["largest_differences"]["logits"] < 1e-4
    assert verified["unchecked"] == {}
    assert [variable.numpy().tolist() for variable in model.non_trainable_variables] == before
    monkeypatch.setattr(Noisy, "call", lambda self, inputs: inputs)
    save = ServedModel.save

    def save_a_noisy_one(served, folder):
        with monkeypatch.context() as patch:
            patch.setattr(Noisy, "call", lambda self, x: x + keras.random.normal((8, 8)))
            return save(served, folder)

    monkeypatch.setattr(ServedModel, "save", save_a_noisy_one)
    with pytest.raises(ExportError, match="batch size 256: 'logits' differs"):
        publish(digits_model(Noisy()), data, base=base, facts={}, formats=("savedmodel",))


def test_answers_drawn_from_no_seed_are_published_as_unchecked(tmp_path, checked_here, caplog):
    class Unseeded(keras.layers.Layer):
        def call(self, inputs):
            return inputs + tf.random.normal(tf.shape(inputs))

    inputs = keras.Input((8, 8), dtype="uint8", name="image")
    numbers = keras.layers.Flatten()(keras.layers.Rescaling(1 / 16)(inputs))
    outputs = {"drawn": Unseeded()(numbers), "mean": keras.layers.Dense(1)(numbers)}
    model = keras.Model(inputs, outputs)
    model.compile(loss={"mean": "mse"})
    data = Data(train=digits_data().train)
    with caplog.at_level(logging.WARNING, "kerastrain"):
        names = ("savedmodel", "onnx")
        published = publish(model, data, base=tmp_path / "m", facts={}, formats=names)
    verified = read_manifest(published.path)["verified"]
    assert list(verified["unchecked"]) == ["drawn"]
    assert list(verified["largest_differences"]) == ["mean"]
    assert "draws random numbers" in published.left_out["model.onnx"]
    assert "not compared with the model in drawn: given anew at each call" in caplog.text


# A module that is no part of a package is told by its file.
HERE = __name__ if "." in __name__ else "test_publishing.py"


class Unregistered(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0


@keras.saving.register_keras_serializable("kerastrain_tests")
class Registered(Unregistered):
    pass


@keras.saving.register_keras_serializable("kerastrain_tests")
def doubled(inputs):
    return inputs * 2.0


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_own_code_is_named_where_the_keras_file_is_left_out_for_it(tmp_path, checked_here, caplog):
    layers = [Unregistered(), Registered(), keras.layers.Activation(doubled)]
    model = digits_model(*layers, keras.layers.Lambda(lambda x: x + 1.0))
    with caplog.at_level(logging.WARNING, "kerastrain"):
        published = publish(model, digits_data(), base=tmp_path / "digits", facts={})
    assert not (published.path / "model.keras").exists()
    assert (published.path / "saved_model.pb").exists()
    assert published.left_out["model.keras"].startswith(
        f"Keras cannot load it by itself: it needs Unregistered of {HERE}, Registered of {HERE}, "
        f"kerastrain_tests>doubled of {HERE}, a Python lambda (which safe mode refuses)."
    )
    assert "model.keras is not published" in caplog.text
    assert read_manifest(published.path)["left_out"] == published.left_out


def test_a_subclassed_model_is_published_without_its_configuration_in_the_reason(
    tmp_path, checked_here
):
    class Own(keras.Model):
        def __init__(self, layers=200):
            super().__init__()
            self.inner = [keras.layers.Rescaling(1.0) for _ in range(layers)]
            self.last = digits_model()

        def call(self, inputs):
            return self.last(inputs)

        def get_config(self):
            return {"layers": [layer.get_config() for layer in self.inner]}

    model = Own()
    model.compile(**LOGITS)
    published = publish(model, digits_data(), base=tmp_path / "digits", facts={})
    reason = published.left_out["model.keras"]
    assert f"it needs Own of {HERE}." in reason and len(reason) < 200


def test_the_fresh_process_knows_no_class_of_a_recipe_even_where_it_could_import_it(
    tmp_path, monkeypatch
):
    source = tmp_path / "layers_of_mine.py"
    source.write_text(
        textwrap.dedent("""
        import keras
        @keras.saving.register_keras_serializable("layers_of_mine")
        class Doubled(keras.layers.Layer):
            def call(self, inputs):
                return inputs * 2.0
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    doubled = importlib.import_module("layers_of_mine").Doubled
    published = publish(digits_model(doubled()), digits_data(), base=tmp_path / "digits", facts={})
    assert "Doubled of layers_of_mine.py" in published.left_out["model.keras"]
    assert (published.path / "saved_model.pb").exists()


def test_half_precision_is_checked_within_its_own_tolerance(tmp_path, checked_here):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layers = [
            keras.layers.Reshape((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(16, 3, activation="relu"),
        ]
        model = digits_model(*layers)
    finally:
        keras.config.set_dtype_policy("float32")
    published = publish(model, digits_data(), base=tmp_path / "digits", facts={})
    outputs = published.signatures["serving_default"]["outputs"]
    assert {name: spec["dtype"] for name, spec in outputs.items()} == {
        "label": "int64",
        "logits": "float32",
        "probabilities": "float32",
    }


def test_a_regression_without_a_test_split_is_published_without_metrics(tmp_path, checked_here):
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    model = keras.Sequential([keras.Input((3,), name="features"), keras.layers.Dense(1)])
    model.compile(loss="mse")
    data = Data(Examples(rows, rows.sum(1)), task=Regression("total"))
    published = publish(model, data, base=tmp_path / "sums", facts={})
    assert published.metrics == {}
    outputs = published.signatures["serving_default"]["outputs"]
    assert outputs == {"prediction": {"dtype": "float32", "shape": [None]}}


@pytest.mark.slow
def test_a_mirrored_model_is_published_with_each_weight_once(tmp_path):
    script = """
        import sys, numpy as np, keras, tensorflow as tf
        from pathlib import Path
        from kerastrain.data.source import Classification, Data, Examples
        from kerastrain.export import fresh_process, verification
        from kerastrain.export.publishing import publish
        from contextlib import nullcontext
        from types import SimpleNamespace
        here = SimpleNamespace(begin=lambda _: None, finish=verification.check)
        fresh_process.FreshProcess = lambda: nullcontext(here)
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            model = keras.Sequential([keras.Input((4,), name="row")])
            model.add(keras.layers.BatchNormalization())
            model.add(keras.layers.Dense(3))
            model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        rows = np.random.default_rng(0).normal(size=(300, 4)).astype("float32")
        data = Data(Examples(rows, np.zeros(300, int)), task=Classification((0, 1, 2)))
        published = publish(model, data, base=Path(sys.argv[1]), facts={})
        assert not published.left_out, published.left_out
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "mirrored")]
    subprocess.run(command, check=True)
    saved = tf.train.list_variables(str(tmp_path / "mirrored" / "1" / "variables" / "variables"))
    weights = [shape for name, shape in saved if name.startswith("weights/")]
    assert sorted(weights) == [[3], [4], [4], [4], [4], [4, 3]]


def test_what_cannot_be_exported_is_known_before_the_training():
    data = digits_data()
    here = SimpleNamespace(begin=lambda _: None, finish=verification.check)
    with Rehearsal(digits_model(), data, here) as rehearsal:
        assert rehearsal.finish() == "SavedModel and .keras answer as the model does on 256 rows"
    wrong = digits_model()
    wrong.compile(loss="sparse_categorical_crossentropy")
    with (
        Rehearsal(wrong, data, here) as rehearsal,
        pytest.raises(ExportError, match="from_logits=True"),
    ):
        rehearsal.finish()


def test_fewer_rows_than_256_are_asked_about_once():
    rows = check_rows({"x": np.arange(100)})["x"]
    assert sorted(rows) == list(range(100))


def test_no_more_rows_are_asked_about_at_once_than_in_training_and_than_there_is_time_for(
    tmp_path, monkeypatch, checked_here
):
    asked, now = [], [0.0]

    class Watching(keras.layers.Layer):
        def call(self, inputs):
            if inputs.shape[0] is not None:
                asked.append(int(inputs.shape[0]))
                now[0] += 0.5
            return inputs

    monkeypatch.setattr(serving, "time", SimpleNamespace(monotonic=lambda: now[0]))
    published = publish(
        digits_model(Watching()),
        digits_data(),
        base=tmp_path / "digits",
        facts={"options": {"batch_size": 16}},
        formats=("savedmodel",),
    )
    assert set(asked) == {16}
    # Six calls of half a second.
    assert read_manifest(published.path)["verified"]["rows"] == 96


def test_of_many_rows_256_are_taken_from_all_over():
    rows = check_rows({"x": np.arange(10_000)})["x"]
    assert len(set(rows)) == 256
    assert rows.min() == 0
    assert rows.max() == 9_999


@pytest.mark.parametrize(
    "task", [None, Regression("price"), Classification(("no", "yes")), Classification((1, 2))]
)
def test_a_task_survives_its_way_through_json(task):
    assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task
