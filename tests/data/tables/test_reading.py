"""Reading CSV and Parquet: what is understood, and what is said about files that are not."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.tables.delimited import detect_separator
from kerastrain.data.tables.reading import read_table
from kerastrain.errors import DataError


@pytest.fixture
def csv_file(tmp_path):
    def write(content: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_detected(csv_file, separator):
    lines = [["a", "b", "c"], ["1", "x", "2.5"], ["2", "y", "3.5"]]
    path = csv_file("\n".join(separator.join(line) for line in lines))
    assert read_table(path).to_pydict() == {"a": [1, 2], "b": ["x", "y"], "c": [2.5, 3.5]}


def test_a_separator_within_quotes_or_text_does_not_mislead():
    head = 'name;note\n"a,b,c";"x, y"\nd;"1,2,3"\n'
    assert detect_separator(head) == ";"


def test_one_column_needs_no_separator(csv_file):
    assert read_table(csv_file("a\n1\n2\n")).column_names == ["a"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_line_ends_byte_order_mark_and_gzip_change_nothing(csv_file, line_end, mark, pack):
    text = line_end.join(["a,b", "1,x", '2,"y, z"', ""])
    path = csv_file(pack(mark + text.encode()))
    assert read_table(path).to_pydict() == {"a": [1, 2], "b": ["x", "y, z"]}


def test_every_spelling_of_missing_is_null_for_numbers_and_text(csv_file):
    spellings = ["", "NA", "?", "nan", "NULL"]
    lines = "".join(f"{spelling}, {spelling},1\n" for spelling in spellings)
    table = read_table(csv_file(f"number,text,kept\n1.5, x ,1\n{lines}"))
    assert table["number"].to_pylist() == [1.5] + [None] * 5
    assert table["text"].to_pylist() == ["x"] + [None] * 5


def test_spaces_around_names_and_values_are_removed(csv_file):
    table = read_table(csv_file("age, work class\n39, Private\n 40 ,  State gov \n"))
    assert table.to_pydict() == {"age": [39, 40], "work class": ["Private", "State gov"]}


def test_bools_in_csv_stay_the_text_that_they_are(csv_file):
    assert read_table(csv_file("a\nTrue\nFalse\n")).to_pydict() == {"a": ["True", "False"]}


def test_quoted_line_breaks_are_part_of_the_value(csv_file):
    table = read_table(csv_file('a,b\n1,"x\ny"\n2,z\n'))
    assert table["b"].to_pylist() == ["x\ny", "z"]


def test_a_column_without_a_name_gets_one(csv_file):
    assert read_table(csv_file(",a\n0,5\n1,6\n")).column_names == ["unnamed_1", "a"]


def test_parquet_gives_the_same_plain_columns(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(
        pa.table(
            {
                "number": pa.array([1.0, float("nan"), None]),
                "text": pa.array(["a", "", None]).dictionary_encode(),
                "bytes": pa.array([b"x", b"y", None]),
                "flag": pa.array([True, False, None]),
            }
        ),
        path,
    )
    assert read_table(path).to_pydict() == {
        "number": [1.0, None, None],
        "text": ["a", None, None],
        "bytes": ["x", "y", None],
        "flag": [True, False, None],
    }


def test_parquet_is_known_by_its_content_whatever_its_name(tmp_path):
    path = tmp_path / "table.data"
    pq.write_table(pa.table({"a": [1, 2]}), path)
    assert read_table(path).to_pydict() == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("adult.parquet", (48842, 16)),
        ("bank-full.csv.gz", (45211, 17)),
        ("california-housing.csv.gz", (20640, 10)),
        ("titanic.csv", (891, 12)),
        ("winequality-red.csv", (1599, 12)),
    ],
)
def test_real_tables_have_their_published_shape(real_data, name, shape):
    assert read_table(real_data / "tabular" / name).shape == shape


cell = st.text(st.characters(codec="utf-8", exclude_characters='\r\n\0"'), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cell, st.integers(-(2**53), 2**53)), min_size=1, max_size=20))
def test_any_text_that_is_quoted_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    lines = "".join(f'"x{text}x",{number}\n' for text, number in rows)
    path.write_text("text,number\n" + lines, encoding="utf-8", newline="")
    table = read_table(path)
    assert table["text"].to_pylist() == [f"x{text}x" for text, _ in rows]
    assert table["number"].to_pylist() == [number for _, number in rows]


# What is wrong with a file, and what the message must say.


def message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file_is_named_with_the_nearest_one(csv_file):
    path = csv_file("a\n1\n", "housing.csv")
    text = message(path.with_name("houseing.csv"))
    assert "There is no file" in text and "Did you mean 'housing.csv'?" in text


def test_a_folder_is_not_a_table(tmp_path):
    assert "is a folder" in message(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_said_to_be_empty(csv_file, content):
    assert "is empty" in message(csv_file(content))


@pytest.mark.parametrize("content", ["a,b", "a,b\n", "a,b\r\n\r\n"])
def test_a_header_without_rows_is_said_to_be_one(csv_file, content):
    assert "has a header but no rows" in message(csv_file(content))


def test_columns_of_the_same_name_are_named(csv_file):
    assert "more than one column named 'a'" in message(csv_file("a,b,a\n1,2,3\n"))


def test_parquet_columns_of_the_same_name_are_named(tmp_path):
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    assert "more than one column named 'a'" in message(path)


def test_lines_with_a_wrong_number_of_fields_are_named_by_number(csv_file):
    path = csv_file('a,b\n1,2\n"x\ny",3\n4\n5,6,7\n8,9\n')
    text = message(path)
    assert "The header has 2" in text
    assert "line 5 has 1 field: '4'" in text and "line 6 has 3 fields: '5,6,7'" in text


def test_a_quote_that_is_never_closed_is_an_error(csv_file):
    assert "line 3 has 1 field" in message(csv_file('a,b\n1,2\n"3,4\n5,6\n'))


def test_a_quote_never_closed_in_a_long_file_is_an_error_too(csv_file):
    text = message(csv_file('a,b\n1,x\n2,"y\n' + "3,4\n" * 200_000))
    assert "a quote in its row 2 is never closed" in text
    assert len(text) < 600


def test_a_quoted_line_break_at_the_end_is_no_unclosed_quote(csv_file):
    table = read_table(csv_file('a,b\n1,x\n2,"y\nz"\n\n'))
    assert table["b"].to_pylist() == ["x", "y\nz"]


def test_numbers_in_place_of_a_header_are_noticed(csv_file):
    assert "expected the names of the columns" in message(csv_file("1,2.5\n3,4\n"))


def test_text_that_is_not_utf8_names_column_and_remedy(csv_file):
    text = message(csv_file("a,b\n1,Köln\n".encode("latin-1")))
    assert "column 'b'" in text and "iconv" in text


def test_a_header_that_is_not_utf8_is_named(csv_file):
    assert "the header" in message(csv_file("größe,b\n1,2\n".encode("latin-1")))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf16_is_refused(csv_file, encoding):
    text = message(csv_file("a,b\n1,2\n".encode(encoding)))
    assert "expected CSV in UTF-8" in text


def test_a_workbook_is_named_as_what_it_is(csv_file):
    assert "Excel" in message(csv_file(b"PK\x03\x04 and more", "table.csv"))


def test_a_file_only_named_like_parquet_is_refused(csv_file):
    assert "is named like a Parquet file" in message(csv_file("a,b\n1,2\n", "t.parquet"))


def test_a_truncated_parquet_file_is_said_to_be_damaged(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"a": list(range(1000))}), path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "may be damaged" in message(path)


def test_a_truncated_gzip_file_is_said_to_be_damaged(csv_file):
    packed = gzip.compress(("a,b\n" + "".join(f"{n},{n * n}\n" for n in range(9999))).encode())
    assert "may be damaged" in message(csv_file(packed[:-2000], "t.csv.gz"))
