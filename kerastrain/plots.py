"""Pictures, by matplotlib: an extra (`pip install 'kerastrain[plot]'`).

    draw_replay([("runs/a", "gl(2)", outcome), …], Path("replay.png"))
    draw_range_test(range_test, Path("rates.png"), title="digits")

matplotlib is imported when something is drawn. Figures are made without pyplot, so that
nothing of a program's own plotting changes.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastrain.errors import UsageError
from kerastrain.training.stopping import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kerastrain.training.range_test import RangeTest

SUFFIXES = (".png", ".svg", ".pdf")


def has_matplotlib() -> bool:
    """Whether it is installed; it is not imported."""
    return importlib.util.find_spec("matplotlib") is not None


def check_can_draw(path: Path) -> None:
    """Raises UsageError unless a picture can be drawn into this file."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--plot is '{path}'; expected a file name that ends in {', '.join(SUFFIXES)}."
        )
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot is '{path}'; there is no folder '{path.parent}'.")
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
    figure.savefig(path, dpi=150)


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
    figure.savefig(path, dpi=150)


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
