"""`kerastrain schema`: what the columns of a table are taken for, before anything is trained.

    kerastrain schema --data=housing.csv --target=median_house_value
    kerastrain schema --data=housing.csv --target=median_house_value --output=schema.json

The file can be edited and given to train by --schema. TensorFlow is not needed for it.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from absl import flags

from kerastrain.cli import table_flags
from kerastrain.options import TrainOptions
from kerastrain.workdir import check_file, write_json

logger = logging.getLogger(__name__)

SUMMARY = "Show what the columns of a table are taken for; write it to a file to edit."
FLAGS = flags.FlagValues()

flags.DEFINE_string(
    "data",
    None,
    "The table: a CSV or Parquet file, a folder of them, or a pattern such as 'part-*.csv'.",
    flag_values=FLAGS,
)
flags.DEFINE_string("target", None, "The column to predict.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Of the splits by chance.", flag_values=FLAGS)
table_flags.define(FLAGS)
flags.DEFINE_string("output", None, "Write the schema to this file, as JSON.", flag_values=FLAGS)


def run(values: flags.FlagValues) -> int:
    """Prints the schema and the splits' sizes, and returns the exit status."""
    output = None if values.output is None else Path(values.output).expanduser()
    if output is not None:
        check_file(output, flag="output")
    options = TrainOptions(
        data=values.data and str(Path(values.data).expanduser()),
        target=values.target,
        seed=values.seed,
        table=table_flags.table_options(values),
    )
    # pyarrow, which --help must not wait for.
    from kerastrain.data.tables.columns import raw_columns, taken
    from kerastrain.data.tables.remarks import leaks
    from kerastrain.data.tables.schema_file import schema_text
    from kerastrain.data.tables.table import load_table

    # The table itself says what is left out.
    logging.getLogger("kerastrain").setLevel(logging.WARNING)
    loaded = load_table(options)
    print(schema_text(loaded.schema, loaded.table))
    sizes = ", ".join(f"{name} {len(rows):,}" for name, rows in loaded.splits.items())
    print(f"{loaded.table.num_rows:,} rows: {sizes}")
    if (positive := getattr(loaded.task, "positive", None)) is not None:
        print(f"positive class: {positive}")
    train = loaded.splits["train"]
    columns = taken(raw_columns(loaded.table, loaded.schema), train)
    for remark in leaks(columns, loaded.targets[train], loaded.schema):
        logger.warning("%s", remark)
    if output is not None:
        write_json(output, loaded.schema.to_json())
        print(f"Written to {output}. Edit it, and train with --schema={shlex.quote(str(output))}")
    return 0
