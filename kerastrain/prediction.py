"""Predicting a table with a published model: from a file of rows to a file of answers.

    model = find_model("runs/adult")                       # reads the manifest, no TensorFlow
    done = predict_file(model, "new.csv", "predictions.parquet")
    done.rows, done.counts.remarks(), drift_report(done.counts)

The rows are read, answered and written in batches, so neither file has to fit into
memory. Every row of the input has its row in the output, in the same order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from kerastrain.data.tables.answers import (
    Summary,
    answer_columns,
    kept_columns,
    kept_types,
    names_beside,
)
from kerastrain.data.tables.columns import check_columns
from kerastrain.data.tables.drift import DriftCounts
from kerastrain.data.tables.incoming import arrow_types, incoming_rows
from kerastrain.data.tables.reading import TableFiles, TableFormat, open_table
from kerastrain.data.tables.schema import Schema
from kerastrain.data.tables.writing import CSV, PARQUET, TableWriter, check_output
from kerastrain.errors import DataError, ExportError, UsageError, suggested_path
from kerastrain.export import manifest
from kerastrain.workdir import Workdir, read_json

if TYPE_CHECKING:
    from kerastrain.export.asking import Export

logger = logging.getLogger(__name__)

BATCH_ROWS = 8192


@dataclass(frozen=True)
class PublishedModel:
    """A published version that predicts rows of a table.

    Attributes:
        folder: the version's.
        statistics: of its training rows (`table_statistics`); None: not recorded.
    """

    folder: Path
    schema: Schema
    statistics: Mapping[str, Any] | None


@dataclass(frozen=True)
class Predicted:
    """What was done.

    Attributes:
        columns: of the output.
        summary: for classes, how many rows got each label; for numbers, least, mean and
            greatest prediction.
        counts: of the input's values against the statistics of training, if recorded.
    """

    rows: int
    columns: list[str]
    summary: Mapping[str, float]
    counts: DriftCounts | None


def find_model(path: Path) -> PublishedModel:
    """The model in a version folder, a folder of versions (the newest), or a work directory.

    Raises:
        ExportError: there is none, its files are not those published, or it is none for tables.
        WorkdirError: its manifest cannot be read.
    """
    folder = version_folder(path)
    content = manifest.read_manifest(folder)
    recorded = content.get("data") or {}
    if "schema" not in recorded:
        raise ExportError(
            f"{folder} was not trained on a table: its manifest has no schema of columns. "
            "Expected a model trained with --data=TABLE --target=COLUMN."
        )
    try:
        schema = Schema.from_json(recorded["schema"])
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"The schema in {folder / manifest.NAME} cannot be understood ({error!r}); it may be "
            "of another version of kerastrain. Train and publish the model again."
        ) from error
    return PublishedModel(folder, schema, recorded.get("statistics"))


def version_folder(path: Path) -> Path:
    """The folder that `path` means, as `find_model` says.

    Raises:
        ExportError: there is none, or more than one model.
    """
    if not path.is_dir():
        raise ExportError(
            f"There is no folder '{path}'; expected a published version, a folder of versions, "
            f"or a run's work directory.{suggested_path(path)}"
        )
    if (path / manifest.NAME).exists():
        return path
    bases = [path] if manifest.versions(path) else _bases_of(Workdir(path))
    if len(bases) > 1:
        raise ExportError(
            f"{path} holds {len(bases)} models; give one of {', '.join(map(str, bases))}."
        )
    if not bases:
        is_run = Workdir(path).run_file.exists()
        raise ExportError(
            f"{path} holds no published model"
            + (": its run is not finished. Give its train command again." if is_run else
               " (VERSION/saved_model.pb, or export/NAME/VERSION/ in a run's work directory).")
        )  # fmt: skip
    return bases[0] / str(manifest.versions(bases[0])[-1])


def _bases_of(workdir: Workdir) -> list[Path]:
    """A run's exports; of several the one with its recipe's name, others were put there by hand."""
    exports = sorted(workdir.exports.iterdir()) if workdir.exports.is_dir() else []
    bases = [base for base in exports if manifest.versions(base)]
    if len(bases) > 1 and workdir.run_file.exists():
        recipe = read_json(workdir.run_file).get("recipe") or ""
        return [base for base in bases if base.name == Path(recipe).stem] or bases
    return bases


def predict_file(
    model: PublishedModel,
    source: str | Path,
    output: Path,
    *,
    keep: str = "unused",
    batch_rows: int = BATCH_ROWS,
    overwrite: bool = False,
    table_format: TableFormat | None = None,
    progress: Callable[[int, int | None], object] = lambda rows, total: None,
) -> Predicted:
    """Predicts every row of a table and writes the answers, all or nothing.

    Args:
        source: CSV or Parquet; a file, a folder, or a glob.
        output: .parquet or .csv: the columns kept, then `label`, `probability` (of the label)
            and `probability_CLASS` of each class; or `prediction`, and `prediction_qLEVEL`
            of each quantile. A kept column of such a name gets the prefix "input_". Columns
            that the model does not take are kept as the text that CSV has, without spaces
            around it; what stands for a missing value (`content.MISSING`) is left empty.
        keep: "unused" (columns that the model does not take), "all", "none", or names.
        table_format: of CSV input, where it is not to be detected.
        progress: called after each batch with the number of rows done, and of all rows
            where that is known before they are read (Parquet), else None.

    Raises:
        UsageError: the output cannot be written there, or `keep` names no column.
        DataError: the input lacks a column, has one of another type, or a value that is no
            number; nothing is written.
        ExportError: the model cannot be loaded.
    """
    check_output(output, flag="output", suffixes=PARQUET + CSV, overwrite=overwrite)
    files = open_table(source, table_format=table_format)
    _check_apart(files, Path(source), output)
    check_columns(files.column_names, model.schema, source=f"'{source}'")
    kept = kept_columns(keep, files.column_names, model.schema)
    total = _total_rows(files)
    if total is None:  # CSV, whose columns have no types of their own
        types = kept_types(kept, model.schema) | arrow_types(model.schema)
        files = open_table(source, table_format=table_format, column_types=types)
    from kerastrain.export.asking import load_export

    export = load_export(model.folder)
    needed = {*kept, *(column.name for column in model.schema.columns)}
    columns = [name for name in files.column_names if name in needed]
    counts = DriftCounts(model.statistics, model.schema) if model.statistics else None
    summary = Summary()
    with TableWriter(output) as writer:
        for table in files.batches(columns, rows=batch_rows):
            rows = incoming_rows(table, model.schema, rows_before=writer.rows)
            if counts is not None:
                counts.add(rows)
            answers = answer_columns(_ask(export, rows), model.schema)
            summary.add(answers)
            names = names_beside(kept, answers)
            written = {names[name]: table[name] for name in kept} | answers
            writer.write(pa.table(written))
            progress(writer.rows, total)
        if writer.rows == 0:
            raise DataError(f"'{source}' has no rows; nothing was written.")
    _log_renamed(names)
    return Predicted(writer.rows, list(written), summary.values(), counts)


def _check_apart(files: TableFiles, source: Path, output: Path) -> None:
    """The output must not become a part of the input, now or when the command is given again."""
    place = output.resolve()
    if place in {file.resolve() for file in files.files}:
        raise UsageError(f"--output={output} is the input itself; give another name.")
    if source.is_dir() and source.resolve() in place.parents:
        raise UsageError(
            f"--output={output} lies in the folder of the input, {source}, and would be read as "
            "input the next time; write it elsewhere."
        )


def _total_rows(files: TableFiles) -> int | None:
    try:
        return sum(pyarrow.parquet.read_metadata(file).num_rows for file in files.files)
    except pa.ArrowException:  # CSV
        return None


def _ask(export: Export, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answers for one batch, in one call."""
    from kerastrain.export.quiet import quiet_tensorflow
    from kerastrain.export.rows import as_tensors

    with quiet_tensorflow():
        answers = export.signature(**as_tensors(rows, export.inputs))
    return {name: tensor.numpy() for name, tensor in answers.items()}


def _log_renamed(names: Mapping[str, str]) -> None:
    renamed = [f"'{old}' is '{new}'" for old, new in names.items() if old != new]
    if renamed:
        logger.info("Columns of the input with the name of an answer: %s.", ", ".join(renamed))
