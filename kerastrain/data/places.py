"""Whether the data that the options name can be there, before TensorFlow is imported.

check_places(options, recipe.reads or ())    # errors in a moment, not after ten seconds
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from kerastrain.data.tables.finding import check_exists, find_files
from kerastrain.errors import DataError
from kerastrain.options import TrainOptions


def check_places(options: TrainOptions, reads: Collection[str] = ()) -> None:
    """Looks for files, and into the headers of tables.

    Args:
        reads: what the recipe is known to read (`Recipe.reads`). The data of one that does not
            say it may be anything: a name, an address, a file that it makes.

    Raises:
        OptionsError, DataError: the data cannot be loaded.
    """
    for path in (options.table.validation_data, options.table.test_data):
        if path is not None:
            find_files(path)
    if options.table.schema is not None:
        check_exists(Path(options.table.schema))
    if "table" in reads:
        from kerastrain.data.tables.table import check_table  # with pyarrow

        check_table(options)
    folder = options.data_dir if "data_dir" in reads else None
    if folder is not None and not Path(folder).expanduser().exists():
        raise DataError(f"--data_dir={folder} does not exist; expected the data set's folder.")
