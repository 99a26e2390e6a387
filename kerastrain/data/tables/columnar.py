"""Parquet by pyarrow: whole with all threads, or batch by batch with the same types.

file = ParquetFile(Path("covtype.parquet"))
types = file.types(file.names)           # plain: int8 … int64, float, double, string, …
table = file.read(file.names, types)
for block in file.blocks(file.names, types): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from kerastrain.data.tables.columns import plain_table
from kerastrain.data.tables.content import Place, cast_column
from kerastrain.errors import DataError

# Of a value in memory, whatever its dictionary saves on disk.
_VALUE_BYTES = {"INT64": 8, "DOUBLE": 8}
_LEAST_VALUE_BYTES = 4
_BLOCK_ROWS = 65_536


class ParquetFile:
    """One Parquet file.

    Attributes:
        names: of its columns.
        index_names: of those that pandas, which wrote the file, had as the index of the rows.

    Raises:
        DataError: it has no rows; a value has not the type that is given.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._open() as file:
            self._schema = file.schema_arrow
            metadata = file.metadata
        if metadata.num_rows == 0:
            raise DataError(f"'{path}' has a header but no rows.")
        self.names = list(self._schema.names)
        pandas = self._schema.pandas_metadata or {}
        # An index that only counts is no column, but a description.
        self.index_names = [one for one in pandas.get("index_columns", ()) if one in self.names]
        self.nbytes_estimate = sum(
            _chunk_bytes(metadata.row_group(group).column(place))
            for group in range(metadata.num_row_groups)
            for place in range(metadata.num_columns)
        )

    def types(self, names: Sequence[str]) -> dict[str, pa.DataType]:
        """The types of these columns once they are plain; bytes that are all text are text."""
        empty = self._schema.empty_table().select(list(names))
        types = {field.name: field.type for field in plain_table(empty).schema}
        for name in names:
            if _is_bytes(self._schema.field(name).type) and not self._is_text(name):
                types[name] = pa.binary()
        return types

    def read(self, names: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
        """These columns whole. `types` has every name."""
        with self._open() as file:
            table = file.read(columns=list(names))
        return self._finished(table, names, types, 0)

    def blocks(self, names: Sequence[str], types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        """The same rows in order, in blocks; memory is that of the pages being read."""
        rows = 0
        with self._open() as file:
            for batch in file.iter_batches(batch_size=_BLOCK_ROWS, columns=list(names)):
                table = pa.Table.from_batches([batch])
                yield self._finished(table, names, types, rows)
                rows += table.num_rows

    def _open(self) -> pyarrow.parquet.ParquetFile:
        return pyarrow.parquet.ParquetFile(self.path)

    def _is_text(self, name: str) -> bool:
        with self._open() as file:
            for batch in file.iter_batches(batch_size=_BLOCK_ROWS, columns=[name]):
                table = pa.Table.from_batches([batch]).select([name])
                if not pa.types.is_string(plain_table(table).schema.field(0).type):
                    return False
        return True

    def _finished(
        self,
        table: pa.Table,
        names: Sequence[str],
        types: Mapping[str, pa.DataType],
        rows_before: int,
    ) -> pa.Table:
        # Asked for "a", pyarrow gives "a.b" as well, which it takes for a part of it.
        table = table.select(list(names))
        is_bytes = {name for name in names if pa.types.is_binary(types[name])}
        plain = plain_table(table.drop_columns(list(is_bytes))) if is_bytes else plain_table(table)
        columns = [
            cast_column(
                table[name] if name in is_bytes else plain[name],
                types[name],
                Place(self.path, name, rows_before),
            )
            for name in names
        ]
        return pa.table(columns, names=list(names))


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _chunk_bytes(chunk: pyarrow.parquet.ColumnChunkMetaData) -> int:
    width = _VALUE_BYTES.get(chunk.physical_type, _LEAST_VALUE_BYTES)
    return max(chunk.total_uncompressed_size, width * chunk.num_values)
