"""Encoded tables on disk, so that a second start need not read and encode again.

    cache = TableCache.of(files, options, schema=None, numbers="standard")
    data = cache.read_or_keep(load)             # encoded in memory, kept where that is possible
    data = cache.read_or_make(write_to_folder)  # encoded to disk

A folder `.tables/KEY` beside the work directory holds one encoded table. The key is a hash of
everything that it depends on: the files' bytes, the options, the schema given, this package's
version. It can be deleted at any time; it is made again, by one start of those that want it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet

import kerastrain
from kerastrain.data.source import Classification, Data, Examples, Task
from kerastrain.data.stored import ExamplesWriter, StoredExamples
from kerastrain.data.tables.encoded import EncodedColumns
from kerastrain.data.tables.reading import TableFiles
from kerastrain.data.tables.schema import Schema
from kerastrain.errors import DataError, KerastrainError
from kerastrain.options import TABLE_LOCATIONS, TrainOptions
from kerastrain.workdir import read_json, write_json

logger = logging.getLogger(__name__)

FOLDER = ".tables"
META = "table.json"
HELD_OUT = ("validation", "test")
# What reading damaged files raises: JSON, arrays, zip archives (encoder, splits) and Parquet.
DAMAGES = (
    KerastrainError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
    pa.ArrowException,
)
# To be raised when the same table would be encoded otherwise than before.
FORMAT = 3
# Smaller tables are read and encoded in about the time that reading the cache takes.
LEAST_BYTES = 64 << 20


class TableCache:
    """The place of one encoded table.

    Attributes:
        folder: where it is, or will be.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def of(
        cls,
        files: Sequence[TableFiles],
        options: TrainOptions,
        *,
        schema: Schema | None,
        numbers: str,
    ) -> TableCache:
        """Of these files under these options.

        Args:
            files: of --data, and of the splits that have files of their own.
            schema: the one given by --schema.
            numbers: how numbers are scaled.
        """
        table = dataclasses.asdict(options.table)
        depends = {
            "content": [one.content_sha256() for one in files],
            "target": options.target,
            "seed": options.seed,
            "table": {name: v for name, v in table.items() if name not in TABLE_LOCATIONS},
            "schema": None if schema is None else schema.sha256(),
            "numbers": numbers,
            "versions": [FORMAT, kerastrain.__version__, keras.__version__],
        }
        key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
        return cls(Path(options.workdir or "runs/x").parent / FOLDER / key[:20])

    def read(self) -> Data | None:
        """The table as it was written; None when it is not there, or damaged."""
        if not (self.folder / META).is_file():
            return None
        try:
            data = _read(self.folder)
        except DAMAGES as error:
            logger.warning("The encoded table in %s is made again: %s", self.folder, error)
            return None
        logger.info("The encoded table was read from %s.", self.folder)
        return data

    def read_or_make(self, make: Callable[[Path], None]) -> Data:
        """The table that is there, else the one that `make` writes to a folder.

        Several starts may ask at once: one of them makes it, the others wait and read it.

        Raises:
            DataError: the disk is full or read-only; or whatever `make` raises.
        """
        try:
            with self._lock():
                data = self.read()
                if data is None:
                    with self._being_made() as folder:
                        make(folder)
                    data = _read(self.folder, is_new=True)
                return data
        except OSError as error:
            # It can be read without the lock: nobody writes where nobody can.
            data = self.read()
            if data is None:
                raise DataError(
                    f"The encoded table cannot be written to {self.folder}: "
                    f"{error.strerror or error}. Free space there, or choose another --workdir; "
                    "the table lies beside it."
                ) from error
            return data

    def read_or_keep(self, load: Callable[[], Data]) -> Data:
        """The table that is there, else what `load` gives, which is kept for the next start.

        Raises:
            KerastrainError: `load` does. A disk that takes nothing is only warned of.
        """
        with contextlib.ExitStack() as locked:
            try:
                locked.enter_context(self._lock())
                is_locked = True
            except OSError as error:
                self._warn_not_kept(error)
                is_locked = False
            data = self.read()
            if data is None:
                data = load()
                if is_locked:
                    self._keep(data)
            return data

    def _keep(self, data: Data) -> None:
        assert isinstance(data.train, Examples)
        try:
            with self._being_made() as folder:
                _write_examples(folder / "train", data.train)
                write_all_but_train(folder, data, in_memory=True)
        except (OSError, KerastrainError) as error:
            self._warn_not_kept(error)

    def _warn_not_kept(self, error: Exception) -> None:
        logger.warning("The encoded table could not be kept in %s: %s", self.folder, error)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Held while the table is looked for, made and read, by one start at a time."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_name(f"{self.folder.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("Another start makes or reads %s; waiting for it.", self.folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _being_made(self) -> Iterator[Path]:
        """A folder to write to, which is in place as a whole when the block ends well.

        Under the lock alone: a damaged table that is there is removed.
        """
        partial = self.folder.with_name(f"{self.folder.name}.partial")
        for leftover in (partial, self.folder):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            partial.mkdir()
            yield partial
            partial.rename(self.folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def write_all_but_train(folder: Path, data: Data, *, in_memory: bool) -> None:
    """Everything of the data but the training examples, which lie in FOLDER/train already."""
    assert data.encoder is not None and data.columns is not None
    data.encoder.save(folder / "encoder.keras")
    raw = {"validation": data.validation_rows, "test": data.test_rows}
    for split, examples in (("validation", data.validation), ("test", data.test)):
        rows = raw[split]
        assert examples is not None and rows is not None
        _write_examples(folder / split, examples)
        columns = {name: pa.array(values) for name, values in rows.items()}
        pyarrow.parquet.write_table(
            pa.table(columns), folder / f"{split}.parquet", write_page_checksum=True
        )
    np.savez_compressed(folder / "splits.npz", allow_pickle=False, **data.split_rows)
    meta = {
        "in_memory": in_memory,
        "columns": dataclasses.asdict(data.columns),
        "description": data.description,
        "positive": getattr(data.task, "positive", None),
    }
    write_json(folder / META, meta)


def _write_examples(folder: Path, examples: Examples) -> None:
    with ExamplesWriter(folder) as writer:
        writer.append(examples)
        writer.finish()


def _read(folder: Path, *, is_new: bool = False) -> Data:
    """The table in a folder.

    Args:
        is_new: it was just written, and need not be compared with what was written.
    """
    meta = read_json(folder / META)
    stored = {split: StoredExamples.open(folder / split) for split in ("train", *HELD_OUT)}
    for examples in () if is_new else stored.values():
        examples.verify()
    with np.load(folder / "splits.npz") as splits:
        split_rows = {name: splits[name] for name in splits.files}
    train = _in_memory(stored["train"]) if meta["in_memory"] else stored["train"]
    return Data(
        train=train,
        validation=_in_memory(stored["validation"]),
        test=_in_memory(stored["test"]),
        task=_task(meta),
        encoder=keras.models.load_model(folder / "encoder.keras"),
        validation_rows=_raw(folder / "validation.parquet"),
        test_rows=_raw(folder / "test.parquet"),
        columns=_columns(meta["columns"]),
        split_rows=split_rows,
        description=meta["description"],
    )


def _in_memory(stored: StoredExamples) -> Examples:
    inputs = stored.inputs
    if not isinstance(inputs, Mapping):
        raise DataError("An encoded table holds arrays by name.")
    weights = None if stored.weights is None else np.asarray(stored.weights)
    whole = {name: np.asarray(array) for name, array in inputs.items()}
    return Examples(whole, np.asarray(stored.targets), weights)


def _raw(path: Path) -> dict[str, np.ndarray]:
    table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def _task(meta: Mapping[str, Any]) -> Task:
    task = Schema.from_json(meta["description"]["schema"]).task
    if isinstance(task, Classification):
        return Classification(task.classes, meta["positive"])
    return task


def _columns(values: Mapping[str, Any]) -> EncodedColumns:
    """JSON has lists for tuples."""
    edges = tuple(map(tuple, values["edges"]))
    names = {name: tuple(values[name]) for name in ("numbers", "categories", "sizes")}
    return EncodedColumns(**{**values, **names, "edges": edges})
