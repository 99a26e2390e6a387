"""One array of a stored split: raw little-endian numbers in a file, rows first.

    file = ArrayFile(folder / "array-0.bin", "inputs", first_piece)
    file.append(first_piece)
    facts = file.finish()                                  # dtype, shape of a row, sha256
    array = StoredArray(path, np.dtype("<f4"), (rows, 20), block_rows=8192)
    array[np.array([7, 3])]                                # float32 [2, 20], read from the disk

Files are read and not mapped: pages of a mapped file count as the process's memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kerastrain.errors import DataError
from kerastrain.workdir import sync

# Linux reads at most 2 GB in a call.
READ_BYTES = 1 << 30


class StoredArray:
    """An array [n, ...] in a file, with what training and recipes ask of numpy's.

    Indexing reads rows into a new array: a number, a slice, or an int array [k].

    Args:
        block_rows: rows that are wanted of the same block, a stretch of so many, are read at
            once, from the first to the last of them.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...], *, block_rows: int):
        self.path, self.dtype, self.shape = path, dtype, shape
        self.block_rows = block_rows
        self.row_bytes = row_bytes(dtype, shape[1:])
        # Held open: a set that is written anew in the meantime does not mix with this one.
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return len(self) * self.row_bytes

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step == 1:
                return self.read(first, max(first, last))
            return self.take(np.arange(first, last, step))
        if np.ndim(rows) == 0:
            return self.take(np.array([rows]))[0]
        return self.take(np.asarray(rows))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole array, in memory."""
        return self.read(0, len(self)).astype(dtype or self.dtype, copy=False)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows of the given numbers (int array [k], from 0 on), in that order."""
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"Rows {rows.min()} to {rows.max()} were asked for of {len(self)}.")
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        by_row = np.argsort(rows, kind="stable")
        block_ends = np.flatnonzero(np.diff(rows[by_row] // self.block_rows)) + 1
        for places in np.split(by_row, block_ends) if len(rows) else ():
            first, last = int(rows[places[0]]), int(rows[places[-1]])
            taken[places] = self.read(first, last + 1)[rows[places] - first]
        return taken

    def read(self, first: int, last: int, into: np.ndarray | None = None) -> np.ndarray:
        """The rows first … last - 1, by one read, in a new array or in `into`.

        Raises:
            DataError: the file has become shorter.
        """
        rows = np.empty((last - first, *self.shape[1:]), self.dtype) if into is None else into
        content = rows.reshape(-1).view(np.uint8)
        done, offset = 0, first * self.row_bytes
        while done < len(content):
            got = os.preadv(self._file, [content.data[done : done + READ_BYTES]], offset + done)
            if got == 0:
                raise DataError(
                    f"'{self.path}' ends within row {(offset + done) // self.row_bytes:,} "
                    f"of {len(self):,}. Remove its folder and have it made again."
                )
            done += got
        return rows


class ArrayFile:
    """An array while it is written; rows are appended in pieces.

    Raises:
        DataError: it is not an array of numbers, or cannot be written.
    """

    def __init__(self, path: Path, name: str, like: np.ndarray):
        if like.dtype.kind not in "biufc":
            raise DataError(
                f"{name} is an array of {like.dtype}; only numbers can be stored. Encode it first."
            )
        self.path, self.name, self.shape = path, name, like.shape[1:]
        self.dtype = stored_dtype(like.dtype)
        self.row_bytes = row_bytes(self.dtype, self.shape)
        self._digest = hashlib.sha256()
        # Not written over: who reads the file from before keeps what it has.
        with disk_errors(path):
            path.unlink(missing_ok=True)
            self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 (closed by `close`)

    def append(self, array: np.ndarray) -> None:
        content = np.ascontiguousarray(array, self.dtype).reshape(-1).view(np.uint8).data
        self._digest.update(content)
        with disk_errors(self.path):
            self._file.write(content)

    def finish(self) -> dict[str, Any]:
        """Flushes it to the disk; returns what is to be known of it."""
        self.close()
        with disk_errors(self.path):
            sync(self.path)
        return {
            "name": self.name,
            "dtype": self.dtype.str,
            "shape": list(self.shape),
            "file": self.path.name,
            "sha256": self._digest.hexdigest(),
        }

    def close(self) -> None:
        with disk_errors(self.path):
            self._file.close()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the system cannot write becomes a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"'{path}' cannot be written: {error.strerror}.") from error


def stored_dtype(dtype: np.dtype) -> np.dtype:
    """The same numbers, little-endian."""
    return dtype.newbyteorder("<")


def row_bytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Of one row of this shape."""
    return dtype.itemsize * int(np.prod(shape, dtype=np.int64))
