"""Puts a checked export in its place: BASE/VERSION/, complete or not at all.

    published = publish(model, data, base=workdir.exports / "mnist_cnn", facts={…})
    published.path       # …/export/mnist_cnn/3, ready for TensorFlow Serving with BASE as base path

A version folder holds

    saved_model.pb, variables/, fingerprint.pb   the SavedModel
    model.keras                                  the same from raw rows, for Keras
    manifest.json                                what it is, measured and checked; digests

The last two lie at the root, where a person looks: TensorFlow's loader opens
the files that it knows by name and reads no others (a test holds that), and
TensorFlow Serving hands the folder to that loader.

Everything is made in BASE/.pending-*, which a server that polls BASE passes
over (its name is no integer), is checked there, flushed to the disk, and moved
by one rename. A killed publish leaves its .pending-* folder; the next removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kerastrain
from kerastrain.data.source import Data
from kerastrain.errors import ExportError, KerastrainError
from kerastrain.export import manifest, verification
from kerastrain.export.rows import Rows, raw_rows
from kerastrain.export.scoring import evaluate_export
from kerastrain.export.serving import ServedModel
from kerastrain.workdir import sync, write_json

logger = logging.getLogger(__name__)

ROWS = 256
PENDING = ".pending-"


@dataclass(frozen=True)
class Published:
    """A version that is in its place.

    Attributes:
        path: BASE/VERSION.
        metrics: of the SavedModel on the test split; empty without one.
        signatures: {"serving_default": {"inputs": {name: {"dtype", "shape"}}, "outputs": …}}.
        digest: sha256 over all files (`kerastrain.export.manifest.digests`).
        left_out: file -> why it is not there; empty as a rule.
    """

    path: Path
    version: int
    metrics: Mapping[str, float]
    signatures: Mapping[str, Any]
    digest: str
    left_out: Mapping[str, str]


def publish(model: keras.Model, data: Data, *, base: Path, facts: Mapping[str, Any]) -> Published:
    """Exports the model as it is now, checks the export, and publishes it as the next version.

    Args:
        base: holds the versions; made if need be.
        facts: what the manifest says about the run (recipe, options, step, …).

    Raises:
        ExportError: the model cannot be exported, or its export answers
            differently; nothing is published.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        remove_leftovers(base)
        with _pending_folder(base) as pending:
            found = _prepare(model, data, pending, facts)
            _sync_tree(pending / "model")
            version = _move_into_place(pending / "model", base)
    except OSError as error:
        raise ExportError(f"The model cannot be exported to {base}: {error}") from error
    for name, reason in found["left_out"].items():
        logger.warning("%s is not published: %s", name, reason)
    return _published(base, version, found)


def published_before(base: Path, facts: Mapping[str, Any]) -> Published | None:
    """The newest version, when these facts are its own: published by a start killed right after.

    So that the same command, run again, does not publish the same model twice.
    """
    version = max(manifest.versions(base), default=None)
    if version is None:
        return None
    try:
        content = manifest.read_manifest(base / str(version))
    except KerastrainError as error:
        logger.warning("Version %d is damaged and not taken for this model's: %s", version, error)
        return None
    if any(content.get(name) != value for name, value in manifest.plain(facts).items()):
        return None
    return _published(base, version, content)


def _published(base: Path, version: int, content: Mapping[str, Any]) -> Published:
    names = ("metrics", "signatures", "digest", "left_out")
    return Published(base / str(version), version, **{name: content[name] for name in names})


def rehearse(model: keras.Model, data: Data, process: verification.FreshProcess) -> str:
    """Fails early: exports and checks the model as it is, trained or not, and throws it away.

    Returns:
        What was found, for people.

    Raises:
        ExportError: as `publish` would for this model and data after the training.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = _make(model, data, Path(folder), process)
    formats = "SavedModel" if "model.keras" in made.left_out else "SavedModel and .keras"
    return f"{formats} answer{'s' * (formats == 'SavedModel')} as the model does on {ROWS} rows"


@dataclass(frozen=True)
class _Made:
    """An export that lies in a folder and was checked."""

    served: ServedModel
    signatures: Mapping[str, Any]
    left_out: dict[str, str]
    custom_modules: Mapping[str, str]
    differences: Mapping[str, float]


def _make(
    model: keras.Model, data: Data, pending: Path, process: verification.FreshProcess
) -> _Made:
    """Makes PENDING/model in all formats and checks that each answers as the live model does."""
    folder = pending / "model"
    served = ServedModel.of(model, data)
    signatures = served.save(folder)
    left_out = _save_keras(served, folder / "model.keras")
    custom = _custom_modules(folder / "model.keras")
    rows = check_rows(raw_rows(data, served.inputs))
    # Classes of the user's script cannot be imported elsewhere: running it might train again.
    elsewhere = {name: file for name, file in custom.items() if name != "__main__"}
    verification.write_check(pending, served, rows, custom_modules=elsewhere)
    report = process.check(pending)
    if report["keras"] and "__main__" in custom:
        report = _check_keras_here(pending, report)
    if report["problems"]:
        raise ExportError(_explained(report["problems"]))
    if report["keras"]:
        (folder / "model.keras").unlink()
        left_out = {"model.keras": f"Keras cannot load it by itself: {report['keras']}"}
    return _Made(served, signatures, left_out, custom, report["differences"])


def _prepare(
    model: keras.Model, data: Data, pending: Path, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Makes and checks PENDING/model; returns its manifest."""
    folder = pending / "model"
    with verification.FreshProcess() as process:
        made = _make(model, data, pending, process)
    content = {
        **facts,
        **_described(made.served),
        "metrics": {}
        if data.test is None
        else evaluate_export(folder, data, task=made.served.task),
        "signatures": made.signatures,
        "verified": {
            "rows": ROWS,
            "batch_sizes": verification.BATCH_SIZES,
            "largest_differences": made.differences,
        },
        "left_out": made.left_out,
        "custom_modules": sorted(made.custom_modules),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **manifest.digests(folder),
    }
    content = manifest.plain(content)
    write_json(folder / manifest.NAME, content)
    return content


def _described(served: ServedModel) -> dict[str, Any]:
    """What is predicted, and by which libraries."""
    return {
        "task": manifest.task_to_json(served.task),
        "classes": getattr(served.task, "classes", None),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "kerastrain": kerastrain.__version__,
        },
    }


def check_rows(rows: Rows) -> dict[str, np.ndarray]:
    """256 of the rows, spread over all of them; over again from the first when there are fewer."""
    count = len(next(iter(rows.values())))
    chosen = (
        np.resize(np.arange(count), ROWS)
        if count < ROWS
        else np.linspace(0, count - 1, ROWS).astype(np.int64)
    )
    return {name: array[chosen] for name, array in rows.items()}


def _save_keras(served: ServedModel, path: Path) -> dict[str, str]:
    """Writes `.keras`; when Keras cannot, returns why. The SavedModel does without."""
    try:
        served.save_keras(path)
    except OSError:
        raise
    except Exception as error:  # whatever a layer's get_config of the user's own raises
        path.unlink(missing_ok=True)
        return {path.name: f"Keras cannot save it: {type(error).__name__}: {error}"}
    return {}


def _custom_modules(path: Path) -> dict[str, str]:
    """Modules (name -> file) of the registered custom classes and functions that `.keras` names."""
    if not path.exists():
        return {}
    with zipfile.ZipFile(path) as archive:
        named = _strings(json.loads(archive.read("config.json")))
    found = {}
    for name, value in keras.saving.get_custom_objects().items():
        module = sys.modules.get(getattr(value, "__module__", ""))
        if name in named and module is not None:
            found[module.__name__] = getattr(module, "__file__", None) or ""
    return found


def _strings(value: Any) -> set[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(_strings, value))
    return {value} if isinstance(value, str) else set()


def _check_keras_here(pending: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Reloads `model.keras` in this process, which has the classes of the user's script."""
    plan, rows, raw, _ = verification.read_check(pending)
    path = pending / "model" / "model.keras"
    unloadable, problems = verification.check_keras(path, rows, raw, plan)
    return {**report, "keras": unloadable, "problems": report["problems"] + problems}


def _explained(problems: list[str]) -> str:
    shown = "\n  ".join(problems[:8])
    more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
    return (
        "The exported model does not answer as the trained one does; nothing was published.\n"
        f"  {shown}{more}"
    )


@contextlib.contextmanager
def _pending_folder(base: Path) -> Iterator[Path]:
    """A new folder in BASE, locked while this process works in it, gone afterwards."""
    pending = Path(tempfile.mkdtemp(prefix=PENDING, dir=base))
    descriptor = os.open(pending, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield pending
    finally:
        shutil.rmtree(pending, ignore_errors=True)
        os.close(descriptor)


def remove_leftovers(base: Path) -> None:
    """Removes what killed publishes left in BASE; one that still runs holds its lock."""
    for folder in base.glob(f"{PENDING}*"):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            logger.debug("%s belongs to a publish that is still running", folder)
        finally:
            os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    """Flushes every file and folder to the disk, so that the rename never shows half a version."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def _move_into_place(folder: Path, base: Path) -> int:
    """Renames the folder to the next free version; returns its number."""
    while True:
        version = max(manifest.versions(base), default=0) + 1
        try:
            os.rename(folder, base / str(version))
        except OSError:
            # Someone else took the number in between: a rename never replaces a filled folder.
            if not (base / str(version)).exists():
                raise
            continue
        sync(base)
        return version
