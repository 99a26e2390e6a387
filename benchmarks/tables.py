"""Accuracy on tables: kerastrain's networks beside scikit-learn's, on the same splits.

    python benchmarks/tables.py --data=FOLDER [--seeds=5] [--only=adult,housing,covertype]
        [--recipes=tabular,tabular_mlp] [--workdir=runs/benchmark-tables]

FOLDER holds adult.parquet, california-housing.csv.gz and covtype.parquet. Each network is trained
by the command line, as a user would, with its defaults; the test split is asked once, by the
export. Run again, what is finished is taken from its work directory.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, root_mean_squared_error
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from kerastrain.data.source import Classification
from kerastrain.data.tables.columns import raw_rows
from kerastrain.data.tables.table import Loaded, load_table
from kerastrain.options import TableOptions, TrainOptions


@dataclass(frozen=True)
class Task:
    """A table, what is predicted, and the metric on its test split."""

    file: str
    target: str
    metric: str
    asked: float
    flags: tuple[str, ...] = ()
    table: TableOptions = field(default_factory=TableOptions)

    def options(self, folder: Path, seed: int) -> TrainOptions:
        return TrainOptions(
            data=str(folder / self.file), target=self.target, seed=seed, table=self.table
        )


# adult.parquet holds the publisher's own split in a column, which is no feature.
SPLIT = ("split",)
TASKS = {
    "adult": Task(
        "adult.parquet",
        "income",
        "accuracy",
        0.857,
        ("--ignore_columns=split",),
        TableOptions(ignore_columns=SPLIT),
    ),
    "adult-official": Task(
        "adult.parquet",
        "income",
        "accuracy",
        0.856,
        ("--split_column=split",),
        TableOptions(split_column="split"),
    ),
    "housing": Task("california-housing.csv.gz", "median_house_value", "rmse", 50_000),
    "covertype": Task("covtype.parquet", "Cover_Type", "accuracy", 0.965),
}


def trained(name: str, recipe: str, arguments: argparse.Namespace, seed: int) -> float:
    """The test metric of a run of the command, done or taken up again."""
    task = TASKS[name]
    workdir = arguments.workdir / name / f"{recipe}-{seed}"
    command = [sys.executable, "-m", "kerastrain", "train", f"--recipe={recipe}"]
    command += [f"--data={arguments.data / task.file}", f"--target={task.target}"]
    command += [f"--workdir={workdir}", f"--seed={seed}", *task.flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads((workdir / "result.json").read_text())["metrics"][task.metric]


def boosted(loaded: Loaded, rows: dict[str, np.ndarray], seed: int, **settings: Any) -> float:
    """HistGradientBoosting: 1,000 rounds at the most, stopped early by a tenth of the rows."""
    is_class = isinstance(loaded.schema.task, Classification)
    kind = HistGradientBoostingClassifier if is_class else HistGradientBoostingRegressor
    texts = [n for n, values in rows.items() if values.dtype == object]
    numbers = [n for n in rows if n not in texts]
    columns = [rows[name].astype(np.float64) for name in numbers]
    if texts:
        coded = OrdinalEncoder(max_categories=250).fit_transform(
            np.stack([rows[name] for name in texts], axis=1)
        )
        columns += list(coded.T)
    model = kind(
        **({"max_iter": 1000, "early_stopping": True} | settings),
        random_state=seed,
        categorical_features=list(range(len(numbers), len(columns))) or None,
    )
    return _scored(model, np.stack(columns, axis=1), loaded)


def perceptron(loaded: Loaded, rows: dict[str, np.ndarray], seed: int) -> float:
    """MLPClassifier or -Regressor, two layers of 256, stopped early, on standardised numbers."""
    is_class = isinstance(loaded.schema.task, Classification)
    kind = MLPClassifier if is_class else MLPRegressor
    texts = [n for n, values in rows.items() if values.dtype == object]
    numbers = [n for n in rows if n not in texts]
    table = np.empty((len(loaded.targets), len(rows)), object)
    for place, name in enumerate([*numbers, *texts]):
        table[:, place] = rows[name]
    encoded = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), list(range(len(numbers)))),
        (OneHotEncoder(handle_unknown="ignore"), list(range(len(numbers), len(rows)))),
        sparse_threshold=0,
    )
    encoded.fit(table[loaded.splits["train"]])
    network = kind(
        hidden_layer_sizes=(256, 256),
        batch_size=256,
        early_stopping=True,
        random_state=seed,
        max_iter=100,
    )
    return _scored(network, encoded.transform(table).astype(np.float32), loaded)


def _scored(model: object, inputs: np.ndarray, loaded: Loaded) -> float:
    """Fitted on training and validation rows: scikit-learn holds rows out by itself."""
    fitted = np.concatenate([loaded.splits["train"], loaded.splits["validation"]])
    targets, test = loaded.targets.ravel(), loaded.splits["test"]
    if isinstance(loaded.schema.task, Classification):
        model.fit(inputs[fitted], targets[fitted])
        return accuracy_score(targets[test], model.predict(inputs[test]))
    # Standardised, as a network needs it.
    mean, deviation = targets[fitted].mean(), targets[fitted].std()
    model.fit(inputs[fitted], (targets[fitted] - mean) / deviation)
    return root_mean_squared_error(targets[test], model.predict(inputs[test]) * deviation + mean)


# On Covertype early stopping ends the boosting within some rounds, far from its best.
LARGE = {"max_iter": 300, "early_stopping": False, "max_leaf_nodes": 255, "learning_rate": 0.05}
PEERS: dict[str, Callable[[Loaded, dict[str, np.ndarray], int], float]] = {
    "HistGradientBoosting": boosted,
    "HistGradientBoosting with 255 leaves": functools.partial(boosted, **LARGE),
    "MLP of scikit-learn": perceptron,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--recipes", default="tabular,tabular_mlp")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--workdir", type=Path, default=Path("runs/benchmark-tables"))
    arguments = parser.parse_args()
    for name in arguments.only.split(","):
        task = TASKS[name]
        print(f"{name}: test {task.metric}, asked for {task.asked:g}", flush=True)
        for recipe in filter(None, arguments.recipes.split(",")):
            _measure(recipe, functools.partial(trained, name, recipe, arguments), arguments)
        for peer in filter(None, arguments.peers.split(",")):
            _measure(peer, functools.partial(_peer, peer, task, arguments), arguments)


def _peer(peer: str, task: Task, arguments: argparse.Namespace, seed: int) -> float:
    loaded = load_table(task.options(arguments.data, seed))
    return PEERS[peer](loaded, raw_rows(loaded.table, loaded.schema), seed)


def _measure(label: str, run: Callable[[int], float], arguments: argparse.Namespace) -> None:
    began, values = time.monotonic(), []
    for seed in range(arguments.seeds):
        values.append(run(seed))
    spread = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    seconds = (time.monotonic() - began) / len(values)
    each = " ".join(f"{value:.5g}" for value in values)
    print(
        f"  {label:36} {np.mean(values):.5g} ± {spread:.2g}  ({each}; {seconds:.0f} s)", flush=True
    )


if __name__ == "__main__":
    main()
