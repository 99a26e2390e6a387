"""A JSON value becomes a tensor, or a message that tells what does not fit and where.

    array_of([[1, 2], [3, 4]], "float32")      # float32 [2, 2]
    rows_of(["a", {"b64": "YQ=="}], "string")  # object [2]: b"a", b"a"

Which JSON value fits which dtype is TensorFlow Serving's choice, and so are the
messages (tensorflow_serving/util/json_tensor.cc, 2.20): a bool is no number, an
integer tensor takes no 1.0, a float tensor takes integers that it can hold exactly.
"""

from __future__ import annotations

import base64
import math
from itertools import chain
from typing import Any

import numpy as np

from kerastrain.serving.failures import ServingError
from kerastrain.serving.rest.json_text import shown

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
# 2^24 - 1 and 2^53 - 1: TensorFlow Serving takes no larger integer for a float.
LARGEST_EXACT = {"float32": (1 << 24) - 1, "float64": (1 << 53) - 1}
FITTING = {
    "bool": frozenset({bool}),
    "string": frozenset({str, dict}),
    **{name: frozenset({int}) for name in INTEGERS},
    **{name: frozenset({int, float}) for name in LARGEST_EXACT},
}
"""dtype -> the Python types that its JSON values may have; no other dtype has JSON."""

NAMES = {"float32": "float", "float64": "double", "float16": "half"}
"""How TensorFlow's messages call a dtype, where it is not NumPy's name."""

MAX_RANK = 32
"""NumPy's own limit before 2.0."""


class Misfit(Exception):
    """A JSON value that does not fit; `place` says which one by its indices."""

    def __init__(self, message: str, place: tuple[int, ...] = ()):
        super().__init__(message)
        self.message = message
        self.place = place


def array_of(value: Any, dtype: str) -> np.ndarray:
    """A JSON value as an array; strings as an object array of bytes.

    Args:
        value: a value or lists of lists of values.
        dtype: a key of `FITTING`.

    Raises:
        ServingError: INVALID_ARGUMENT, lists of different lengths, a value that does
            not fit the dtype, more than 32 dimensions; UNIMPLEMENTED, another dtype.
    """
    try:
        return _array(value, dtype)
    except Misfit as misfit:
        at = "".join(f"[{index}]" for index in misfit.place)
        raise invalid(misfit.message + (f" (at {at})" if at else "")) from None


def rows_of(values: list[Any], dtype: str, *, key: str = "") -> np.ndarray:
    """The values of one input in all rows of `instances`, as one array.

    Args:
        key: the input's name for messages, when rows are objects.

    Raises:
        ServingError: as `array_of`, and rows of different shapes; the row is named.
    """
    try:
        return _array(values, dtype)
    except Misfit as misfit:
        if not misfit.place:
            raise invalid(misfit.message) from None
        row = misfit.place[0]
        named = f" key: {key}" if key else ""
        raise invalid(
            f"Failed to process element: {row}{named} of 'instances' list. "
            f"Error: INVALID_ARGUMENT: {_row_message(values, row, dtype)}"
        ) from None


def _row_message(values: list[Any], row: int, dtype: str) -> str:
    """What is wrong with one row: by itself, or beside the first."""
    try:
        array_of(values[row], dtype)
    except ServingError as error:
        return error.message
    first, this = shape_of(values[0]), shape_of(values[row])
    if math.prod(first) != math.prod(this):
        return f"Expecting tensor size: {math.prod(first)} but got: {math.prod(this)}"
    return f"Expecting shape {_shown_shape(first)} but got: {_shown_shape(this)}"


def _shown_shape(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _array(value: Any, dtype: str) -> np.ndarray:
    if dtype not in FITTING:
        raise ServingError(
            "UNIMPLEMENTED",
            f"Conversion of JSON Value: {shown(value)} to type: {NAMES.get(dtype, dtype)}",
        )
    shape = shape_of(value)
    if len(shape) > MAX_RANK:
        raise Misfit(
            f"JSON Value: lists are nested {len(shape)} levels deep, "
            f"and a tensor has no more than {MAX_RANK} dimensions"
        )
    leaves = _leaves(value, shape, dtype)
    try:
        return _converted(leaves, dtype).reshape(shape)
    except Misfit as misfit:
        raise Misfit(misfit.message, _place(misfit.place[0], shape)) from None


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape that the first values of all levels say."""
    shape = []
    while type(value) is list:
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _place(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The indices of a position in the flattened array."""
    return tuple(int(index) for index in np.unravel_index(position, shape)) if shape else ()


def _leaves(value: Any, shape: tuple[int, ...], dtype: str) -> list[Any]:
    """All values in order, after looking at their types and at the lists' lengths.

    Level by level, in C as long as all is well: a message costs one more look at one level.
    """
    items = [value]
    for level, size in enumerate(shape):
        if set(map(type, items)) != {list} or set(map(len, items)) != {size}:
            raise _wrong_list(items, shape, level)
        items = items[0] if len(items) == 1 else list(chain.from_iterable(items))
    fitting = FITTING[dtype]
    if not fitting.issuperset(map(type, items)):
        position = next(i for i, item in enumerate(items) if type(item) not in fitting)
        raise Misfit(_type_fault(items[position], dtype, len(shape)), _place(position, shape))
    return items


def _wrong_list(items: list[Any], shape: tuple[int, ...], level: int) -> Misfit:
    """Of the items of one level, the first that is no list of the size that is expected."""
    size = shape[level]
    position = next(
        i for i, item in enumerate(items) if type(item) is not list or len(item) != size
    )
    item, place = items[position], _place(position, shape[:level])
    if type(item) is list:
        return Misfit(
            f"Encountered list at unexpected size: {len(item)} at level: {level} "
            f"expected size: {size}",
            place,
        )
    return Misfit(
        f"JSON Value: {shown(item)} found at incorrect level: {level + 1} in the JSON DOM. "
        f"Expected at level: {len(shape)}",
        place,
    )


def _type_fault(value: Any, dtype: str, rank: int) -> str:
    if type(value) is list:
        return f"Encountered list at unexpected level: {rank} expected < {rank}"
    return (
        f"JSON Value: {shown(value)} Type: {json_type(value)} "
        f"is not of expected type: {NAMES.get(dtype, dtype)}"
    )


def _converted(leaves: list[Any], dtype: str) -> np.ndarray:
    """One dimension of values whose types fit; a `Misfit` has the position as its place."""
    if dtype in LARGEST_EXACT:
        return _floats(leaves, dtype)
    if dtype == "bool":
        return np.array(leaves, bool)
    if dtype == "string":
        return object_array([_bytes(leaf, position) for position, leaf in enumerate(leaves)])
    if leaves:
        limits = np.iinfo(dtype)
        for extreme in (min(leaves), max(leaves)):
            if not limits.min <= extreme <= limits.max:
                raise Misfit(_type_fault(extreme, dtype, 0), (leaves.index(extreme),))
    return np.array(leaves, dtype)


def _floats(leaves: list[Any], dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        array = np.array(leaves, dtype)
    # Few requests hold large values; only those are looked at one by one.
    if array.size and not np.abs(array).max() <= LARGEST_EXACT[dtype]:
        for position, leaf in enumerate(leaves):
            if _is_lossy(leaf, dtype):
                raise Misfit(
                    f"Cannot convert JSON value: {shown(leaf)} to {NAMES[dtype]} "
                    "without loss of precision.",
                    (position,),
                )
    return array


def _is_lossy(value: float, dtype: str) -> bool:
    if isinstance(value, int):
        return abs(value) > LARGEST_EXACT[dtype]
    return math.isfinite(value) and abs(value) > float(np.finfo(dtype).max)


def _bytes(value: Any, position: int) -> bytes:
    if type(value) is str:
        return value.encode("utf-8")
    try:
        return text_bytes(value)
    except ServingError as error:
        raise Misfit(error.message, (position,)) from None


def text_bytes(value: Any) -> bytes:
    """The bytes of a text or of {"b64": …}.

    Raises:
        ServingError: INVALID_ARGUMENT, it is neither, or no base64.
    """
    if isinstance(value, str):
        return value.encode("utf-8")
    if not is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    return _from_base64(value["b64"])


def object_array(items: list[Any]) -> np.ndarray:
    """One dimension of Python objects; NumPy would make more of lists."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def is_base64(value: Any) -> bool:
    """Whether it is {"b64": TEXT} and nothing else."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def _from_base64(text: str) -> bytes:
    """The bytes; padding may be missing, white space is passed over."""
    text = "".join(text.split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:  # binascii.Error, or a letter that is not ASCII
        raise invalid("Unable to base64 decode") from None


def json_type(value: Any) -> str:
    """The name of a JSON value's type in RapidJSON's words."""
    names = {type(None): "Null", list: "Array", dict: "Object", str: "String"}
    return str(value) if isinstance(value, bool) else names.get(type(value), "Number")


def invalid(message: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", message)
