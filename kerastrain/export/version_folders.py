"""Changing what a folder that servers read deploys, and which of its versions stay.

    promote(base, 3)           # publishes a copy of version 3 as the newest
    rollback(base)             # publishes again what was deployed before
    remove_old(base, keep=5)

A server serves the highest number (TensorFlow Serving by default, too), so the highest
number *is* what is deployed: there is no pointer that a server would have to be told of. To
deploy an old version again is to publish a copy of it, under the next number. Copies are
hard links: they take no space, and outlive the version that they were made of. What was
deployed when is read off the manifests (`kerastrain.export.version_list.deployments`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kerastrain.errors import ExportError, OptionsError
from kerastrain.export import manifest
from kerastrain.export.placing import (
    changing,
    move_into_place,
    pending_folder,
    remove_leftovers,
    take_away,
)
from kerastrain.export.version_list import (
    PROMOTE,
    ROLLBACK,
    Version,
    list_versions,
    look_at,
    rollback_target,
)


def promote(base: Path, number: int) -> Version:
    """Publishes a copy of a version as the newest, so that it is deployed.

    Returns:
        The copy.

    Raises:
        ExportError: there is no such version, it is deployed already, or it is damaged.
    """
    with _changing(base):
        versions = _some(base)
        source = next((version for version in versions if version.number == number), None)
        if source is None:
            raise ExportError(
                f"There is no version {number} in {base}; there is {_told(versions)}."
            )
        deployed = versions[-1]
        if source.is_deployed:
            raise ExportError(
                f"Version {number} is deployed already: it is the newest of {_told(versions)}."
            )
        if source.digest is not None and source.digest == deployed.digest:
            raise ExportError(
                f"Version {number} is deployed already: {deployed.number}, the newest, is a copy "
                "of it."
            )
        return _publish_copy(base, source, copy_of=number, reason=PROMOTE)


def rollback(base: Path) -> Version:
    """Publishes again what was deployed before; asked again, what was before that.

    Returns:
        The copy, which is deployed now.

    Raises:
        ExportError: nothing that was deployed before is there, or it is damaged.
    """
    with _changing(base):
        versions = _some(base)
        target = rollback_target(versions)
        if target is None:
            raise ExportError(
                f"Nothing that was deployed before version {versions[-1].number} is in {base}; "
                f"there is {_told(versions)}. Deploy one of them with --promote=N."
            )
        number, source = target
        return _publish_copy(base, source, copy_of=number, reason=ROLLBACK)


def _publish_copy(base: Path, source: Version, **facts: Any) -> Version:
    """A version of the same files, with a manifest of its own."""
    _, damage = look_at(source.folder, verify=True)
    if damage is not None:
        raise ExportError(
            f"Version {source.number} is damaged and was not deployed: {damage} Choose another "
            "one with --promote=N."
        )
    content = source.content
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    remove_leftovers(base)
    with pending_folder(base) as pending:
        folder = pending / "model"
        _link_files(source.folder, folder, content["files"])
        written = manifest.write_manifest(folder, {**content, **facts, "created": created})
        if written["digest"] != content["digest"]:
            raise ExportError(f"The files of version {source.number} changed while it was copied.")
        number = move_into_place(folder, base)
    placed = base / str(number)
    return Version(number, placed, written, None, source.bytes, is_deployed=True)


def _link_files(source: Path, target: Path, files: Iterable[str]) -> None:
    """Those files that the manifest lists, and the folders, empty ones too."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        if path.is_dir():
            (target / path.relative_to(source)).mkdir()
    for name in files:
        try:
            os.link(source / name, target / name)
        except OSError:  # a file system without hard links
            shutil.copyfile(source / name, target / name)


def remove_old(base: Path, *, keep: int) -> list[int]:
    """Removes all but `keep` versions; returns those removed.

    What stays, in this order: the deployed version, always; the one that a rollback would
    lead to; the newest of the others. Nobody ever sees a part of a version.

    Raises:
        OptionsError: `keep` is less than 1.
        ExportError: the folder cannot be changed.
    """
    if keep < 1:
        raise OptionsError(
            f"--keep_versions={keep}; expected 1 or more: the deployed version stays."
        )
    with _changing(base):
        remove_leftovers(base)
        versions = list_versions(base, verify=False)
        kept = _kept(versions)[:keep]
        old = [version.number for version in versions if version.number not in kept]
        return [number for number in old if take_away(base, number)]


def _kept(versions: Sequence[Version]) -> list[int]:
    """All numbers, those first that stay the longest."""
    newest = [version.number for version in reversed(versions)]
    target = rollback_target(versions)
    first = newest[:1] + ([] if target is None else [target[1].number])
    return [*first, *(number for number in newest if number not in first)]


@contextlib.contextmanager
def _changing(base: Path) -> Iterator[None]:
    """One change at a time; what the system says of files that cannot be changed, for people."""
    try:
        with changing(base):
            yield
    except OSError as error:
        raise ExportError(f"The versions in {base} cannot be changed: {error}") from error


def _some(base: Path) -> list[Version]:
    versions = list_versions(base, verify=False)
    if not versions:
        raise ExportError(f"{base} holds no version; nothing is published there.")
    return versions


def _told(versions: Sequence[Version]) -> str:
    return ", ".join(str(version.number) for version in versions)
