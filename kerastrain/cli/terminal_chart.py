"""A curve in plain text, for a terminal.

print("\\n".join(chart(rates, losses, width=80, marked=0.002, x_label="learning rate")))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

ROWS = 14
LABEL_WIDTH = 10


def chart(
    x: Sequence[float], y: Sequence[float], *, width: int, marked: float | None = None, x_label: str
) -> list[str]:
    """Lines that show y over the logarithm of x.

    Args:
        x: positive, rising.
        y: values that are not finite are left out.
        width: characters in a line.
        marked: an x that gets a vertical line.
    """
    points = [(math.log10(a), b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]
    if not points:
        return ["(no finite values to show)"]
    columns = max(20, width - LABEL_WIDTH - 2)
    first, last = points[0][0], max(math.log10(x[-1]), points[0][0] + 1e-9)
    low, high = min(b for _, b in points), max(b for _, b in points)
    cells = [[" "] * columns for _ in range(ROWS)]

    def column(log: float) -> int:
        return min(columns - 1, max(0, round((log - first) / (last - first) * (columns - 1))))

    if marked is not None:
        for line in cells:
            line[column(math.log10(marked))] = "│"
    for log, value in points:
        # Halves, because the whole span of the largest numbers would be infinite.
        height = (value / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
        cells[round((1 - height) * (ROWS - 1))][column(log)] = "•"
    labels = {0: f"{high:.4g}", ROWS - 1: f"{low:.4g}"}
    lines = [
        f"{labels.get(i, ''):>{LABEL_WIDTH}} ┤{''.join(line)}".rstrip()
        for i, line in enumerate(cells)
    ]
    return [*lines, *_axis(first, last, column, columns), f"{x_label:^{width}}".rstrip()]


def _axis(first: float, last: float, column: Callable[[float], int], columns: int) -> list[str]:
    """The line below the chart and its labels at whole powers of ten."""
    line, labels = ["─"] * columns, [" "] * (columns + 6)
    for power in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1):
        at = column(power)
        line[at] = "┴"
        labels[at : at + len(f"1e{power}")] = f"1e{power}"
    margin = " " * LABEL_WIDTH
    return [f"{margin} └{''.join(line)}", f"{margin}  {''.join(labels)}".rstrip()]
