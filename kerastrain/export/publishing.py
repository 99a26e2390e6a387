"""Puts a checked export in its place: BASE/VERSION/, complete or not at all.

    published = publish(model, data, base=workdir.exports / "mnist_cnn", facts={…})
    published.path       # …/export/mnist_cnn/3, ready for TensorFlow Serving with BASE as base path

A version folder holds

    saved_model.pb, variables/, fingerprint.pb   the SavedModel
    model.keras                                  the same from raw rows, for Keras
    assets.extra/manifest.json                   what it is, measured and checked; digests
    assets.extra/tf_serving_warmup_requests      real rows, asked before the version is used
    …                                            further formats, if asked for

`model.keras` lies at the root, where a person looks: TensorFlow's loader opens
the files that it knows by name and reads no others (a test holds that), and
TensorFlow Serving hands the folder to that loader.

Everything is made in BASE/.pending-*, which a server that polls BASE passes
over (its name is no integer), is checked there, flushed to the disk, and moved
by one rename. A killed publish leaves its .pending-* folder; the next removes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import platform
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kerastrain
from kerastrain.data.source import Data
from kerastrain.errors import Declined, ExportError, KerastrainError
from kerastrain.export import fresh_process, manifest, verification
from kerastrain.export.evaluation import evaluate
from kerastrain.export.formats import catalog
from kerastrain.export.formats.adding import add_formats, default_reports
from kerastrain.export.placing import (
    changing,
    closed_to_others,
    move_into_place,
    pending_folder,
    remove_leftovers,
)
from kerastrain.export.publish_decision import Decision
from kerastrain.export.rows import Rows, raw_rows
from kerastrain.export.scoring import answers_of_test_rows
from kerastrain.export.serving import ServedModel
from kerastrain.export.signatures import DEFAULT
from kerastrain.export.warmup import write_warmup

logger = logging.getLogger(__name__)

ROWS = 256
# For the confidence intervals: a quarter of a second at 10,000 test rows.
RESAMPLES = 200
RESAMPLED_ROWS = 20_000_000


@dataclass(frozen=True)
class Published:
    """A version that is in its place.

    Attributes:
        path: BASE/VERSION.
        metrics: of the SavedModel on the test split; empty without one.
        signatures: {"serving_default": {"inputs": {name: {"dtype", "shape"}}, "outputs": …}}.
        digest: sha256 over all files (`kerastrain.export.manifest.digests`).
        left_out: file -> why it is not there; empty as a rule.
        formats: name -> what is known of each format that is there: file, bytes, error, ….
    """

    path: Path
    version: int
    metrics: Mapping[str, float]
    signatures: Mapping[str, Any]
    digest: str
    left_out: Mapping[str, str]
    formats: Mapping[str, Any] = field(default_factory=dict)


def publish(
    model: keras.Model,
    data: Data,
    *,
    base: Path,
    facts: Mapping[str, Any],
    process: fresh_process.FreshProcess | None = None,
    formats: Sequence[str] = catalog.DEFAULT,
    accept: Callable[[Path], Decision] | None = None,
) -> Published:
    """Exports the model as it is now, checks the export, and publishes it as the next version.

    Args:
        base: holds the versions; made if need be.
        facts: what the manifest says about the run (recipe, options, step, …).
        process: checks the export; None: one is started.
        formats: of `kerastrain.export.formats.catalog`. One besides the SavedModel that cannot
            be made, or answers differently, is left out with the reason.
        accept: decides whether the version, checked and in a folder, is published.

    Raises:
        Declined: `accept` decided against it.
        ExportError: the model cannot be exported, or its export answers
            differently; nothing is published.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        remove_leftovers(base)
        with pending_folder(base) as pending, contextlib.ExitStack() as stack:
            process = process or stack.enter_context(fresh_process.FreshProcess())
            made = _make(model, data, pending, process, formats)
            found = _prepare(made, data, pending, {"name": base.name, **facts})
            with changing(base):  # nothing else is deployed between the decision and the rename
                _decide(accept, pending / "model")
                version = move_into_place(pending / "model", base)
                closed = closed_to_others(base / str(version))
    except OSError as error:
        raise ExportError(f"The model cannot be exported to {base}: {error}") from error
    if closed is not None:
        logger.info(
            "Another user's server cannot read %s: %s is closed to others (chmod o+rX opens it).",
            base / str(version),
            closed,
        )
    for name, reason in found["left_out"].items():
        logger.warning("%s is not published: %s", name, reason)
    return _published(base, version, found)


def _decide(accept: Callable[[Path], Decision] | None, folder: Path) -> None:
    decision = None if accept is None else accept(folder)
    if decision is None:
        return
    if not decision.publish:
        raise Declined(decision.text, decision=decision)
    logger.info("%s", decision.text)


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
    known = {name: content[name] for name in names}
    return Published(base / str(version), version, **known, formats=content.get("formats", {}))


class Rehearsal:
    """Fails early: exports and checks the model as it is, trained or not, and throws it away.

    with Rehearsal(model, data, process) as rehearsal:
        ...                        # while the process checks the export
        rehearsal.finish()
    """

    def __init__(self, model: keras.Model, data: Data, process: fresh_process.FreshProcess):
        self._model, self._data, self._process = model, data, process
        self._failed: ExportError | None = None

    def __enter__(self) -> Rehearsal:
        self._folder = tempfile.TemporaryDirectory()
        try:
            self._written = _write(self._model, self._data, Path(self._folder.name))
            self._process.begin(Path(self._folder.name))
        except ExportError as error:
            self._failed = error
        return self

    def __exit__(self, *exception: object) -> None:
        self._folder.cleanup()

    def finish(self) -> str:
        """Waits for the check.

        Returns:
            What was found, for people.

        Raises:
            ExportError: as `publish` would for this model and data after the training.
        """
        if self._failed is not None:
            raise self._failed
        made = _checked(self._written, Path(self._folder.name), self._process)
        formats = "SavedModel" if "model.keras" in made.left_out else "SavedModel and .keras"
        return f"{formats} answer{'s' * (formats == 'SavedModel')} as the model does on {ROWS} rows"


@dataclass(frozen=True)
class _Written:
    """An export that lies in a folder."""

    served: ServedModel
    signatures: Mapping[str, Any]
    left_out: Mapping[str, str]
    custom_modules: Mapping[str, str]
    requests: Mapping[str, Rows]


@dataclass(frozen=True)
class _Made(_Written):
    """An export that was checked, too."""

    differences: Mapping[str, float]
    formats: Mapping[str, Any] = field(default_factory=dict)


def _make(
    model: keras.Model,
    data: Data,
    pending: Path,
    process: fresh_process.FreshProcess,
    formats: Sequence[str],
) -> _Made:
    """Makes PENDING/model in these formats and checks that each answers as the live model does."""
    folder = pending / "model"
    written = _write(model, data, pending)
    if catalog.KERAS not in formats:  # It was made to see which modules the model needs.
        (folder / "model.keras").unlink(missing_ok=True)
        written = dataclasses.replace(written, left_out={})
    process.begin(pending)
    made = _checked(written, pending, process)
    added = add_formats(
        made.served,
        data,
        formats,
        folder=folder,
        rows=made.requests[DEFAULT],
        custom_modules=_elsewhere(made.custom_modules),
    )
    return dataclasses.replace(
        made,
        left_out={**made.left_out, **added.left_out},
        formats={**default_reports(folder, made.differences), **added.reports},
    )


def _write(model: keras.Model, data: Data, pending: Path) -> _Written:
    """Writes PENDING/model in all formats, and what its check needs."""
    folder = pending / "model"
    served = ServedModel.of(model, data)
    signatures = served.save(folder)
    left_out = _save_keras(served, folder / "model.keras")
    custom = _custom_modules(folder / "model.keras")
    rows = check_rows(raw_rows(data, served.inputs))
    requests = verification.write_check(pending, served, rows, custom_modules=_elsewhere(custom))
    return _Written(served, signatures, left_out, custom, requests)


def _elsewhere(custom_modules: Mapping[str, str]) -> dict[str, str]:
    """Without the user's script: running it in another process might train again."""
    return {name: file for name, file in custom_modules.items() if name != "__main__"}


def _checked(written: _Written, pending: Path, process: fresh_process.FreshProcess) -> _Made:
    """Waits for the check that has begun; takes out a `.keras` that cannot be loaded."""
    folder, left_out = pending / "model", dict(written.left_out)
    report = process.finish(pending)
    if report["keras"] and "__main__" in written.custom_modules:
        report = _check_keras_here(pending, report)
    if report["problems"]:
        raise ExportError(_explained(report["problems"]))
    if report["keras"]:
        (folder / "model.keras").unlink()
        left_out["model.keras"] = f"Keras cannot load it by itself: {report['keras']}"
    return _Made(
        **{**vars(written), "left_out": left_out},
        differences=report["differences"],
    )


def _prepare(made: _Made, data: Data, pending: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Measures PENDING/model, which was checked; returns its manifest."""
    folder = pending / "model"
    write_warmup(folder, made.requests, model=facts["name"])
    content = {
        **facts,
        **_described(made.served),
        **_measured(folder, data, made.served),
        "signatures": made.signatures,
        "verified": {
            "rows": ROWS,
            "batch_sizes": verification.BATCH_SIZES,
            "largest_differences": made.differences,
        },
        "left_out": made.left_out,
        "formats": made.formats,
        "custom_modules": sorted(made.custom_modules),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return manifest.write_manifest(folder, content)


def _measured(folder: Path, data: Data, served: ServedModel) -> dict[str, Any]:
    """Metrics on the test split, if there is one, with their confidence intervals."""
    if data.test is None:
        return {"metrics": {}, "intervals": {}}
    resamples = min(RESAMPLES, RESAMPLED_ROWS // len(data.test))
    found = evaluate(
        data.task or served.task,
        answers_of_test_rows(folder, data),
        data.test.targets,
        weights=data.test.weights,
        # A few resamples give no percentiles; with that many rows intervals are narrow anyway.
        resamples=resamples if resamples >= RESAMPLES // 4 else 0,
    )
    content = found.to_json()
    names = ("metrics", "intervals", "resamples", "confidence")
    return {name: content[name] for name in names} | {"test_rows": found.rows}


def _described(served: ServedModel) -> dict[str, Any]:
    """What is predicted, and by which libraries."""
    return {
        "task": manifest.task_to_json(served.task),
        "classes": getattr(served.task, "classes", None),
        "pixels": None if served.pixels is None else dataclasses.asdict(served.pixels),
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
