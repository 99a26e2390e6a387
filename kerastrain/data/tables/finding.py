"""The files of a table: one, those of a folder, or those that match a pattern.

find_files("housing.csv")               # [Path("housing.csv")]
find_files("parts")                     # every table in it, in the order of names
find_files("data/part-*.parquet")
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from kerastrain.errors import DataError, suggested_path

# Of the files of a folder; .gz may follow.
SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".parquet", ".pq")


def find_files(path: str) -> list[Path]:
    """The files that are meant, hidden ones left out, in the order of their names.

    Raises:
        DataError: there is none.
    """
    place = Path(path)
    if place.is_dir():
        return _files_of_folder(place)
    if place.exists() or not glob.has_magic(path):
        check_exists(place)
        return [place]
    found = [Path(match) for match in sorted(glob.glob(_pattern(place), recursive=True))]
    files = [file for file in found if file.is_file()]
    if not files:
        raise DataError(
            f"No file matches '{path}'. Expected CSV or Parquet files; quote the pattern, or "
            "the shell expands it first."
        )
    return files


def _pattern(path: Path) -> str:
    """The path as a pattern; of its folders, what exists by that very name is meant by it."""
    literal = next((folder for folder in path.parents if folder.exists()), Path())
    return os.path.join(glob.escape(str(literal)), path.relative_to(literal))


def _files_of_folder(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [
        entry
        for entry in entries
        if entry.is_file() and entry.name.lower().removesuffix(".gz").endswith(SUFFIXES)
    ]
    if not files:
        shown = ", ".join(entry.name for entry in entries[:5]) or "nothing"
        raise DataError(
            f"'{folder}' is a folder without a table: it holds {shown}. Expected files with a "
            f"name that ends with one of {', '.join(SUFFIXES)} (or these with .gz)."
        )
    return files


def check_exists(path: Path) -> None:
    """Raises DataError, with a suggestion, unless a file or a folder is there."""
    if path.is_symlink() and not path.exists():
        raise DataError(f"'{path}' is a link to {os.readlink(path)}, where nothing is.")
    if not path.exists():
        raise DataError(f"There is no file '{path}'.{suggested_path(path)}")
    if not (path.is_file() or path.is_dir()):
        # It could be read once only, and its content is compared at each start.
        raise DataError(f"'{path}' is no ordinary file; expected one. Write what it gives to one.")
