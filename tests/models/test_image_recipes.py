"""The shipped recipes for images and for xor: cheap to load, built right, good enough."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from kerastrain.data.source import Classification, Data, Examples
from kerastrain.errors import OptionsError
from kerastrain.options import TrainOptions
from kerastrain.recipe import load_recipe
from kerastrain.schedules import parse_schedule

IMAGE_RECIPES = ("digits", "mnist_mlp", "mnist_cnn")


def resolved(name, **options):
    return load_recipe(name).recipe.resolve(TrainOptions(recipe=name, **options))


def build(name, data, **options):
    chosen = resolved(name, **options)
    keras.utils.set_random_seed(chosen.seed)
    return load_recipe(name).recipe.build_model(chosen, data)


def random_images(name, n=20):
    size = (8, 8) if name == "digits" else (28, 28)
    images = np.random.default_rng(0).integers(0, 17, (n, *size), dtype=np.uint8)
    examples = Examples(images, np.arange(n, dtype=np.int32) % 10)
    return Data(train=examples, task=Classification(tuple(range(10))))


def fit(name, *, epochs=None, **options):
    """Trains by Keras itself; returns the accuracy on the test split."""
    chosen = resolved(name, **options)
    data = load_recipe(name).recipe.load_data(chosen)
    model = build(name, data, **options)
    steps = -(-len(data.train) // chosen.batch_size)
    # Keras's overhead for a call of its train function is many times a step of these networks.
    model.steps_per_execution = steps
    model.fit(
        data.train.inputs,
        data.train.targets,
        batch_size=chosen.batch_size,
        epochs=epochs or chosen.max_epochs,
        verbose=0,
    )
    predicted = model.predict(data.test.inputs, batch_size=1000, verbose=0).argmax(-1)
    return float((predicted == data.test.targets).mean())


def test_loading_a_recipe_takes_no_tensorflow():
    program = (
        "import sys\n"
        "from kerastrain.recipe import load_recipe, shipped_recipes\n"
        "for name in shipped_recipes(): load_recipe(name)\n"
        "print(sorted({'tensorflow', 'keras', 'sklearn', 'pyarrow'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", IMAGE_RECIPES)
def test_images_go_in_as_bytes_and_float32_logits_come_out(name, precision):
    data = random_images(name)
    keras.config.set_dtype_policy(precision)
    try:
        model = build(name, data)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.compiled
    assert (model.inputs[0].name, model.inputs[0].dtype) == ("image", "uint8")
    assert model.output_names == ["logits"]
    logits = model(data.train.inputs)
    assert (logits.dtype, logits.shape) == ("float32", (20, 10))


SETTINGS = {
    "digits": {"hidden": "7", "dropout": "0.11"},
    "mnist_mlp": {"hidden": "7", "dropout": "0.11"},
    "mnist_cnn": {"filters": "3", "hidden": "7", "dropout": "0.11"},
    "xor": {"hidden": "3"},
}


@pytest.mark.parametrize(
    ("name", "setting"), [(name, setting) for name in SETTINGS for setting in SETTINGS[name]]
)
def test_every_setting_changes_the_model(name, setting):
    data = random_images(name) if name != "xor" else load_recipe("xor").recipe.load_data(None)

    def described(model):
        return json.dumps([model.get_config(), model.optimizer.get_config()], default=str)

    changed = build(name, data, settings={setting: SETTINGS[name][setting]})
    assert described(changed) != described(build(name, data))


@pytest.mark.parametrize(
    ("name", "optimizer", "schedule"),
    [
        ("mnist_mlp", "adamw(weight_decay=0.1)", "exponential(rate=0.9)"),
        ("mnist_cnn", None, "exponential(rate=0.85)"),
    ],
)
def test_optimizer_and_schedule_are_options_that_the_user_can_replace(name, optimizer, schedule):
    assert (resolved(name).optimizer, parse_schedule(resolved(name).schedule)) == (
        optimizer,
        parse_schedule(schedule),
    )
    assert resolved(name, optimizer="sgd", schedule="constant").schedule == "constant"


def test_the_optimizer_is_the_one_asked_for():
    model = build("mnist_mlp", random_images("mnist_mlp"), optimizer="sgd")
    assert isinstance(model.optimizer, keras.optimizers.SGD)


def test_fashion_mnist_is_a_setting_of_the_mnist_recipes(real_data):
    options = resolved(
        "mnist_cnn",
        data_dir=str(real_data / "fashion_mnist"),
        settings={"dataset": "fashion_mnist"},
    )
    data = load_recipe("mnist_cnn").recipe.load_data(options)
    assert data.task.classes[0] == "T-shirt/top"


def test_a_data_set_that_does_not_exist_is_refused():
    with pytest.raises(OptionsError, match="Did you mean 'mnist'"):
        load_recipe("mnist_mlp").recipe.load_data(
            resolved("mnist_mlp", settings={"dataset": "mnst"})
        )


@pytest.mark.parametrize("seed", range(4))
def test_xor_is_learned_whole_from_any_seed(seed):
    data = load_recipe("xor").recipe.load_data(resolved("xor"))
    model = build("xor", data, seed=seed)
    # One batch of all four rows is an epoch; `fit` would spend seconds around each.
    for _ in range(resolved("xor").max_epochs):
        model.train_on_batch(data.train.inputs, data.train.targets)
    assert model.predict(data.test.inputs, verbose=0).argmax(-1).tolist() == [0, 1, 1, 0]


def test_digits_are_learned_to_97_percent():
    assert fit("digits") >= 0.97


def test_an_epoch_of_the_mlp_on_mnist_reaches_94_percent(real_data):
    assert fit("mnist_mlp", epochs=1, data_dir=str(real_data / "mnist")) >= 0.94


@pytest.mark.slow
@pytest.mark.parametrize(("name", "accuracy"), [("mnist_mlp", 0.980), ("mnist_cnn", 0.992)])
def test_mnist_is_learned_as_well_as_the_recipe_says(name, accuracy, real_data, run_kerastrain):
    folder = real_data / "mnist"
    done = run_kerastrain("train", f"--recipe={name}", f"--data_dir={folder}", "--workdir=run")
    assert done.returncode == 0, done.stderr
    measured = run_kerastrain("evaluate", "--workdir=run", "--json")
    assert json.loads(measured.stdout)["metrics"]["accuracy"] >= accuracy
