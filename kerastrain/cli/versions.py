"""`kerastrain versions`: list a model's versions, compare two, deploy one, go back.

    kerastrain versions --model=runs/adult                     # a table; also with --json
    kerastrain versions --model=runs/adult --compare=2,3       # on the same test rows
    kerastrain versions --model=runs/adult --promote=2 --keep_versions=5
    kerastrain versions --model=runs/adult --rollback          # once more: further back

Servers serve the highest number, so to deploy an old version is to publish a copy of it as
the newest. Only --compare needs TensorFlow.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from kerastrain.cli import recorded_runs
from kerastrain.cli.version_texts import comparison_lines, list_lines, removed_lines
from kerastrain.errors import ExportError, UsageError
from kerastrain.workdir import Workdir, strict_json

if TYPE_CHECKING:
    from kerastrain.export.version_list import Version

# What --json prints, and the lines for people.
Done = tuple[dict[str, Any], list[str]]

SUMMARY = "List a model's versions, compare two, deploy one, go back."
FLAGS = flags.FlagValues()

flags.DEFINE_string(
    "model",
    None,
    "A folder of versions, a published version in it, or a run's work directory.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "list",
    False,
    "Show every version and compare its files with their digests: what is done by default.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "compare",
    None,
    "Two versions, as 2,3: their metrics on the same test rows, with an interval of the "
    "difference, and where their answers differ.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "promote", None, "Deploy this version: a copy of it becomes the newest.", flag_values=FLAGS
)
flags.DEFINE_boolean(
    "rollback",
    False,
    "Deploy again what was deployed before the present version; given again, what was before that.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "keep_versions",
    None,
    "Remove all but so many: what stays are the deployed version, the one that --rollback would "
    "lead to, and the newest of the others.",
    flag_values=FLAGS,
)
recorded_runs.define_flags(FLAGS)
FLAGS[
    "workdir"
].help = (
    "For --compare, the run whose test rows are asked about. Default: the one that --model lies in."
)
flags.DEFINE_integer(
    "bootstrap",
    1000,
    "For --compare, resamples of the test rows for the intervals; 0 computes none.",
    flag_values=FLAGS,
)
flags.DEFINE_float("confidence", 0.95, "Of the intervals, between 0 and 1.", flag_values=FLAGS)
flags.DEFINE_boolean("json", False, "Print one line of JSON and nothing else.", flag_values=FLAGS)


def run(values: flags.FlagValues) -> int:
    """Does the one thing asked for, says what was done, and returns the exit status."""
    if not values.model:
        raise UsageError(f"--model is missing: {values['model'].help}")
    action = asked_for(values)
    if values.json:
        # One line and nothing else: what is only to be known is not said; warnings are.
        logging.getLogger("kerastrain").setLevel(logging.WARNING)
    base = base_of(Path(os.path.expanduser(values.model)))
    if action == "compare":
        content, lines = _compare(base, values)
    elif action in ("promote", "rollback"):
        content, lines = _deploy(base, values)
    else:
        content, lines = _list(base, values)
    print(json.dumps(strict_json(content)) if values.json else "\n".join(lines))
    return 0


def asked_for(values: flags.FlagValues) -> str:
    """The action.

    Raises:
        UsageError: more than one is asked for, or what does not go together.
    """
    actions = ("list", "compare", "promote", "rollback")
    given = [name for name in actions if values[name].value not in (None, False)]
    if len(given) > 1:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in given)} are given; expected one of them at "
            "a time."
        )
    if given == ["compare"] and values.keep_versions is not None:
        raise UsageError("--keep_versions removes versions and does not go with --compare.")
    if values.keep_versions is not None and values.keep_versions < 1:
        raise UsageError(
            f"--keep_versions={values.keep_versions}; expected 1 or more: the deployed version "
            "stays."
        )
    return given[0] if given else "list"


def base_of(path: Path) -> Path:
    """The folder of versions that --model means.

    Raises:
        ExportError: there is none.
    """
    from kerastrain.export.manifest import versions
    from kerastrain.prediction import version_folder

    folder = version_folder(path)
    # "." and ".." say nothing of where they lie.
    base = (folder.resolve() if folder.name in ("", "..") else folder).parent
    if not versions(base):
        raise ExportError(
            f"{folder} does not lie in a folder of versions: their names are whole numbers, and "
            f"'{folder.resolve().name}' is none."
        )
    return base


# What is done: each gives what --json prints, and the lines for people.


def _list(base: Path, values: flags.FlagValues) -> Done:
    from kerastrain.export.version_folders import remove_old
    from kerastrain.export.version_list import list_versions

    removed = []
    if values.keep_versions is not None:
        removed = remove_old(base, keep=values.keep_versions)
    versions = list_versions(base)
    content = {
        "base": str(base),
        "deployed": versions[-1].number if versions else None,
        "versions": [version.to_json() for version in versions],
        "removed": removed,
    }
    return content, [*removed_lines(removed), *list_lines(base, versions)]


def _deploy(base: Path, values: flags.FlagValues) -> Done:
    from kerastrain.export.version_folders import promote, remove_old, rollback

    before = _newest(base)
    copy = rollback(base) if values.rollback else promote(base, values.promote)
    removed = []
    if values.keep_versions is not None:
        removed = remove_old(base, keep=values.keep_versions)
    said = [
        f"Version {copy.number} is deployed: a copy of version {copy.copy_of}. "
        f"Before it was {before}."
    ]
    return {**copy.to_json(), "removed": removed}, [*said, *removed_lines(removed)]


def _newest(base: Path) -> int:
    from kerastrain.export.manifest import versions

    return versions(base)[-1]


def _compare(base: Path, values: flags.FlagValues) -> Done:
    a, b = _two(base, values.compare)
    workdir = run_of(base, values)
    recorded = recorded_runs.recorded_run(workdir)
    # From here on it takes TensorFlow, which comes with the recipe's data.
    data = recorded_runs.load_data(workdir, recorded, values)
    from kerastrain.export.version_comparison import compare_versions

    found = compare_versions(
        a,
        b,
        data,
        fingerprint=recorded["data_fingerprint"],
        resamples=values.bootstrap,
        confidence=values.confidence,
    )
    numbers = {"a": a.number, "b": b.number}
    content = {"base": str(base), "data_of": str(workdir), **numbers, **found.to_json()}
    return content, comparison_lines(base, a, b, strict_json(found.to_json()))


def _two(base: Path, text: str) -> tuple[Version, Version]:
    """The versions that --compare names.

    Raises:
        UsageError: they are not two different ones that there are.
    """
    from kerastrain.export.version_list import list_versions

    there = {version.number: version for version in list_versions(base, verify=False)}
    numbers = [int(n) for n in text.split(",") if n.strip().isascii() and n.strip().isdecimal()]
    if len(numbers) != text.count(",") + 1 or len(set(numbers)) != 2 or len(numbers) != 2:
        raise UsageError(
            f"--compare={text}; expected two different versions with a comma between them, of "
            f"{', '.join(map(str, there))}."
        )
    missing = [number for number in numbers if number not in there]
    if missing:
        raise UsageError(
            f"--compare={text}: there is no version {missing[0]} in {base}; there is "
            f"{', '.join(map(str, there))}."
        )
    return there[numbers[0]], there[numbers[1]]


def run_of(base: Path, values: flags.FlagValues) -> Workdir:
    """The run whose data are asked about.

    Raises:
        UsageError: --workdir is not given, and the versions lie in no run.
    """
    if values.workdir:
        return Workdir(os.path.expanduser(values.workdir))
    workdir = Workdir(base.absolute().parent.parent)  # RUN/export/NAME
    if not workdir.run_file.exists():
        raise UsageError(
            f"{base} lies in no run, so there are no test rows to compare on. Give --workdir=RUN: "
            "the run whose test rows are to be asked about."
        )
    return workdir
