"""The manifest: what a published version is, and whether its bytes are still those published.

write_manifest(folder, {…})          # to assets.extra/manifest.json, digests included
manifest = read_manifest(folder)     # raises when a file was changed since
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerastrain.data.source import Classification, Regression, Task
from kerastrain.errors import ExportError
from kerastrain.workdir import read_json, write_json

# assets.extra/ is where TensorFlow Serving's format keeps what is no part of the model.
NAME = "assets.extra/manifest.json"


def versions(base: Path) -> list[int]:
    """The published versions, oldest first: the folders whose names are integers."""
    if not base.is_dir():
        return []
    names = [entry.name for entry in base.iterdir()]
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def digests(folder: Path) -> dict[str, Any]:
    """`files`: relative path -> sha256 of every file but the manifest; `digest`: of all of these.

    `digest` is the sha256 of the lines "SHA256  PATH\\n" in the order of the paths
    (`sha256sum` prints the same lines).
    """
    files = {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / NAME
    }
    files = dict(sorted(files.items()))
    lines = "".join(f"{sha256}  {path}\n" for path, sha256 in files.items())
    return {"digest": hashlib.sha256(lines.encode()).hexdigest(), "files": files}


def write_manifest(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifest of a version folder whose other files are all there; returns it.

    Raises:
        WorkdirError: it cannot be written.
    """
    written: dict[str, Any] = plain({**content, **digests(folder)})
    (folder / NAME).parent.mkdir(exist_ok=True)
    write_json(folder / NAME, written)
    return written


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a version folder, after comparing every file with its digest.

    Raises:
        WorkdirError: there is no manifest, or it cannot be read.
        ExportError: a file is missing, or is not the one that was published.
    """
    manifest = read_json(folder / NAME)
    recorded = manifest.get("files", {})
    for path, sha256 in recorded.items():
        if not (folder / path).resolve().is_relative_to(folder.resolve()):
            raise ExportError(f"{folder / NAME} names {path}, which is not in the version.")
        if not (folder / path).is_file():
            raise ExportError(f"{folder / path} is missing; it was published with the version.")
        if _sha256(folder / path) != sha256:
            raise ExportError(
                f"{folder / path} is not the file that was published: its sha256 differs from the "
                "manifest's. Publish the model again; nothing of this version was used."
            )
    return manifest


def task_to_json(task: Task | None) -> dict[str, Any] | None:
    """A task as {"kind": "classification", "classes": […]} or {"kind": "regression", …}."""
    if task is None:
        return None
    values = plain(dataclasses.asdict(task))
    return {"kind": type(task).__name__.lower(), **values}


def task_from_json(value: Mapping[str, Any] | None) -> Task | None:
    """The opposite of `task_to_json`."""
    if value is None:
        return None
    if value["kind"] == "regression":
        return Regression(value["target"], tuple(value.get("quantiles", ())))
    # Before versions named one, it was the last.
    return Classification(tuple(value["classes"]), value.get("positive"))


def plain(value: Any) -> Any:
    """A value as JSON has it: NumPy's numbers and arrays, paths and dataclasses included."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return plain(value.tolist())
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
