"""One call of a model's function for the rows of several requests.

    outcomes = call_together(servable, signature, [inputs, others], [8, 1])
    outcomes[1]                    # the second request's outputs, or its error

Nobody is told of another's mistake: where a call fails (one image that cannot be decoded
fails the call for all), every request is called again by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kerastrain.serving.servable import Servable, Signature

Outputs = dict[str, np.ndarray]


def call_together(
    servable: Servable,
    signature: Signature,
    inputs: Sequence[Mapping[str, np.ndarray]],
    rows: Sequence[int],
    *,
    in_this_thread: bool = False,
) -> list[Outputs | Exception]:
    """Each request's outputs, or the error of its own.

    Args:
        inputs: of each request, of equal shapes but for their numbers of rows.
        rows: of each request.
        in_this_thread: as `Servable.call`.
    """

    def called(asked: Mapping[str, np.ndarray]) -> Outputs | Exception:
        try:
            return servable.call(signature.name, asked, in_this_thread=in_this_thread)
        except Exception as error:  # ServingError, or a bug: for whoever asked
            return error

    if len(inputs) == 1:
        return [called(inputs[0])]
    names = signature.inputs
    joined = {name: np.concatenate([each[name] for each in inputs]) for name in names}
    outputs = called(joined)
    if isinstance(outputs, Exception) or not _has_rows(outputs, sum(rows)):
        return [called(each) for each in inputs]
    return _apart(outputs, rows)


def _has_rows(outputs: Outputs, rows: int) -> bool:
    """Whether the outputs are one for each row, as the signature's shapes promise."""
    return all(array.ndim > 0 and len(array) == rows for array in outputs.values())


def _apart(outputs: Outputs, rows: Sequence[int]) -> list[Outputs | Exception]:
    parts: list[Outputs | Exception] = []
    start = 0
    for count in rows:
        stop = start + count
        parts.append({name: array[start:stop] for name, array in outputs.items()})
        start = stop
    return parts
