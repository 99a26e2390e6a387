"""The recipe for tables: built for classes and for numbers, trained by Keras itself."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kerastrain.data.source import Classification, Data, Examples, Regression
from kerastrain.data.tables.encoding import encode
from kerastrain.errors import OptionsError
from kerastrain.options import TrainOptions
from kerastrain.recipe import load_recipe


def resolved(**options) -> TrainOptions:
    return load_recipe("tabular").recipe.resolve(TrainOptions(recipe="tabular", **options))


def build(data, **options) -> keras.Model:
    keras.utils.set_random_seed(0)
    return load_recipe("tabular").recipe.build_model(resolved(**options), data)


def examples(targets, n=64, features=5) -> Data:
    inputs = np.random.default_rng(0).normal(size=(n, features)).astype(np.float32)
    return Examples(inputs, targets)


def prices(n=64) -> Data:
    """Prices of some thousands that depend on the first feature."""
    inputs = examples(np.zeros(n), n).inputs
    targets = (5000 + 1000 * inputs[:, :1]).astype(np.float32)
    return Data(train=Examples(inputs, targets), task=Regression("price"))


def kinds(n=64) -> Data:
    inputs = examples(np.zeros(n), n).inputs
    targets = (inputs[:, 0] > 0).astype(np.int32) + (inputs[:, 1] > 0)
    return Data(train=Examples(inputs, targets), task=Classification(("a", "b", "c")))


def test_classes_are_answered_by_float32_logits():
    model = build(kinds())
    assert model.output_shape == (None, 3) and model.output.dtype == "float32"
    assert model.output_names == ["logits"]


def test_outputs_stay_float32_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert build(kinds()).output.dtype == "float32"
        assert build(prices()).output.dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_an_untrained_regression_is_about_the_mean_of_the_target():
    data = prices()
    predicted = build(data).predict(data.train.inputs, verbose=0)
    assert predicted.shape == (64, 1)
    assert abs(predicted.mean() - data.train.targets.mean()) < 1000


def test_the_loss_is_in_variances_and_the_metrics_in_units():
    data = prices()
    metrics = build(data).evaluate(
        data.train.inputs, data.train.targets, verbose=0, return_dict=True
    )
    assert metrics["loss"] == pytest.approx(
        metrics["rmse"] ** 2 / data.train.targets.var(), rel=1e-4
    )
    assert set(metrics) == {"loss", "rmse", "mae"}


def test_it_learns_numbers_and_classes():
    for data, metric in ((prices(512), "rmse"), (kinds(512), "accuracy")):
        model = build(data, settings={"dropout": "0", "hidden": "64"})
        history = model.fit(
            data.train.inputs, data.train.targets, batch_size=64, epochs=15, verbose=0
        ).history
        if metric == "rmse":
            assert history["rmse"][-1] < 0.2 * 1000
        else:
            assert history["accuracy"][-1] > 0.9


def test_a_target_that_does_not_vary_in_training_is_no_division_by_zero():
    data = Data(train=examples(np.full((8, 1), 7.0, np.float32), 8), task=Regression("y"))
    loss = build(data).evaluate(data.train.inputs, data.train.targets, verbose=0)[0]
    assert np.isfinite(loss)


def test_settings_change_the_network():
    model = build(kinds(), settings={"hidden": "16", "layers": "3"})
    dense = [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert dense == [16, 16, 16, 3]


@pytest.mark.parametrize("bad", [{"hidden": "0"}, {"layers": "-1"}, {"dropout": "1"}])
def test_settings_that_make_no_network_are_refused(bad):
    with pytest.raises(OptionsError, match=next(iter(bad))):
        build(kinds(), settings=bad)


def test_a_real_table_goes_from_file_to_a_composed_model_that_survives_saving(real_data, tmp_path):
    path = str(real_data / "tabular" / "titanic.csv")
    options = resolved(data=path, target="Survived", settings={"hidden": "32"})
    recipe = load_recipe("tabular").recipe
    data = recipe.load_data(options)
    model = recipe.build_model(options, data)
    model.fit(*data.train.structure(), batch_size=64, epochs=3, verbose=0)
    full = keras.Model(data.encoder.inputs, model(data.encoder(data.encoder.inputs)))
    full.save(tmp_path / "full.keras")
    loaded = keras.models.load_model(tmp_path / "full.keras")
    rows = {name: keras.ops.convert_to_tensor(rows) for name, rows in data.test_rows.items()}
    expected = model(encode(data.encoder, data.test_rows))
    np.testing.assert_allclose(loaded(rows), expected, atol=1e-5)
    np.testing.assert_allclose(model(data.test.inputs), expected, atol=1e-5)
