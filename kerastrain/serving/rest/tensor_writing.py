"""An output tensor becomes JSON.

document = {"predictions": json_value("label", labels)}
json_bytes(document, is_finite=is_finite(labels))
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from kerastrain.serving.rest.tensor_reading import FITTING, NAMES, invalid, object_array

# Looked up by dtype: NumPy works a dtype's name out each time, which takes 3 µs.
_WRITABLE = {np.dtype(name) for name in FITTING if name != "string"}


def is_finite(array: np.ndarray) -> bool:
    """Whether it holds no NaN and no infinity; what is no float has none."""
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def json_value(name: str, array: np.ndarray) -> Any:
    """An output for `json_text.json_bytes`: an array or a number, or lists of text.

    Strings are {"b64": …} in an output whose name ends in "_bytes", and text otherwise.

    Raises:
        ServingError: INVALID_ARGUMENT, the dtype has no JSON, or a string is no UTF-8.
    """
    if array.dtype.kind in "OS":
        return _texts(name, array)
    if array.dtype not in _WRITABLE:
        dtype = array.dtype.name
        raise invalid(
            f"Failed to write JSON value for tensor type: {NAMES.get(dtype, dtype)}; "
            f"the output '{name}' must be cast to float32 before the model is exported"
        )
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _texts(name: str, array: np.ndarray) -> Any:
    """Lists of lists of text, or of {"b64": …}."""
    if name.endswith("_bytes"):
        texts: list[Any] = [{"b64": base64.b64encode(item).decode("ascii")} for item in array.flat]
    else:
        try:
            texts = [item.decode("utf-8") for item in array.flat]
        except UnicodeDecodeError:
            raise invalid(
                f"The output '{name}' holds bytes that are no UTF-8 text; an output whose name "
                "ends in '_bytes' is answered in base64"
            ) from None
    return object_array(texts).reshape(array.shape).tolist()
