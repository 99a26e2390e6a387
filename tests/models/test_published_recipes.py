"""Keras's files of every shipped recipe, loaded where this package is not."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap

import keras
import numpy as np

from kerastrain.data.source import Classification, Data, Examples
from kerastrain.data.tables.loading import load_table_data
from kerastrain.export.comparison import storable
from kerastrain.export.formats import keras_files
from kerastrain.export.rows import as_tensors, raw_rows
from kerastrain.export.serving import ServedModel
from kerastrain.options import TableOptions, TrainOptions
from kerastrain.recipe import load_recipe, shipped_recipes

N = 400
RANDOM = np.random.default_rng(0)
SIZE = RANDOM.normal(size=N).round(3)
COLUMNS = {
    "size": SIZE,
    "hours-per-week": ["" if row % 9 == 0 else row % 60 for row in range(N)],
    "Ort/Stadt": RANDOM.choice(["Bern", "Köln", ""], N),
    "street": [f"street {row % 70}" for row in range(N)],  # too many for one feature each
    "born": [f"19{40 + row % 50}-0{1 + row % 9}-11" for row in range(N)],
    "weight": RANDOM.random(N).round(3) + 0.1,
}
TARGETS = {
    "classes": np.where(SIZE < -0.7, "low", np.where(SIZE < 0.7, "middle", "high")),
    "number": 5000 + 1000 * SIZE,
    "quantiles": 5000 + 1000 * SIZE,
}
# Each recipe once, and the ensemble with all that it averages.
TASKS = {
    "digits": "",
    "mnist_cnn": "",
    "mnist_mlp": "",
    "tabular": "classes",
    "tabular_dcn": "number",
    "tabular_linear": "quantiles",
    "tabular_mlp": "classes",
    "tabular_resnet": "number",
    "tabular_tabm": "quantiles",
    "tabular_wide_deep": "classes",
    "xor": "",
}
SCRIPT = """
    import sys
    from pathlib import Path
    sys.modules["kerastrain"] = None  # by which Python refuses to import it
    import keras, numpy as np, tensorflow as tf

    for folder in map(Path, sys.argv[1:]):
        for name, inputs in (("model.keras", "rows"), ("model.h5", "features")):
            model = keras.saving.load_model(folder / name)
            stored = np.load(folder / f"{inputs}.npz")
            asked = {name: tf.constant(stored[name]) for name in stored}
            answers = model(asked if len(model.inputs) > 1 else next(iter(asked.values())))
            expected = np.load(folder / "answers.npy")
            np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-5, err_msg=str(folder))
    print("all")
"""


def numbers_data(name) -> Data:
    """Of images, or of xor's two numbers."""
    shape = {"xor": (2,), "digits": (8, 8)}.get(name, (28, 28))
    inputs = RANDOM.integers(0, 17, (40, *shape)).astype("float32" if name == "xor" else "uint8")
    classes = 2 if name == "xor" else 10
    examples = Examples(inputs, np.arange(40, dtype=np.int32) % classes)
    return Data(train=examples, task=Classification(tuple(range(classes))))


@functools.cache
def table_data(target, folder) -> Data:
    columns = COLUMNS | {"y": TARGETS[target]}
    rows = zip(*columns.values(), strict=True)
    path = folder / f"{target}.csv"
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]))
    quantiles = (0.1, 0.5, 0.9) if target == "quantiles" else ()
    table = TableOptions(quantiles=quantiles, weights="weight")
    return load_table_data(TrainOptions(data=str(path), target="y", table=table))


def write_files(name, folder):
    """The files of the recipe's model, the rows that each takes, and the live model's answers."""
    folder.mkdir()
    recipe, target = load_recipe(name).recipe, TASKS[name]
    data = table_data(target, folder.parent) if target else numbers_data(name)
    model = recipe.build_model(recipe.resolve(TrainOptions(recipe=name)), data)
    served = ServedModel.of(model, data)
    served.save_keras(folder / "model.keras")
    keras_files.make(served, "h5", folder / "model.h5")
    rows = {n: array[:40] for n, array in raw_rows(data, served.inputs).items()}
    tensors = as_tensors(rows, served.inputs)
    features = served.encode(tensors) if served.encoder else tensors
    np.savez(folder / "rows.npz", **{n: storable(array) for n, array in rows.items()})
    np.savez(folder / "features.npz", **{n: tensor.numpy() for n, tensor in features.items()})
    np.save(folder / "answers.npy", served.raw_outputs(rows))


def test_every_recipes_keras_files_answer_alike_where_this_package_cannot_be_imported(tmp_path):
    assert tuple(TASKS) == tuple(shipped_recipes())
    keras.utils.set_random_seed(0)
    for name in TASKS:
        write_files(name, tmp_path / name)
    command = [sys.executable, "-I", "-c", textwrap.dedent(SCRIPT)]
    done = subprocess.run(
        [*command, *(tmp_path / name for name in TASKS)], capture_output=True, text=True
    )
    assert done.stdout == "all\n", done.stderr
