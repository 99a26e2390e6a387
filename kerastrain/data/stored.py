"""Examples on disk: a split that is larger than memory, and trains as one in memory does.

    with ExamplesWriter("cache/train") as writer:            # in pieces of any size
        writer.append(Examples(inputs, targets))
        stored = writer.finish()                             # StoredExamples.open("cache/train")
    kerastrain.train(model, Data(train=stored, validation=…), workdir="runs/large")

A folder holds a file for each array (`StoredArray`) and meta.json, which is written last:
without it nothing was finished. Rows lie in blocks, stretches that are read at once; an
epoch's order permutes them and shuffles rows within windows of some blocks, so that two
windows in memory are enough to follow it (`BlockCache`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kerastrain.data.source import Examples
from kerastrain.data.stored_array import (
    ArrayFile,
    StoredArray,
    disk_errors,
    row_bytes,
    stored_dtype,
)
from kerastrain.errors import DataError
from kerastrain.workdir import read_json, sync, write_json

if TYPE_CHECKING:
    import tensorflow as tf

META = "meta.json"
FORMAT = 1
# A read of this size keeps a disk busy; the smaller the blocks, the more of them are mixed.
BLOCK_BYTES = 1 << 20
# What `verify` reads at once.
VERIFIED_BYTES = 16 << 20
# What is shuffled as a whole. Two windows are in memory at a time.
WINDOW_BYTES = 96 << 20
WINDOW_ROWS = 1 << 20

Array = TypeVar("Array")


class StoredExamples:
    """Rows on disk, with the interface of `Examples` as far as training uses it.

    Attributes:
        inputs, targets, weights: as of `Examples`, but of `StoredArray`s.
        block_rows: rows that lie together and are read at once; the last block has the rest.
        window_blocks: how many blocks an order mixes at a time, at the most.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any]):
        """Use `open`, which checks."""
        self.folder, self._meta = folder, meta
        self.block_rows: int = meta["block_rows"]
        self.window_blocks: int = meta["window_blocks"]
        self._arrays = {
            array["name"]: StoredArray(
                folder / array["file"],
                np.dtype(array["dtype"]),
                (len(self), *array["shape"]),
                block_rows=self.block_rows,
            )
            for array in meta["arrays"]
        }
        self.inputs, self.targets, self.weights = _parts(self._arrays)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> StoredExamples:
        """The examples that an `ExamplesWriter` finished in this folder.

        Raises:
            DataError: there are none, or a file is not as long as it was written.
        """
        folder = Path(folder)
        if not (folder / META).is_file():
            raise DataError(
                f"'{folder}' holds no finished examples (no {META}). Write them by ExamplesWriter."
            )
        meta = read_json(folder / META)
        if meta.get("format") != FORMAT:
            raise DataError(
                f"'{folder / META}' is of format {meta.get('format')}; expected {FORMAT}. Remove "
                "the folder and have it made again."
            )
        for array in meta["arrays"]:
            path = folder / array["file"]
            size = path.stat().st_size if path.is_file() else 0
            expected = meta["rows"] * row_bytes(np.dtype(array["dtype"]), array["shape"])
            if size != expected:
                raise DataError(
                    f"'{path}' has {size:,} bytes; expected {expected:,}. It was changed or not "
                    "copied as a whole: remove its folder and have it made again."
                )
        return cls(folder, meta)

    def __len__(self) -> int:
        return int(self._meta["rows"])

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    @property
    def window_rows(self) -> int:
        """Rows of a window of `order`, the largest one if they differ."""
        blocks = -(-len(self) // self.block_rows)
        windows = -(-blocks // self.window_blocks)
        return -(-blocks // windows) * self.block_rows

    def named_arrays(self) -> list[tuple[str, StoredArray]]:
        """Every array under a name, in a fixed order."""
        return list(self._arrays.items())

    def take(self, rows: np.ndarray) -> Examples:
        """The examples of the given row numbers (int array [k]), in that order, in memory."""
        rows = np.asarray(rows, np.int64)
        return examples_of({name: array.take(rows) for name, array in self._arrays.items()})

    def blocks(self) -> Iterator[tuple[int, Examples]]:
        """All rows, a block at a time: (number of its first row, its examples)."""
        for first in range(0, len(self), self.block_rows):
            last = min(first + self.block_rows, len(self))
            block = {name: array.read(first, last) for name, array in self._arrays.items()}
            yield first, examples_of(block)

    def order(self, *, seed: int, epoch: int) -> tf.Tensor:
        """The order of an epoch, int32 [n]: `windowed_order`, another one than of `Examples`."""
        from kerastrain.data.order import windowed_order

        return windowed_order(
            seed=seed,
            epoch=epoch,
            examples=len(self),
            block_rows=self.block_rows,
            window_blocks=self.window_blocks,
        )

    def verify(self) -> None:
        """Reads every array once.

        Raises:
            DataError: one is not, byte for byte, what was written.
        """
        for facts, (name, array) in zip(self._meta["arrays"], self._arrays.items(), strict=True):
            digest = hashlib.sha256()
            rows = max(1, VERIFIED_BYTES // max(1, array.row_bytes))
            for first in range(0, len(self), rows):
                part = array.read(first, min(first + rows, len(self)))
                digest.update(part.reshape(-1).view(np.uint8).data)
            if digest.hexdigest() != facts["sha256"]:
                raise DataError(
                    f"'{array.path}' ({name}) has the SHA-256 {digest.hexdigest()}; expected "
                    f"{facts['sha256']}, that of what was written. The disk or the copy is "
                    "damaged: remove its folder and have it made again."
                )

    def fingerprint(self) -> str:
        """A hash of names, dtypes, shapes, every byte as it was written, and the sizes of blocks.

        These count because the order depends on them. It is not that of equal `Examples`.
        """
        arrays = [{**array, "file": ""} for array in self._meta["arrays"]]
        known = json.dumps({**self._meta, "arrays": arrays}, sort_keys=True)
        return hashlib.sha256(known.encode()).hexdigest()


class ExamplesWriter:
    """Writes examples to a folder, in pieces of any size.

    What the folder held before is no longer valid from now on.

    Args:
        folder: is made if need be.
        block_rows, window_blocks: as of `StoredExamples`; None: blocks of about 1 MB, windows
            of at most 96 MB and 1,048,576 rows.

    Raises:
        DataError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        block_rows: int | None = None,
        window_blocks: int | None = None,
    ):
        self.folder = Path(folder)
        self._block_rows, self._window_blocks = block_rows, window_blocks
        self._rows = 0
        self._files: list[ArrayFile] = []
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / META).unlink(missing_ok=True)
            sync(self.folder)

    def __enter__(self) -> ExamplesWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def append(self, examples: Examples) -> None:
        """Writes rows behind those that are there.

        Raises:
            DataError: names, dtypes or shapes differ from the first piece's, an array is not
                of numbers, or the disk is full.
        """
        named = examples.named_arrays()
        if not self._files:
            for number, (name, array) in enumerate(named):
                path = self.folder / f"array-{number}.bin"
                self._files.append(ArrayFile(path, name, array))
        received = [_kind(name, array.dtype, array.shape[1:]) for name, array in named]
        expected = [_kind(file.name, file.dtype, file.shape) for file in self._files]
        if received != expected:
            raise DataError(
                f"A piece of the examples has {', '.join(received)}; expected "
                f"{', '.join(expected)}, as in the first piece."
            )
        for file, (_, array) in zip(self._files, named, strict=True):
            file.append(array)
        self._rows += len(examples)

    def finish(self) -> StoredExamples:
        """Makes what was written valid, and opens it.

        Raises:
            DataError: there are no rows, or the disk is full.
        """
        if not self._rows:
            raise DataError("A split of the data has no rows.")
        size = max(1, sum(file.row_bytes for file in self._files))
        block_rows = self._block_rows or _power_of_two(min(BLOCK_BYTES // size, WINDOW_ROWS))
        window_rows = min(WINDOW_ROWS, WINDOW_BYTES // size)
        meta = {
            "format": FORMAT,
            "rows": self._rows,
            "block_rows": block_rows,
            "window_blocks": self._window_blocks or max(2, window_rows // block_rows),
            "arrays": [file.finish() for file in self._files],
        }
        write_json(self.folder / META, meta)
        return StoredExamples.open(self.folder)


def examples_of(arrays: Mapping[str, np.ndarray]) -> Examples:
    """Examples from arrays under the names of `named_arrays`."""
    return Examples(*_parts(arrays))


def _parts(arrays: Mapping[str, Array]) -> tuple[Any, Array, Array | None]:
    """(inputs, targets, weights) by the names of `named_arrays`."""
    inputs: Any = arrays.get("inputs")
    if inputs is None:
        named = (name for name in arrays if name.startswith("inputs["))
        inputs = {name.removeprefix("inputs[")[:-1]: arrays[name] for name in named}
    return inputs, arrays["targets"], arrays.get("weights")


def _kind(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> str:
    return f"{name} {stored_dtype(dtype).name} [{', '.join(map(str, ('n', *shape)))}]"


def _power_of_two(most: int) -> int:
    """The largest one that is not more, and at least 1."""
    return 1 << max(0, most.bit_length() - 1)
