"""Speed on tables: reading and encoding, training, and from a CSV file to a published SavedModel.

    python benchmarks/table_speed.py --data=FOLDER [--only=encode,train,whole]

FOLDER holds adult.parquet, california-housing.csv.gz and covtype.parquet. Needs pandas, which
the peers read with. All is interleaved; medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = Path(__file__).resolve().parent
NUMBERS = 10  # Covertype's first columns; the others are 0 or 1.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default="encode,train,whole")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    parts = {"encode": bench_encoding, "train": bench_training, "whole": bench_whole}
    for name in arguments.only.split(","):
        parts[name](arguments.data, arguments.rounds)


def bench_encoding(data: Path, rounds: int) -> None:
    """Covertype from the file to encoded splits, by functions of one process."""
    path = data / "covtype.parquet"
    runs = {
        "kerastrain": lambda: _own_encoding(path),
        "pandas + Keras layers": lambda: _keras_encoding(path),
        "pandas + FeatureSpace": lambda: _feature_space(path),
    }
    for run in runs.values():
        run()  # imports and compiles
    seconds = _interleaved(runs, min(rounds, 3))
    print("reading and encoding Covertype, 581,012 rows")
    _show(seconds, unit="s", asked={"pandas + Keras layers": 3.0})


def _own_encoding(path: Path) -> None:
    from kerastrain.data.tables import loading
    from kerastrain.options import TrainOptions

    loading.LEAST_BYTES = 1 << 62  # Without the cache, which a second start has.
    loading.load_table_data(TrainOptions(data=str(path), target="Cover_Type"))


def _frames(path: Path):
    import pandas
    from sklearn.model_selection import train_test_split

    frame = pandas.read_parquet(path)
    target = frame.pop("Cover_Type").astype("category").cat.codes.to_numpy()
    rest, test = train_test_split(range(len(frame)), test_size=0.2, stratify=target, random_state=0)
    train, validation = train_test_split(rest, test_size=0.2, stratify=target[rest], random_state=0)
    return frame, target, (train, validation, test)


def _keras_encoding(path: Path) -> None:
    """One Normalization layer for each number, as the guide on preprocessing layers has it."""
    import keras
    import numpy as np

    frame, _, splits = _frames(path)
    names = list(frame.columns)
    layers = {}
    for name in names[:NUMBERS]:
        layers[name] = keras.layers.Normalization(axis=None)
        layers[name].adapt(frame[name].to_numpy(np.float32)[splits[0]])
    inputs = {name: keras.Input((1,), name=name) for name in names}
    encoded = [layers[name](inputs[name]) if name in layers else inputs[name] for name in names]
    encoder = keras.Model(inputs, keras.layers.Concatenate()(encoded))
    columns = {name: frame[name].to_numpy(np.float32)[:, None] for name in names}
    whole = encoder.predict(columns, batch_size=65_536, verbose=0)
    for rows in splits:
        whole[rows]


def _feature_space(path: Path) -> None:
    """keras.utils.FeatureSpace, adapted and applied in batches of 8,192."""
    import keras
    import numpy as np
    import tensorflow as tf

    frame, _, splits = _frames(path)
    names = list(frame.columns)
    kinds = {
        name: "float_normalized" if place < NUMBERS else "float" for place, name in enumerate(names)
    }
    space = keras.utils.FeatureSpace(kinds, output_mode="concat")
    columns = {name: frame[name].to_numpy(np.float32) for name in names}
    train = {name: values[splits[0]] for name, values in columns.items()}
    space.adapt(tf.data.Dataset.from_tensor_slices(train).batch(8192))
    encoded = tf.data.Dataset.from_tensor_slices(columns).batch(8192).map(space)
    whole = np.concatenate(list(encoded.as_numpy_iterator()))
    for rows in splits:
        whole[rows]


def bench_training(data: Path, rounds: int) -> None:
    """Two layers of 256 on 200,000 encoded rows of Covertype, batch 256, beside model.fit."""
    import keras
    import numpy as np
    from peers import Fit
    from throughput import TRAINING, compare

    from kerastrain.data.tables.loading import load_table_data
    from kerastrain.options import TrainOptions

    train = load_table_data(
        TrainOptions(data=str(data / "covtype.parquet"), target="Cover_Type")
    ).train
    rows = np.arange(min(200_000, len(train)))
    x, y = train.inputs["numbers"][rows], train.targets[rows]

    def model(dropout: float) -> keras.Model:
        layers = [keras.Input((x.shape[1],))]
        for _ in range(2):
            layers.append(keras.layers.Dense(256, activation="relu"))
            layers += [keras.layers.Dropout(dropout)] if dropout else []
        built = keras.Sequential([*layers, keras.layers.Dense(7)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        built.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
        return built

    for dropout, asked in ((0.1, 2.5), (0.0, 3.5)):
        compared = compare(
            model(dropout),
            x,
            y,
            peers={"fit": Fit(model(dropout), x, y, batch_size=256)},
            epochs={TRAINING: 3, "fit": 1},
            rounds=rounds,
            batch_size=256,
        )
        speeds = {name: statistics.median(values) for name, values in compared.speeds.items()}
        ratio = speeds[TRAINING] / speeds["fit"]
        print(f"training on Covertype, dropout {dropout:g}; {compared.choice}")
        for name, speed in speeds.items():
            print(f"  {name:24} {speed:12,.0f} examples/s")
        print(f"  {ratio:.2f} x fit (asked for {asked:g})", flush=True)


def bench_whole(data: Path, rounds: int) -> None:
    """Whole processes: the same network and number of epochs, from the file to a SavedModel."""
    import pyarrow.csv
    import pyarrow.parquet

    with tempfile.TemporaryDirectory() as folder:
        adult = Path(folder) / "adult.csv"
        table = pyarrow.parquet.read_table(data / "adult.parquet").drop_columns(["split"])
        pyarrow.csv.write_csv(table, adult)
        for network in ("mlp", "tabm"):
            for file, target, epochs in (
                (adult, "income", 30),
                (data / "california-housing.csv.gz", "median_house_value", 80),
            ):
                _bench_command(Path(folder), network, file, target, epochs, rounds)


def _bench_command(
    folder: Path, network: str, file: Path, target: str, epochs: int, rounds: int
) -> None:
    number = iter(range(1000))

    def own() -> None:
        _quietly(
            *(sys.executable, "-m", "kerastrain", "train", f"--recipe=tabular_{network}"),
            *(f"--data={file}", f"--target={target}", f"--max_epochs={epochs}", "--patience=1000"),
            *("--set=embedding=0", f"--workdir={folder / f'{network}-{target}-{next(number)}'}"),
        )

    def keras_program() -> None:
        place = folder / f"{network}-{target}-keras-{next(number)}"
        program = HERE / "keras_table_program.py"
        _quietly(sys.executable, str(program), str(file), target, str(epochs), str(place), network)

    seconds = _interleaved({"kerastrain": own, "Keras program": keras_program}, min(rounds, 3))
    print(f"from {file.name} to a SavedModel, {network}, {epochs} epochs, whole processes")
    _show(seconds, unit="s", asked={"Keras program": 2.0})


def _quietly(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _interleaved(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _show(seconds: dict[str, float], *, unit: str, asked: dict[str, float]) -> None:
    own = seconds["kerastrain"]
    for name, value in seconds.items():
        goal = f" (asked for {asked[name]:g})" if name in asked else ""
        print(f"  {name:24} {value:8.2f} {unit}  {value / own:.2f} x{goal}", flush=True)


if __name__ == "__main__":
    main()
