"""Pictures, by matplotlib: an extra (`pip install 'kerastrain[plot]'`).

    draw_replay([("runs/a", "gl(2)", outcome), …], Path("replay.png"))
    draw_range_test(range_test, Path("rates.png"), title="digits")
    draw_confusion(evaluation.confusion, Path("confusion.png"))    # and draw_calibration, …

matplotlib is imported when something is drawn. Figures are made without pyplot, so that
nothing of a program's own plotting changes.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from kerastrain.errors import UsageError, WorkdirError
from kerastrain.training.stopping import Outcome
from kerastrain.workdir import check_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kerastrain.export.evaluation import Calibration, Confusion
    from kerastrain.export.importance import Importance
    from kerastrain.export.scoring import Predicted
    from kerastrain.training.range_test import RangeTest

SUFFIXES = (".png", ".svg", ".pdf")
# A file by its path (PNG, SVG or PDF, by its ending), or an open one, which becomes a PNG.
Place = Path | IO[bytes]
# More points than this become a black patch, and a slow one.
MAX_POINTS = 5000
MAX_BARS = 40


def has_matplotlib() -> bool:
    """Whether it is installed; it is not imported."""
    return importlib.util.find_spec("matplotlib") is not None


def check_can_draw(path: Path) -> None:
    """Raises UsageError unless a picture can be drawn into this file."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--plot is '{path}'; expected a file name that ends in {', '.join(SUFFIXES)}."
        )
    check_file(path, flag="plot")
    if not has_matplotlib():
        raise UsageError(
            "--plot needs matplotlib, which is not installed: pip install 'kerastrain[plot]'."
        )


def draw_replay(replayed: Sequence[tuple[str, str, Outcome]], path: Path) -> None:
    """The objective of each run over its steps, and where each rule stops.

    Args:
        replayed: (run, rule, what it did), all of one run together.
        path: PNG, SVG or PDF, by its ending.
    """
    from matplotlib.figure import Figure

    runs = list(dict.fromkeys(run for run, _, _ in replayed))
    figure = Figure(figsize=(9, 4.2 * len(runs)), layout="constrained")
    for position, run in enumerate(runs, start=1):
        axes = figure.add_subplot(len(runs), 1, position)
        _draw_run(axes, run, [(rule, found) for name, rule, found in replayed if name == run])
    _save(figure, path, dpi=150)


def draw_range_test(found: RangeTest, path: Path, *, title: str) -> None:
    """The losses of a learning-rate range test, smoothed and not, and the suggested rate.

    Args:
        path: PNG, SVG or PDF, by its ending.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogx(found.rates, found.losses, color="0.75", lw=0.8, label="of each batch")
    axes.semilogx(found.rates, found.smoothed, color="0.2", lw=1.6, label="smoothed")
    if found.suggestion is not None:
        label = f"suggested: {found.suggestion:g}"
        axes.axvline(found.suggestion, color="tab:red", ls="--", label=label)
    axes.set(title=title, xlabel="learning rate", ylabel="training loss")
    _fit_to_values(axes, found.smoothed)
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    _save(figure, path, dpi=150)


def draw_confusion(confusion: Confusion, place: Place) -> None:
    """The confusion matrix; colours are shares of the true class, numbers are rows."""
    from matplotlib.figure import Figure

    count = len(confusion.classes)
    side = min(12.0, 2.6 + 0.5 * count)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    shares = confusion.counts / np.maximum(confusion.counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(title="confusion", xlabel="predicted", ylabel="true")
    if count <= 20:
        names = [_shortened(name, 14) for name in confusion.classes]
        is_long = max(map(len, names)) * count > 45
        axes.set_xticks(range(count), names, rotation=45 if is_long else 0)
        if is_long:
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), names)
        for (row, column), rows in np.ndenumerate(confusion.counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{rows:,}", ha="center", va="center", size=8, color=colour)
    _save(figure, place, dpi=120)


def draw_calibration(calibration: Calibration, place: Place) -> None:
    """A reliability diagram (Guo et al. 2017, fig. 1) above the number of rows in each bin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    bins = calibration.bins
    axes.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1, label="calibrated")
    axes.plot([b.mean for b in bins], [b.share for b in bins], "o-", ms=4, label="the model")
    axes.set(title=f"calibration: {_shortened(calibration.event, 48)}", ylabel="share of rows")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    below.bar([b.low for b in bins], [b.rows for b in bins], align="edge",
              width=[b.high - b.low for b in bins], color="0.6", ec="white")  # fmt: skip
    below.set(xlabel="predicted probability", ylabel="rows")
    _save(figure, place, dpi=120)


def draw_numbers(numbers: Predicted, place: Place) -> None:
    """Predicted against true values, and how the errors are distributed."""
    from matplotlib.figure import Figure

    truth, answers = numbers.targets.ravel(), numbers.predictions.ravel()
    shown = np.linspace(0, len(truth) - 1, min(MAX_POINTS, len(truth))).astype(np.int64)
    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(truth[shown], answers[shown], "o", ms=2.5, alpha=0.35, mew=0)
    ends = [min(truth.min(), answers.min()), max(truth.max(), answers.max())]
    left.plot(ends, ends, color="0.3", ls="--", lw=1)
    left.set(title="predicted against true", xlabel="true", ylabel="predicted")
    errors = answers - truth
    # Without the outermost half per cent at each end, which would leave one bar of the rest.
    low, high = np.quantile(errors, [0.005, 0.995])
    if high - low < 1e-6 * max(abs(low), abs(high)):  # all but equal: one bar
        low, high = low - 0.5 * abs(low), high + 0.5 * abs(high)
    right.hist(errors, bins=60, range=(low, high), color="0.5")
    right.axvline(0, color="0.2", ls="--", lw=1)
    right.set(title="errors (the middle 99 %)", xlabel="predicted − true", ylabel="rows")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.ticklabel_format(useOffset=False, scilimits=(-4, 6))
        axes.tick_params(axis="x", rotation=30)
    _save(figure, place, dpi=120)


def draw_importance(importance: Importance, place: Place) -> None:
    """A bar for each column, the most important on top, with standard deviations."""
    from matplotlib.figure import Figure

    columns = importance.columns[:MAX_BARS]
    figure = Figure(figsize=(8, 1.2 + 0.28 * len(columns)), layout="constrained")
    axes = figure.add_subplot()
    names = [_shortened(column.name, 32) for column in columns]
    places = range(len(columns))
    axes.barh(places, [c.mean for c in columns], xerr=[c.std for c in columns],
              color="tab:blue", ecolor="0.3", capsize=2)  # fmt: skip
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", lw=0.8)
    axes.set(title="permutation importance", xlabel=f"{importance.metric} becomes worse by")
    axes.grid(alpha=0.3, axis="x")
    _save(figure, place, dpi=120)


def _save(figure: Figure, place: Place, *, dpi: int) -> None:
    try:
        figure.savefig(place, dpi=dpi)
    except OSError as error:  # A full disk: what was measured has been told.
        raise WorkdirError(f"The picture {place} cannot be written: {error.strerror}.") from error


def _shortened(text: str, length: int) -> str:
    # Not as a formula: matplotlib reads "$…$" as one.
    text = text.replace("$", r"\$")
    return text if len(text) <= length else text[: length - 1] + "…"


def _draw_run(axes: Axes, run: str, rules: Sequence[tuple[str, Outcome]]) -> None:
    first = rules[0][1]
    name = first.objective.name
    steps = [evaluation.step for evaluation in first.record]
    axes.plot(steps, [e.value(name) for e in first.record], color="0.35", lw=1.2, zorder=2)
    # The best is marked once, and every stop by a line in its own colour.
    if first.best_of_all is not None:
        best = first.best_of_all
        axes.plot(best.step, best.value(name), "o", color="black", ms=6, label="best", zorder=4)
    stopped = [(rule, found) for rule, found in rules if found.stopped_at is not None]
    for i, (rule, found) in enumerate(stopped):
        _draw_stop(axes, name, rule, found, _colour(i, len(stopped)))
    axes.set(title=run, xlabel="step", ylabel=name)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    _fit_to_values(axes, [e.value(name) for e in first.record])


def _draw_stop(axes: Axes, name: str, rule: str, found: Outcome, colour: Any) -> None:
    assert found.stopped_at is not None
    label = f"{rule}: {found.stopped_at.step:,}"
    axes.axvline(found.stopped_at.step, color=colour, lw=1.4, ls="--", label=label, zorder=3)
    if found.best is not None:
        axes.plot(
            found.best.step, found.best.value(name), "o", mfc="none", mec=colour, ms=9, zorder=4
        )


def _colour(position: int, count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["turbo"](0.08 + 0.84 * position / max(count - 1, 1))


def _fit_to_values(axes: Axes, values: Sequence[float]) -> None:
    """So that the first evaluations of an untrained model do not flatten all others."""
    finite = sorted(value for value in values if math.isfinite(value))
    if len(finite) < 8:
        return
    low, high = finite[0], finite[-1]
    near_low, near_high = finite[len(finite) // 10], finite[-1 - len(finite) // 10]
    reach = (near_high - near_low) or 1.0
    margin = 0.05 * reach
    axes.set_ylim(
        max(low - margin, near_low - 2 * reach), min(high + margin, near_high + 2 * reach)
    )
