"""The files of a run: the same by a look at them, or by what they hold."""

import os

import pytest

from kerastrain import sources
from kerastrain.errors import DataError
from kerastrain.options import TableOptions, TrainOptions
from kerastrain.sources import differences, look, look_again

LONG_AGO = 1_600_000_000_000_000_000


def written(path, text="a,b\n1,2\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


@pytest.fixture
def settled(monkeypatch):
    """As if every file had been written long ago."""
    monkeypatch.setattr(sources, "SETTLED_NS", -1_000_000_000)


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are read."""
    names, checksum_of = [], sources.checksum_of
    monkeypatch.setattr(sources, "checksum_of", lambda f: (names.append(f.name), checksum_of(f))[1])
    return names


def options(tmp_path, data, recipe="tabular", **more):
    return TrainOptions(recipe=recipe, data=str(data), workdir=str(tmp_path / "run"), **more)


def test_a_file_that_nobody_touched_is_not_read_again(tmp_path, settled, read):
    given = options(tmp_path, written(tmp_path / "t.csv"))
    first = look(given, {})
    assert look(given, first) == first
    assert read == ["t.csv"]


def test_a_file_as_young_as_its_record_is_read_again(tmp_path, read):
    given = options(tmp_path, written(tmp_path / "t.csv"))
    first = look(given, {})
    assert first["data"]["files"][0]["stat"] is None
    look(given, first)
    assert read == ["t.csv", "t.csv"]


def test_other_content_of_the_same_size_and_time_is_found(tmp_path, settled):
    file = written(tmp_path / "t.csv")
    given = options(tmp_path, file)
    first = look(given, {})
    written(file, "a,b\n1,3\n")  # as rsync -t would
    assert differences(first, look(given, first)) == ["data: t.csv has other content"]
    replaced = written(tmp_path / "other.csv", "a,b\n1,4\n")
    os.replace(replaced, file)
    assert differences(first, look(given, first))


def test_a_file_written_again_with_the_same_content_is_the_same(tmp_path, settled, read):
    file = written(tmp_path / "t.csv")
    given = options(tmp_path, file)
    first = look(given, {})
    file.unlink()
    written(file)
    again = look(given, first)
    assert not differences(first, again) and again != first
    assert look(given, again) == again
    assert read == ["t.csv", "t.csv"]


def test_the_files_of_a_folder_are_told_one_by_one(tmp_path, settled, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "notes.md"):
        written(tmp_path / "parts" / name, name)
    given = options(tmp_path, "parts")
    first = look(given, {})
    (tmp_path / "parts" / "a.csv").unlink()
    written(tmp_path / "parts" / "c.csv")
    written(tmp_path / "parts" / "b.csv", "B.csv")
    written(tmp_path / "parts" / "notes.md", "no table")
    assert differences(first, look(given, first)) == [
        "data: a.csv is gone", "data: b.csv has other content", "data: c.csv is new"
    ]  # fmt: skip


def test_a_folder_of_a_recipe_of_ones_own_is_all_that_is_below_it(tmp_path, settled, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = str(written(tmp_path / "mine.py", ""))
    image = written(tmp_path / "images" / "cats" / "1.png")
    written(tmp_path / "images" / ".cache" / "x")
    given = options(tmp_path, "images", recipe)
    assert [e["name"] for e in look(given, {})["data"]["files"]] == ["cats/1.png"]
    monkeypatch.setattr(sources, "MANY", 1)
    written(tmp_path / "images" / "dogs" / "1.png")
    first = look(given, {})
    image.write_text("another")
    assert differences(first, look(given, first)) == ["data: a file among them has other content"]


def test_a_folder_that_holds_too_much_is_told_and_not_read(tmp_path, monkeypatch, read, caplog):
    monkeypatch.setattr(sources, "MOST_BYTES", 3)
    recipe = str(written(tmp_path / "mine.py", ""))
    written(tmp_path / "images" / "1.png")
    assert set(look(options(tmp_path, tmp_path / "images", recipe), {})) == {"recipe"}
    assert read == ["mine.py"] and "holds too much for its files to be compared" in caplog.text


def test_moved_data_are_the_same_data(tmp_path, settled):
    first = look(options(tmp_path, written(tmp_path / "t.csv")), {})
    moved = look(options(tmp_path, written(tmp_path / "elsewhere" / "u.csv")), first)
    assert not differences(first, moved)
    assert sources.has_same_content(first["data"], moved["data"])
    other = look(options(tmp_path, written(tmp_path / "v.csv", "a,b\n3,4\n")), first)
    assert differences(first, other) == ["data: t.csv is gone", "data: v.csv is new"]


def test_tables_of_splits_and_a_schema_are_looked_at_too(tmp_path, settled):
    files = {n: str(written(tmp_path / n)) for n in ("schema", "validation_data", "test_data")}
    given = options(tmp_path, written(tmp_path / "t.csv"), table=TableOptions(**files))
    first = look(given, {})
    written(tmp_path / "test_data", "a,b\n")
    assert differences(first, look(given, first)) == ["test_data: test_data has other content"]


def test_what_is_no_file_is_left_to_the_recipe(tmp_path):
    assert look(options(tmp_path, "a_data_set_by_name"), {}) == {}


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, settled):
    file = written(tmp_path / "t.csv")
    given = options(tmp_path, file)
    first = look(given, {})
    assert look_again(given, first) == first
    file.write_text("a,b\n")
    with pytest.raises(DataError, match=r"data: t\.csv has other content since this start read it"):
        look_again(given, first)


def test_code_is_compared_without_comments_docstrings_and_layout(tmp_path, settled):
    recipe = written(tmp_path / "mine.py", "def f(x):\n    return x + 1\n")
    given = TrainOptions(recipe=str(recipe), workdir=str(tmp_path / "run"))
    first = look(given, {})
    written(recipe, '"""Mine."""\n\ndef f(x):  # adds\n    """Add."""\n    return (x +\n 1)\n')
    assert not differences(first, look(given, first))
    for other in ("def f(x):\n    return x + 2\n", "def f(:"):
        written(recipe, other)
        assert differences(first, look(given, first)) == ["recipe: mine.py has other content"]
