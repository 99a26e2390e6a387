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
import logging
import platform
import tempfile
import time
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
from kerastrain.export.asking import training_batch
from kerastrain.export.evaluation import evaluate
from kerastrain.export.formats import catalog, keras_files
from kerastrain.export.formats.adding import Added, add_formats, default_reports
from kerastrain.export.formats.making import said
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
RANDOM = "The model draws random numbers when it is asked, so that this cannot be compared with it."
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
        facts: what the manifest says about the run (recipe, options, step, …). No more rows
            are asked about at once than the options' `batch_size`: for those there was memory.
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
            made = _make(model, data, pending, process, formats, training_batch(facts))
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
    _warn_of_unchecked(found["verified"]["unchecked"])
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

    def __init__(
        self,
        model: keras.Model,
        data: Data,
        process: fresh_process.FreshProcess,
        *,
        batch_size: int = ROWS,
    ):
        self._model, self._data, self._process = model, data, process
        self._batch_size = batch_size
        self._failed: ExportError | None = None

    def __enter__(self) -> Rehearsal:
        self._folder = tempfile.TemporaryDirectory()
        try:
            folder = Path(self._folder.name)
            self._written = _write(self._model, self._data, folder, self._batch_size)
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
        _warn_of_unchecked(made.unchecked)
        reason, rows = made.left_out.get("model.keras"), f"as the model does on {made.rows} rows"
        if reason:
            return f"the SavedModel answers {rows}; no .keras: {reason}"
        return f"SavedModel and .keras answer {rows}"


@dataclass(frozen=True)
class _Written:
    """An export that lies in a folder."""

    served: ServedModel
    signatures: Mapping[str, Any]
    left_out: Mapping[str, str]
    requests: Mapping[str, Rows]

    @property
    def rows(self) -> int:
        """How many the live model was asked about."""
        return len(next(iter(self.requests[DEFAULT].values())))


@dataclass(frozen=True)
class _Made(_Written):
    """An export that was checked, too."""

    differences: Mapping[str, float]
    unchecked: Mapping[str, str]
    formats: Mapping[str, Any] = field(default_factory=dict)


def _make(
    model: keras.Model,
    data: Data,
    pending: Path,
    process: fresh_process.FreshProcess,
    formats: Sequence[str],
    batch_size: int,
) -> _Made:
    """Makes PENDING/model in these formats and checks that each answers as the live model does."""
    folder = pending / "model"
    written = _write(model, data, pending, batch_size, with_keras=catalog.KERAS in formats)
    process.begin(pending)
    made = _checked(written, pending, process)
    if made.served.seeds.drawn or made.unchecked:
        others = [catalog.FORMATS[name].file for name in formats if name not in catalog.DEFAULT]
        added = Added(left_out=dict.fromkeys(others, RANDOM))
    else:
        rows = made.requests[DEFAULT]
        added = add_formats(made.served, data, formats, folder=folder, rows=rows)
    return dataclasses.replace(
        made,
        left_out={**made.left_out, **added.left_out},
        formats={**default_reports(folder, made.differences), **added.reports},
    )


def _write(
    model: keras.Model, data: Data, pending: Path, batch_size: int, *, with_keras: bool = True
) -> _Written:
    """Writes PENDING/model, SavedModel and `.keras`, and what its check needs."""
    folder = pending / "model"
    served = ServedModel.of(model, data, at_once=min(batch_size, ROWS))
    signatures = served.save(folder)
    left_out = _save_keras(served, folder / "model.keras") if with_keras else {}
    rows = check_rows(raw_rows(data, served.inputs))
    requests = verification.write_check(pending, served, rows)
    return _Written(served, signatures, left_out, requests)


def _checked(written: _Written, pending: Path, process: fresh_process.FreshProcess) -> _Made:
    """Waits for the check that has begun; takes out a `.keras` that cannot be loaded."""
    folder, left_out = pending / "model", dict(written.left_out)
    report = process.finish(pending)
    if report["problems"]:
        raise ExportError(_explained(report["problems"]))
    if report["keras"]:
        (folder / "model.keras").unlink()
        reason = f"Keras cannot load it by itself: {report['keras']}"
        model = written.served.keras_model()
        left_out["model.keras"] = keras_files.why_unloadable(model, reason)
    return _Made(
        **{**vars(written), "left_out": left_out},
        differences=report["differences"],
        unchecked=report["unchecked"],
    )


def _warn_of_unchecked(unchecked: Mapping[str, str]) -> None:
    for reason in dict.fromkeys(unchecked.values()):
        names = ", ".join(name for name, own in unchecked.items() if own == reason)
        logger.warning("The export is not compared with the model in %s: %s.", names, reason)


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
            "rows": made.rows,
            "batch_sizes": verification.batch_sizes(made.served),
            "largest_differences": made.differences,
            "unchecked": made.unchecked,
        },
        "left_out": made.left_out,
        "formats": made.formats,
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
        answers_of_test_rows(folder, data, at_once=served.at_once),
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
    """256 of the rows, or all, in an order by which the first few are from all over, too."""
    count = len(next(iter(rows.values())))
    chosen = np.unique(np.linspace(0, count - 1, min(count, ROWS)).astype(np.int64))
    np.random.default_rng(0).shuffle(chosen)
    return {name: array[chosen] for name, array in rows.items()}


def _save_keras(served: ServedModel, path: Path) -> dict[str, str]:
    """Writes `.keras`; when Keras cannot, returns why. The SavedModel does without."""
    try:
        served.save_keras(path)
    except OSError:
        raise
    except Exception as error:  # whatever a layer's get_config of the user's own raises
        path.unlink(missing_ok=True)
        return {path.name: f"Keras cannot save it: {said(error)}"}
    return {}


def _explained(problems: list[str]) -> str:
    shown = "\n  ".join(problems[:8])
    more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
    return (
        "The exported model does not answer as the trained one does; nothing was published.\n"
        f"  {shown}{more}"
    )
