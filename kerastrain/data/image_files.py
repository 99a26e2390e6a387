"""Reads the files of MNIST-like sets: four idx files, or one npz.

    images = read_idx(Path("train-images-idx3-ubyte.gz"), dimensions=3)   # uint8 [n, 28, 28]
    image_set = read_idx_set(find_idx_files(Path("data/mnist")))
    image_set = read_npz(Path("data/mnist.npz"))

The idx format: two zero bytes, a type (8: unsigned byte), the number of dimensions,
each dimension as a big-endian uint32, then the values (LeCun, Cortes and Burges, MNIST).
"""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerastrain.errors import DataError

IMAGE_SIZE = (28, 28)
CLASS_COUNT = 10
# The published names; some copies of the files have a dot in place of the second hyphen.
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 8


class LabelledImages(NamedTuple):
    """images: uint8 [n, 28, 28], 0 to 255; labels: int32 [n], 0 to 9."""

    images: np.ndarray
    labels: np.ndarray


class ImageSet(NamedTuple):
    """Both parts as published, and the file or folder they were read from."""

    train: LabelledImages
    test: LabelledImages
    source: str


def find_idx_files(folder: Path) -> dict[str, Path]:
    """Those of the four files that the folder holds: {published name: path}."""
    found = {}
    for name in IDX_NAMES:
        spellings = [name, name.replace("-idx", ".idx")]
        candidates = [folder / (spelling + end) for spelling in spellings for end in ("", ".gz")]
        present = [path for path in candidates if path.is_file()]
        if present:
            found[name] = present[0]
    return found


def read_idx_set(files: Mapping[str, Path]) -> ImageSet:
    """Reads the four files that `find_idx_files` found.

    Raises:
        DataError: one of them is damaged or foreign, or they do not fit together.
    """
    arrays = [read_idx(files[name], dimensions=3 if "images" in name else 1) for name in IDX_NAMES]
    paths = [str(files[name]) for name in IDX_NAMES]
    return checked_set(arrays, names=paths, source=str(files[IDX_NAMES[0]].parent))


def read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """An idx file of unsigned bytes, gzipped or not (told by its content, not its name).

    Returns:
        uint8 array, read-only, with the given number of dimensions.

    Raises:
        DataError: the file cannot be read, is no such idx file, or is not exactly
            as long as its header says.
    """
    content = _unpacked(path)
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if content[:4] != expected:
        raise DataError(
            f"'{path}' starts with {content[:4].hex(' ') or 'nothing: it is empty'}; expected "
            f"{expected.hex(' ')}, an idx file of unsigned bytes in {dimensions} dimension(s)."
        )
    header = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4))
    length = header + math.prod(shape)
    if len(content) != length:
        problem = "ends after" if len(content) < length else "goes on to"
        raise DataError(
            f"'{path}' {problem} {len(content):,} bytes; expected {length:,}, as its header "
            f"announces {' x '.join(map(str, shape))} values. Get the file again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _unpacked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}.") from error
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"'{path}' ({len(content):,} bytes) cannot be unpacked by gzip: {error}. "
            "Get the file again."
        ) from error


def read_npz(path: Path) -> ImageSet:
    """An npz with x_train, y_train, x_test and y_test, as Keras publishes MNIST.

    Raises:
        DataError: it is no npz, is damaged, or lacks an array or holds another kind.
    """
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"'{path}' is not an npz (a zip archive of arrays), or is cut short. "
            "Get the file again."
        )
    try:
        # Pickled objects can run code when they are read; images need none.
        with np.load(path, allow_pickle=False) as archive:
            held = list(archive.files)
            arrays = [archive[key] for key in NPZ_KEYS if key in held]
    except Exception as error:  # zipfile, zlib and numpy raise a dozen types for bad bytes
        raise DataError(
            f"'{path}' cannot be read as an npz of plain arrays: {error} Get the file again."
        ) from error
    missing = [key for key in NPZ_KEYS if key not in held]
    if missing:
        raise DataError(
            f"'{path}' holds {', '.join(sorted(held)) or 'no arrays'}; expected "
            f"{', '.join(NPZ_KEYS)} (missing: {', '.join(missing)})."
        )
    return checked_set(arrays, names=[f"{path}: {key}" for key in NPZ_KEYS], source=str(path))


def checked_set(arrays: list[np.ndarray], *, names: list[str], source: str) -> ImageSet:
    """Both parts from arrays in the order of NPZ_KEYS, each called by its name in errors.

    Raises:
        DataError: an array is not what LabelledImages needs, or counts differ.
    """
    train, test = (_checked(arrays[i : i + 2], names[i : i + 2]) for i in (0, 2))
    return ImageSet(train, test, source)


def _checked(arrays: list[np.ndarray], names: list[str]) -> LabelledImages:
    images, labels = arrays
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SIZE or len(images) == 0:
        raise DataError(
            f"'{names[0]}' holds {images.dtype} {_shown(images)}; expected images of 28 x 28 "
            "pixels: uint8 [n, 28, 28]."
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"'{names[1]}' holds {labels.dtype} {_shown(labels)}; expected one whole number "
            "an image: integers [n]."
        )
    if len(images) != len(labels):
        raise DataError(
            f"'{names[0]}' holds {len(images):,} images and '{names[1]}' {len(labels):,} labels; "
            "expected one label an image. Are both from the same set?"
        )
    outside = (labels < 0) | (labels >= CLASS_COUNT)
    if outside.any():
        row = int(outside.argmax())
        raise DataError(
            f"'{names[1]}' holds {int(outside.sum()):,} label(s) outside 0 to 9, the first "
            f"{labels[row]} at row {row}; expected 0 to 9."
        )
    return LabelledImages(images, labels.astype(np.int32))


def _shown(array: np.ndarray) -> str:
    return f"[{', '.join(map(str, array.shape))}]"
