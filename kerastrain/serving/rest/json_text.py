"""JSON as TensorFlow Serving reads and writes it: with bare NaN and Infinity.

    document = parse_object(body)                 # dict, or ServingError INVALID_ARGUMENT
    body = json_bytes({"predictions": array})     # float32 as short as it can be told: 0.1

orjson does what it can do exactly; it refuses NaN and Infinity when reading and
would write null for them, so those go to the standard library's json.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson

from kerastrain.serving.failures import ServingError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
TOO_BIG = "Number too big to be stored in double."


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body holds; when a key comes twice, the last counts.

    Integers of up to 64 bits are exact, longer ones become floats.

    Raises:
        ServingError: INVALID_ARGUMENT; no UTF-8, no JSON, nested too deeply, a number
            past float64's range, or something else than an object.
    """
    document = parse(body)
    if not isinstance(document, dict):
        raise _invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def parse(body: bytes) -> Any:
    """Any JSON value; `Raises` as for `parse_object`."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_slowly(body.removeprefix(BYTE_ORDER_MARK))


def _parse_slowly(body: bytes) -> Any:
    """Reads NaN and Infinity too, or says what is wrong and where."""
    if not body.strip():
        raise _invalid("JSON Parse error: The document is empty")
    try:
        text = body.decode("utf-8")
        document = json.loads(text, parse_int=_integer, parse_float=_finite)
        if rb"\ud" in body.lower():  # half of a pair can be read but never be written again
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        message = "Invalid value." if error.msg == "Expecting value" else f"{error.msg}."
        raise _invalid(f"JSON Parse error: {message} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise _invalid(
            f"JSON Parse error: Invalid encoding in string. at offset: {error.start}: "
            "the body must be UTF-8"
        ) from None
    except UnicodeEncodeError:
        raise _invalid("JSON Parse error: The surrogate pair in string is invalid.") from None
    except RecursionError:
        raise _invalid("JSON Parse error: lists or objects are nested too deeply") from None
    return document


def _integer(digits: str) -> int | float:
    """An integer of 64 bits as it is; a longer one as float, as RapidJSON has it."""
    if len(digits) > 20:
        return _finite(digits)
    value = int(digits)
    return value if -(1 << 63) <= value < 1 << 64 else _finite(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _invalid(f"JSON Parse error: {TOO_BIG} {digits[:40]}")
    return value


def json_bytes(document: Any, *, is_finite: bool = True) -> bytes:
    """Compact UTF-8 JSON of dicts, lists, text, numbers and what `tensors.json_value` gives.

    Args:
        is_finite: no float is NaN or infinite; they would be written as null otherwise.
    """
    if is_finite:
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    text = json.dumps(document, default=_plain, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8")


def _plain(value: Any) -> Any:
    """Lists and numbers; a float32 becomes the float64 of the fewest digits that mean it."""
    if isinstance(value, np.float32):
        return float(str(value))
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        return value.astype("U").astype(np.float64).tolist()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def shown(value: Any) -> str:
    """A JSON value for a message: short, whatever was received."""
    if isinstance(value, list):
        return "[]" if not value else f"[… {len(value):,} values]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{shown(key)}: …" for key in list(value)[:4]) + "}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _invalid(message: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", message)
