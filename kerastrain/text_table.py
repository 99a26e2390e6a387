"""Tables of plain text, which a pipe, a narrow terminal and a person can read.

print("\\n".join(aligned([("name", "steps"), ("a", "1,000"), ("b", "20")])))
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> list[str]:
    """Lines of aligned columns, two spaces apart.

    Args:
        left: the columns (0-based) of words, which begin together; numbers end together.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
