"""Adds further formats to a version that is being made: only those that answer rightly.

    added = add_formats(served, data, names, folder=pending / "model", rows=rows)
    added.reports["onnx"]       # {"file", "bytes", "error", "error_of", "agreement", "takes", …}
    added.left_out              # {"model_int8.tflite": "84.0% of the labels are …"}

Files are made in a folder of their own, checked there in fresh processes, and moved into the
version when nothing is wrong with them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kerastrain.data.source import Data
from kerastrain.errors import ExportError
from kerastrain.export.formats import checking, keras_files, making, processes
from kerastrain.export.formats.catalog import (
    DEFAULT,
    FORMATS,
    INSTALL,
    KERAS,
    PREPROCESSING,
    SAVED_MODEL,
    Format,
    missing_packages,
)
from kerastrain.export.formats.comparing import MAIN
from kerastrain.export.formats.stage import Stage, write_stage
from kerastrain.export.rows import Rows
from kerastrain.export.serving import ServedModel
from kerastrain.export.signatures import FEATURES
from kerastrain.export.verification import tolerance_of

# By so many rows of the training the ranges of activations are measured.
SAMPLE_ROWS = 512


@dataclass
class Added:
    """What became of the formats asked for.

    Attributes:
        reports: of those that are in the version: {"file", "files", "bytes", "takes", "inputs",
            "error_of", "error", "agreement"}.
        left_out: file -> why it is not there.
    """

    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def add_formats(
    served: ServedModel,
    data: Data,
    names: Sequence[str],
    *,
    folder: Path,
    rows: Rows,
) -> Added:
    """Makes and checks formats of `catalog.FORMATS` besides the SavedModel and `.keras`.

    Args:
        folder: the version's; right files are moved into it.
        rows: real ones as clients send them, by which formats are compared.
    """
    added = Added()
    wanted = [FORMATS[name] for name in names if name not in DEFAULT]
    able = []
    for one in wanted:
        lacking = missing_packages(one)
        if lacking:
            added.left_out[one.file] = f"{', '.join(lacking)} is not installed: {INSTALL}"
        else:
            able.append(one)
    if not able:
        return added
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        try:
            stage = write_stage(
                Path(place) / "stage",
                served,
                rows,
                sample=_sample(served, data),
                tolerance=tolerance_of(served.model),
            )
        except ExportError as error:
            added.left_out |= {one.file: str(error) for one in able}
            return added
        _make_and_check(stage, served, able, folder, added)
    if added.reports and served.encoder is not None:
        # Which imports what reads tables; a run on images does without.
        from kerastrain.export.formats.preprocessing import write_preprocessing

        reason = write_preprocessing(folder / PREPROCESSING, served, data, rows)
        if reason is not None:
            added.left_out[PREPROCESSING] = reason
    return added


def _make_and_check(
    stage: Stage, served: ServedModel, able: list[Format], folder: Path, added: Added
) -> None:
    problems = _make_keras(stage, served, able)
    others = [one.name for one in able if one.runtime != "keras"]
    reports = processes.run_step(making.STEP, stage.folder, others) if others else {}
    problems |= {name: report.get("problems", []) for name, report in reports.items()}
    found: dict[str, dict[str, Any]] = {}
    for runtime in dict.fromkeys(one.runtime for one in able):
        made = [one.name for one in able if one.runtime == runtime and not problems[one.name]]
        if made:
            found |= processes.run_step(checking.STEP, stage.folder, made)
    for one in able:
        report = found.get(one.name, {"problems": problems[one.name]})
        if report["problems"]:
            reason = " ".join(report["problems"])
            if one.runtime == "keras" and one.name in found:
                reason = keras_files.why_unloadable(served.network, reason)
            added.left_out[one.file] = reason
        else:
            added.reports[one.name] = _published(stage, one, folder, report)


def _make_keras(stage: Stage, served: ServedModel, able: list[Format]) -> dict[str, list[str]]:
    """Makes Keras's files here, where the model is; says what is wrong with each."""
    wanted = [one.name for one in able if one.runtime == "keras"]
    # Weights are checked in the architecture, and that with the weights.
    pair = ("weights", "architecture")
    needed = dict.fromkeys([*wanted, *(pair if set(pair) & set(wanted) else ())])
    problems: dict[str, list[str]] = {}
    for name in needed:
        problems[name] = []
        try:
            keras_files.make(served, name, stage.made / FORMATS[name].file)
        except OSError:
            raise
        except Exception as error:  # whatever a layer's get_config of the user's own raises
            problems[name] = [f"Keras cannot save it: {making.said(error)}"]
    for name, other in (pair, pair[::-1]):
        if name in wanted and problems[other] and not problems[name]:
            file = FORMATS[other].file
            problems[name] = [f"it cannot be checked without {file}: {problems[other][0]}"]
    return problems


def _published(
    stage: Stage, one: Format, folder: Path, report: Mapping[str, Any]
) -> dict[str, Any]:
    """Moves the format's files into the version; returns what the manifest says of it."""
    files = (one.file, *one.also)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage.made / file, folder / file)
    return {
        "file": one.file,
        "files": list(files),
        "bytes": sum((folder / file).stat().st_size for file in files),
        "takes": stage.takes,
        "inputs": dict(stage.inputs),
        **{name: report[name] for name in ("error_of", "error", "agreement")},
    }


def default_reports(folder: Path, differences: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """The reports of the SavedModel and `.keras` in a version folder, which publishing checks.

    Args:
        differences: the largest of each of the SavedModel's answers.
    """
    labelled = "probabilities" in differences
    main = next((name for name in MAIN if name in differences), next(iter(differences), ""))
    parts = [folder / "saved_model.pb", folder / "fingerprint.pb"]
    parts += [path for name in ("variables", "assets") for path in (folder / name).rglob("*")]
    found = {
        SAVED_MODEL: {
            "file": FORMATS[SAVED_MODEL].file,
            "bytes": sum(path.stat().st_size for path in parts if path.is_file()),
            "takes": "raw rows",
            "error_of": main,
            "error": differences.get(main),
            # Labels that differ keep a version from being published.
            "agreement": 1.0 if labelled else None,
        }
    }
    file = folder / FORMATS[KERAS].file
    if file.exists():
        # Within the tolerance; how far was not written down.
        found[KERAS] = {
            **found[SAVED_MODEL],
            "file": file.name,
            "bytes": file.stat().st_size,
            "error": None,
        }
    return found


def _sample(served: ServedModel, data: Data) -> dict[str, np.ndarray]:
    """Training rows as the network takes them, from all over."""
    from kerastrain.export.naming import traced_names

    count = len(data.train)
    chosen = np.unique(np.linspace(0, count - 1, min(count, SAMPLE_ROWS)).astype(np.int64))
    inputs = data.train.take(chosen).inputs
    if served.encoder is not None:
        named = dict(inputs) if isinstance(inputs, Mapping) else {FEATURES: inputs}
        return {name: np.asarray(array) for name, array in named.items()}
    traced = traced_names(served.inputs)
    arrays = inputs if isinstance(inputs, Mapping) else {next(iter(traced)): inputs}
    return {traced[name]: np.asarray(arrays[name]) for name in traced}
