"""The recipes for tables: built for any columns and task, trained by Keras itself, saved whole."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import zipfile

import keras
import numpy as np
import pytest

from kerastrain.data.source import Data
from kerastrain.data.tables.loading import load_table_data
from kerastrain.errors import OptionsError
from kerastrain.networks.ensemble import Ensemble
from kerastrain.options import TableOptions, TrainOptions
from kerastrain.recipe import load_recipe, shipped_recipes

RECIPES = (
    "tabular",
    "tabular_dcn",
    "tabular_linear",
    "tabular_mlp",
    "tabular_resnet",
    "tabular_tabm",
    "tabular_wide_deep",
)
N = 640
RANDOM = np.random.default_rng(0)
SIZE = RANDOM.normal(size=N).round(3)
AGE = RANDOM.integers(0, 30, N)
CITY = RANDOM.integers(0, 3, N)
VALUE = SIZE + np.array([-1.0, 0.0, 1.0])[CITY]
COLUMNS = {
    "size": SIZE,
    "age": ["" if row % 9 == 0 else age for row, age in enumerate(AGE)],
    "city": np.array(["Bern", "Rom", "Ulm"])[CITY],
    "land": np.array(["x", "y", ""])[RANDOM.integers(0, 3, N)],
}
TARGETS = {
    "classes": np.where(VALUE < -0.7, "low", np.where(VALUE < 0.7, "middle", "high")),
    "yes or no": np.where(VALUE > 0, "yes", "no"),
    "number": (5000 + 1000 * VALUE).round(2),
    "quantiles": (5000 + 1000 * VALUE).round(2),
}
USED = {
    "both": ("size", "age", "city", "land"),
    "numbers": ("size", "age"),
    "categories": ("city", "land"),
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """{(columns, target): Data}, made when they are asked for."""
    folder, loaded = tmp_path_factory.mktemp("tables"), {}

    def table(used="both", target="classes") -> Data:
        if (used, target) not in loaded:
            columns = {name: COLUMNS[name] for name in USED[used]} | {"y": TARGETS[target]}
            rows = zip(*columns.values(), strict=True)
            lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
            path = folder / f"{used} {target}.csv"
            path.write_text("\n".join(lines))
            quantiles = (0.1, 0.5, 0.9) if target == "quantiles" else ()
            options = TrainOptions(
                data=str(path), target="y", table=TableOptions(quantiles=quantiles)
            )
            loaded[used, target] = load_table_data(options)
        return loaded[used, target]

    return table


def resolved(name, **options) -> TrainOptions:
    return load_recipe(name).recipe.resolve(TrainOptions(recipe=name, **options))


def build(name, data, **options) -> keras.Model:
    keras.utils.set_random_seed(0)
    return load_recipe(name).recipe.build_model(resolved(name, **options), data)


def test_these_are_the_shipped_recipes_for_tables():
    assert tuple(name for name in shipped_recipes() if name.startswith("tabular")) == RECIPES


@pytest.mark.parametrize(
    ("used", "target"),
    [
        ("both", "classes"),
        ("both", "quantiles"),
        ("numbers", "number"),
        ("categories", "yes or no"),
        ("categories", "quantiles"),
    ],
)
@pytest.mark.parametrize("name", RECIPES)
def test_any_columns_and_any_task_make_a_compiled_model(tables, name, used, target):
    data = tables(used, target)
    model = build(name, data)
    assert model.compiled
    outputs = {"classes": 3, "yes or no": 2, "number": 1, "quantiles": 3}[target]
    first = {key: values[:5] for key, values in data.train.inputs.items()}
    predicted = model(first)
    assert predicted.shape == (5, outputs) and predicted.dtype == "float32"
    assert np.isfinite(predicted).all()


# Small networks, so that the test is fast; as the defaults otherwise.
SMALL = {
    "tabular": {},
    "tabular_dcn": {"hidden": "64"},
    "tabular_linear": {},
    "tabular_mlp": {"hidden": "64"},
    "tabular_resnet": {"width": "32", "blocks": "2"},
    "tabular_tabm": {"hidden": "64", "members": "4"},
    "tabular_wide_deep": {"hidden": "64"},
}


# Straight lines take longer, and so do the moving averages of batch normalisation.
STEPS = {"tabular": 30, "tabular_linear": 150, "tabular_resnet": 250}


def fitted(name, data, *, steps=60):
    """Trains on all rows at once; returns the model and its answers for the test rows."""
    model = build(name, data, learning_rate=0.02, settings=SMALL[name])
    model.jit_compile = False  # To compile would take longer than to train.
    for _ in range(STEPS.get(name, steps)):
        model.train_on_batch(data.train.inputs, data.train.targets)
    return model, keras.ops.convert_to_numpy(model(data.test.inputs))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_learns_classes(tables, name):
    data = tables(target="classes")
    _, logits = fitted(name, data)
    assert (logits.argmax(axis=1) == data.test.targets).mean() > 0.85


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "tabular"])
def test_every_recipe_learns_a_number(tables, name):
    data = tables(target="number")
    _, predicted = fitted(name, data)
    error = np.sqrt(((predicted - data.test.targets) ** 2).mean())
    assert error < 0.5 * data.test.targets.std()  # From one column alone it would be 0.63.


@pytest.mark.parametrize("name", ["tabular_mlp", "tabular_tabm"])
def test_quantiles_hold_about_their_shares(tables, name):
    data = tables("categories", "quantiles")
    model, _ = fitted(name, data, steps=100)
    shares = (data.train.targets < model(data.train.inputs).numpy()).mean(axis=0)
    np.testing.assert_allclose(shares, [0.1, 0.5, 0.9], atol=0.08)


# Settings.


def described(model) -> str:
    parts = [model.members if isinstance(model, Ensemble) else model, model.optimizer]
    return json.dumps([part.get_config() for part in parts], default=str)


EVERY_SETTING = [
    (name, setting)
    for name in RECIPES
    for setting in load_recipe(name).recipe.settings
    if setting not in ("numbers", "network")
]
OTHER = {"dropout": "0.33", "embedding": "3", "buckets": "7"}


@pytest.fixture(scope="module")
def default(tables):
    """A recipe's network as it is without settings, described."""
    return functools.cache(lambda name: described(build(name, tables())))


@pytest.mark.parametrize(("name", "setting"), EVERY_SETTING)
def test_every_setting_changes_the_network(tables, default, name, setting):
    changed = build(name, tables(), settings={setting: OTHER.get(setting, "1")})
    assert described(changed) != default(name)


@pytest.mark.parametrize(("name", "setting"), EVERY_SETTING)
def test_a_setting_out_of_range_is_refused_by_its_name(tables, name, setting):
    bad = "1" if setting == "dropout" else "-1"
    with pytest.raises(OptionsError, match=rf"{setting}=-?{bad.strip('-')}.*expected"):
        build(name, tables(), settings={setting: bad})


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "tabular"])
def test_the_scaling_of_numbers_is_a_setting(tables, name):
    table = tables().description["source"]

    def load(scaling):
        options = resolved(name, data=table, target="y", settings={"numbers": scaling})
        return load_recipe(name).recipe.load_data(options)

    with pytest.raises(OptionsError, match="numbers=log; expected one of standard, quantiles"):
        load("log")
    if name == "tabular_linear":
        standard, quantiles = (load(scaling).train.inputs for scaling in ("standard", "quantiles"))
        assert not np.allclose(standard["numbers"], quantiles["numbers"])


# The default.


def test_the_default_says_which_network_it_takes(tables, caplog, monkeypatch):
    data = tables()
    with caplog.at_level(logging.INFO, logger="kerastrain"):
        model = build("tabular", data)
    assert isinstance(model, Ensemble)
    assert f"For {len(data.train):,} training rows the network is tabm" in caplog.text
    assert not isinstance(build("tabular", data, settings={"network": "mlp"}), Ensemble)
    with pytest.raises(OptionsError, match="network=forest; expected one of auto, tabm, mlp"):
        build("tabular", data, settings={"network": "forest"})


def test_the_default_takes_another_network_for_many_rows(tables, caplog):
    data = tables()
    recipe = load_recipe("tabular").recipe
    recipe.build_model.__globals__["MANY_ROWS"] = len(data.train) - 1
    with caplog.at_level(logging.INFO, logger="kerastrain"):
        model = recipe.build_model(resolved("tabular"), data)
    assert not isinstance(model, Ensemble) and "the network is mlp" in caplog.text


# What is published: see test_published_recipes.py.


def test_a_keras_file_that_holds_the_ensemble_itself_still_loads(tables, tmp_path):
    """As version 0.1.0 exported them."""
    data = tables("both", "classes")
    model = build("tabular_tabm", data, settings=SMALL["tabular_tabm"])
    inputs = {tensor.name: tensor for tensor in data.encoder.inputs}
    keras.Model(inputs, model(data.encoder(inputs))).save(tmp_path / "model.keras")
    assert b"kerastrain>Ensemble" in zipfile.ZipFile(tmp_path / "model.keras").read("config.json")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    rows = {name: keras.ops.convert_to_tensor(values) for name, values in data.test_rows.items()}
    np.testing.assert_allclose(loaded(rows), model(data.test.inputs), atol=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_answers_are_float32_whatever_the_precision(tables, name):
    data = tables("both", "classes")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(name, data)
        answer = model({key: values[:5] for key, values in data.train.inputs.items()})
    finally:
        keras.config.set_dtype_policy("float32")
    assert answer.dtype == "float32"


def test_targets_of_any_size_have_a_finite_loss(tables):
    data = tables("numbers", "number")
    columns = dataclasses.replace(data.columns, target_mean=1e25, target_deviation=1e25)
    model = build("tabular_mlp", dataclasses.replace(data, columns=columns))
    targets = data.train.targets * np.float32(1e21)
    assert np.isfinite(model.evaluate(data.train.inputs, targets, verbose=0)[0])
