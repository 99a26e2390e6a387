"""The numbers that this package promises, measured against what a user would run instead.

    make bench                                            # all, about five minutes
    python benchmarks/run.py --only=mlp --data_dir=DIR    # one; MNIST's files are in DIR

Everything is interleaved in one process; medians. On a busy machine the ratios
are rough: close other programs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from throughput import Compared

HERE = Path(__file__).resolve().parent
SHARED_MNIST = HERE.parent.parent / "shared" / "data" / "mnist"
CONSOLE = Console()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, help="folder with mnist.npz")
    parser.add_argument("--only", choices=list(BENCHMARKS), action="append")
    parser.add_argument("--rounds", type=int, help="turns of each peer (default: 8 mlp, 6 cnn)")
    options = parser.parse_args(arguments)
    x, y = load_images(options.data_dir)
    for name in options.only or BENCHMARKS:
        BENCHMARKS[name](x, y, options.rounds)


def load_images(data_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's training images, float32 [n, 28, 28, 1] in 0 to 1, and labels int32 [n]."""
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"
    for folder in [data_dir] if data_dir else [SHARED_MNIST, cache]:
        path = folder / "mnist.npz"
        if path.is_file():
            CONSOLE.print(f"MNIST from {path}")
            with np.load(path) as arrays:
                return _scaled(arrays["x_train"], 255), arrays["y_train"].astype(np.int32)
    if data_dir:
        sys.exit(f"There is no mnist.npz in {data_dir}.")
    CONSOLE.print(
        "[bold]MNIST was not found[/] (--data_dir, Keras's cache): the digits of scikit-learn, "
        "enlarged and repeated, take its place. Speeds compare; nothing is learned from it."
    )
    return _enlarged_digits()


def _enlarged_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.pad(np.kron(digits.images, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))
    rows = np.arange(60_000) % len(images)
    return _scaled(images[rows], 16), digits.target[rows].astype(np.int32)


def _scaled(images: np.ndarray, maximum: int) -> np.ndarray:
    return (images / maximum).astype(np.float32)[..., np.newaxis]


def bench_mlp(x: np.ndarray, y: np.ndarray, rounds: int | None) -> None:
    from peers import BareLoop, Fit, mlp
    from throughput import compare

    flat = x.reshape(len(x), -1)
    peers = {"model.fit": Fit(mlp(), flat, y), "bare XLA loop": BareLoop(mlp(), flat, y, jit=True)}
    epochs = {"kerastrain": 4, "model.fit": 1, "bare XLA loop": 4}
    compared = compare(mlp(), flat, y, peers=peers, epochs=epochs, rounds=rounds or 8)
    show_speeds("MNIST MLP 784-128-10", compared, targets={"model.fit": 5.0, "bare XLA loop": 0.9})


def bench_cnn(x: np.ndarray, y: np.ndarray, rounds: int | None) -> None:
    from peers import BareLoop, Fit, cnn
    from throughput import compare

    # A fifth of an epoch: enough for a turn of two seconds.
    x, y = x[:12_000], y[:12_000]
    peers = {
        "model.fit": Fit(cnn(), x, y),
        "bare loop without XLA": BareLoop(cnn(), x, y, jit=False),
    }
    epochs = {"kerastrain": 1, **dict.fromkeys(peers, 1)}
    compared = compare(cnn(), x, y, peers=peers, epochs=epochs, rounds=rounds or 8)
    show_speeds("MNIST CNN 32-64, float32", compared, targets={"model.fit": 1.25})


def bench_saving(x: np.ndarray, y: np.ndarray, rounds: int | None) -> None:
    from peers import mlp
    from saving import measure

    cost = measure(mlp, x.reshape(len(x), -1), y, epochs=100, pairs=rounds or 2)
    title = "Saving every 30 s (MLP, with Adam's state)"
    table = Table("", "a save", "of 30 s", "target", title=title)
    for name, seconds in (
        (f"holds the training up (median of {cost.saves})", cost.blocked_seconds),
        ("end to end: with saves against without", cost.end_to_end_seconds),
    ):
        share = seconds / 30
        table.add_row(name, f"{seconds * 1000:.0f} ms", f"{share:.2%}", _target("<", 0.02, share))
    CONSOLE.print(table)


def bench_repeat(x: np.ndarray, y: np.ndarray, rounds: int | None) -> None:
    from repeat import repeat_seconds

    seconds = statistics.median(repeat_seconds(times=rounds or 3))
    table = Table("", "seconds", "target", title="A finished command, given again")
    table.add_row("kerastrain train --recipe=digits", f"{seconds:.2f}", _target("<", 5, seconds))
    CONSOLE.print(table)


def show_speeds(title: str, compared: Compared, *, targets: dict[str, float]) -> None:
    """A row for each; the ratio is the median over rounds of ours to theirs in that round."""
    table = Table("", "examples/s", "lowest", "highest", "kerastrain is", "target", title=title)
    ours = compared.speeds["kerastrain"]
    for name, values in compared.speeds.items():
        ratio = statistics.median(our / their for our, their in zip(ours, values, strict=True))
        target = _target(">=", targets[name], ratio) if name in targets else ""
        numbers = (statistics.median(values), min(values), max(values))
        shown = "" if name == "kerastrain" else f"{ratio:.2f} x"
        table.add_row(name, *(f"{number:,.0f}" for number in numbers), shown, target)
    CONSOLE.print(table, f"kerastrain ran the steps {compared.choice}.\n")


def _target(sign: str, limit: float, value: float) -> str:
    met = value >= limit if sign == ">=" else value < limit
    shown = f"{limit:.0%}" if limit < 0.1 else f"{limit:g}"
    return f"{sign} {shown} [{'green' if met else 'red'}]{'met' if met else 'MISSED'}[/]"


BENCHMARKS: dict[str, Callable[[np.ndarray, np.ndarray, int | None], None]] = {
    "mlp": bench_mlp,
    "cnn": bench_cnn,
    "saving": bench_saving,
    "repeat": bench_repeat,
}

if __name__ == "__main__":
    main()
