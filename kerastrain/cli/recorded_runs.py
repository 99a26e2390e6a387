"""The run that a command asks about: its record, its published model, its data.

recorded_runs.define_flags(FLAGS)                       # --workdir, --data, …
workdir, recorded, folder = recorded_runs.published(values)
data = recorded_runs.load_data(workdir, recorded, values)
"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from kerastrain.cli.terminal import quieter
from kerastrain.data.places import check_places
from kerastrain.errors import DataError, ExportError, UsageError, WorkdirError
from kerastrain.options import LOCATIONS, TABLE_LOCATIONS, TrainOptions
from kerastrain.workdir import Workdir, read_json

if TYPE_CHECKING:
    from kerastrain.data.source import Data


def define_flags(values: flags.FlagValues) -> None:
    """Adds --workdir, and a flag for each place where data may lie now."""
    flags.DEFINE_string("workdir", None, "The run's folder, as given to train.", flag_values=values)
    places = {
        "data": "the table lies",
        "data_dir": "the data set's files lie",
        "schema": "the schema file lies",
        "validation_data": "the table of validation rows lies",
        "test_data": "the table of test rows lies",
    }
    for name, what in places.items():
        flags.DEFINE_string(
            name, None, f"Where {what} now. Default: where the run found it.", flag_values=values
        )


def published(values: flags.FlagValues) -> tuple[Workdir, dict[str, Any], Path]:
    """--workdir, the record of its run, and its newest published version.

    Raises:
        UsageError, WorkdirError, ExportError: there is none.
    """
    if not values.workdir:
        raise UsageError("--workdir is missing: the folder of the run whose export is asked.")
    workdir = Workdir(os.path.expanduser(values.workdir))
    recorded = recorded_run(workdir)
    folder = newest_version(workdir, recorded)
    if values.json:
        # One line and nothing else: what is only to be known is not said; warnings are.
        logging.getLogger("kerastrain").setLevel(logging.WARNING)
    return workdir, recorded, folder


def recorded_run(workdir: Workdir) -> dict[str, Any]:
    """The record of the run in a work directory.

    Raises:
        WorkdirError: there is no run, or it was started from Python and has no recipe.
    """
    if not workdir.run_file.exists():
        raise WorkdirError(
            f"--workdir={workdir} holds no run. Train one first: "
            f"kerastrain train --recipe=… --workdir={workdir}"
        )
    recorded = read_json(workdir.run_file)
    missing = [name for name in ("recipe", "resolved", "data_fingerprint") if name not in recorded]
    if missing:
        raise WorkdirError(f"{workdir.run_file} lacks '{missing[0]}'; it is not a run's record.")
    if recorded["recipe"] is None:
        raise WorkdirError(
            f"The run in {workdir} was started from Python (kerastrain.train), so its data cannot "
            "be loaded again from here. Evaluate it there: "
            "kerastrain.export.scoring.evaluate_export(VERSION_FOLDER, data); the metrics "
            "measured at the export are in its manifest.json."
        )
    return recorded


def newest_version(workdir: Workdir, recorded: dict[str, Any]) -> Path:
    """The folder of the newest published version of the run's model.

    Raises:
        ExportError: nothing is published yet.
    """
    from kerastrain.export.manifest import versions

    exports = sorted(workdir.exports.iterdir()) if workdir.exports.is_dir() else []
    bases = [base for base in exports if versions(base)]
    # Exports of other names can only have been put there by hand.
    own = [base for base in bases if base.name == Path(recorded["recipe"]).stem] or bases
    if not own:
        raise ExportError(
            f"Nothing is exported yet in {workdir}: the run is not finished. Give its train "
            "command again to go on with it."
        )
    return own[0] / str(versions(own[0])[-1])


def load_data(workdir: Workdir, recorded: dict[str, Any], values: flags.FlagValues) -> Data:
    """The run's data, from where they lie now.

    Raises:
        DataError: they cannot be loaded, or are not those the run was trained on.
    """
    from kerastrain.recipe import load_recipe

    options = _located(TrainOptions.from_json(recorded["resolved"]), workdir, values)
    recipe = load_recipe(recorded["recipe"]).recipe
    check_places(options, recipe.reads or ())
    # What is only told about data was told by the training; warnings are shown again.
    with quieter("kerastrain.data", logging.WARNING):
        loaded = recipe.load_data(options)
    if loaded.fingerprint() != recorded["data_fingerprint"]:
        where = options.data or options.data_dir or "the recipe's data"
        raise DataError(
            f"The data ({where}) are not those that the run was trained on: their fingerprint "
            "differs, so rows of its training may be among the test rows now. Give the location "
            "of the original data by --data or --data_dir. (Or they were encoded by another "
            "version of kerastrain.)"
        )
    return loaded


def _located(options: TrainOptions, workdir: Workdir, values: flags.FlagValues) -> TrainOptions:
    """The run's options with every place where it is now."""
    given = {
        name: os.path.expanduser(values[name].value)
        for name in (*LOCATIONS, *TABLE_LOCATIONS)
        if values[name].value
    }
    table = {name: given.pop(name) for name in TABLE_LOCATIONS if name in given}
    schema = options.table.schema
    if schema is not None and "schema" not in table and not Path(schema).exists():
        table["schema"] = str(workdir.schema_file)  # The run keeps its own.
    return dataclasses.replace(
        options,
        workdir=str(workdir.path),
        table=dataclasses.replace(options.table, **table),
        **given,
    )
