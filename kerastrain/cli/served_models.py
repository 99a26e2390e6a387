"""The models that a command line asks to serve: their names, folders, versions and labels.

bases = model_bases(["digits=exports/digits", "runs/adult"])    # {"digits": …, "adult": …}
specs = model_specs(bases, ["digits/latest:2"], ["digits/stable=3"])

A run is served by the name of its work directory. TensorFlow is imported when all is in order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kerastrain.errors import KerastrainError, UsageError, WorkdirError, suggested_path, suggestion
from kerastrain.serving.versions import LATEST, parse_policy
from kerastrain.workdir import Workdir

if TYPE_CHECKING:
    from kerastrain.serving.models import ModelSpec


def model_bases(given: Sequence[str]) -> dict[str, Path]:
    """The folders of versions by the models' names.

    Args:
        given: each "FOLDER" or "NAME=FOLDER"; a run's work directory stands for its export.

    Raises:
        UsageError: a name is missing or given twice.
        KerastrainError: a folder is not there, or cannot be one of versions.
    """
    bases: dict[str, Path] = {}
    for text in given:
        name, separator, folder = text.partition("=")
        if "/" in name:  # a folder with "=" in its own name
            name, separator, folder = "", "", text
        elif not separator:
            name, folder = "", text
        if not folder or (separator and not name):
            raise UsageError(f"--model={text}; expected FOLDER or NAME=FOLDER.")
        place = Path(os.path.expanduser(folder))
        base = base_folder(place)
        name = name or os.path.basename(os.path.abspath(place))
        if name in bases:
            raise UsageError(
                f"--model names '{name}' twice ({bases[name]} and {base}); give another name by "
                f"NAME=FOLDER, as in --model={name}=…,{name}_2={folder}."
            )
        bases[name] = base
    return bases


def base_folder(path: Path) -> Path:
    """The folder of versions that `path` means: itself, or the export of a work directory.

    Raises:
        KerastrainError: there is no such folder, it is a version itself, or a run without
            exactly one export.
    """
    if not path.is_dir():
        raise KerastrainError(
            f"There is no folder '{path}'; expected a folder of versions, or a run's work "
            f"directory.{suggested_path(path)}"
        )
    if (path / "saved_model.pb").exists():
        raise KerastrainError(
            f"{path} is a single version; expected the folder of versions, --model={path.parent}."
        )
    workdir = Workdir(path)
    if not workdir.run_file.exists():
        return path
    exports = sorted(e for e in workdir.exports.glob("*") if e.is_dir() and e.name[0] != ".")
    if not exports:
        raise WorkdirError(
            f"{path} holds no published model: its run is not finished. Give its train command "
            "again."
        )
    if len(exports) > 1:
        raise WorkdirError(
            f"{path} holds {len(exports)} models; give one of {', '.join(map(str, exports))}."
        )
    return exports[0]


def model_specs(
    bases: dict[str, Path], policies: Sequence[str], labels: Sequence[str]
) -> list[ModelSpec]:
    """Which versions of each model are served, and their labels.

    Args:
        policies: each "POLICY" or "MODEL/POLICY", as `parse_policy` reads it.
        labels: each "LABEL=VERSION" or "MODEL/LABEL=VERSION".

    Raises:
        UsageError: one cannot be understood, or names no model.
    """
    chosen = dict.fromkeys(bases, LATEST)
    for text in policies:
        for name, policy in _of_models("version_policy", text, bases):
            chosen[name] = parse_policy(policy)
    named: dict[str, dict[str, int]] = {name: {} for name in bases}
    for text in labels:
        if len(bases) > 1 and "/" not in text:
            raise UsageError(
                f"--version_labels={text}; expected MODEL/LABEL=VERSION, as there "
                "are several models."
            )
        for name, assignment in _of_models("version_labels", text, bases):
            label, _, version = assignment.partition("=")
            if not label or not (version.isascii() and version.isdecimal()):
                raise UsageError(f"--version_labels={text}; expected LABEL=VERSION, as stable=3.")
            named[name][label] = int(version)
    from kerastrain.serving.models import ModelSpec

    return [ModelSpec(name, base, named[name], chosen[name]) for name, base in bases.items()]


def _of_models(flag: str, text: str, bases: dict[str, Path]) -> list[tuple[str, str]]:
    """What a flag says, for the model that it names or for all: [(name, "latest:2"), …]."""
    name, separator, rest = text.partition("/")
    if not separator:
        return [(each, text) for each in bases]
    if name not in bases:
        raise UsageError(
            f"--{flag}={text}: there is no model '{name}'; expected one of {', '.join(bases)}."
            f"{suggestion(name, bases)}"
        )
    return [(name, rest)]
