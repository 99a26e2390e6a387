"""Reading CSV and Parquet: what is understood, and what is said about files that are not."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.tables.columns import plain_table
from kerastrain.data.tables.layout import detect_separator
from kerastrain.data.tables.reading import TableFormat, open_table, read_table
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
def test_utf16_that_is_not_said_is_refused(csv_file, encoding):
    text = message(csv_file("a,b\n1,2\n".encode(encoding)))
    assert "expected CSV in UTF-8" in text and "--encoding=utf-16" in text


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


# Tables of several files.


@pytest.fixture
def folder(tmp_path):
    """Writes files, CSV text or tables, into a folder."""

    def write(**contents: str | pa.Table) -> Path:
        place = tmp_path / "parts"
        place.mkdir()
        for name, content in contents.items():
            path = place / name.replace("_", ".")
            if isinstance(content, str):
                path.write_text(content)
            else:
                pq.write_table(content, path)
        return place

    return write


def read_parts(path: Path, **options) -> dict[str, list]:
    """By `read`; `batches` must agree."""
    table = open_table(path, **options).read()
    batches = list(open_table(path, **options).batches(rows=2))
    assert pa.concat_tables(batches).equals(table.combine_chunks())
    assert all(len(batch) == 2 for batch in batches[:-1])
    return table.to_pydict()


def test_a_folder_is_read_in_the_order_of_names_and_other_files_are_left_out(folder):
    path = folder(b_csv="a\n3\n4\n", a_csv="a\n1\n2\n", notes_md="no table")
    (path / ".hidden.csv").write_text("other\n1\n")
    (path / "c.tsv.gz").write_bytes(gzip.compress(b"a\n5\n"))
    assert read_parts(path) == {"a": [1, 2, 3, 4, 5]}
    assert [file.name for file in open_table(path).files] == ["a.csv", "b.csv", "c.tsv.gz"]


def test_a_glob_takes_the_files_that_match(folder):
    path = folder(p1_csv="a\n1\n2\n", p2_csv="a\n3\n", other_csv="b\n9\n")
    assert read_parts(path / "p*.csv") == {"a": [1, 2, 3]}


def test_a_glob_in_a_folder_whose_name_looks_like_one_is_looked_for_there(strange):
    strange.mkdir(parents=True)
    (strange / "p1.csv").write_text("a\n1\n2\n")
    assert read_parts(strange / "p[0-9].csv") == {"a": [1, 2]}


def test_a_file_whose_name_looks_like_a_glob_is_that_file(csv_file):
    assert read_table(csv_file("a\n1\n", "part[1].csv")).num_rows == 1


def test_columns_in_another_order_take_the_order_of_the_first_file(folder):
    path = folder(a_csv="x,y\n1,a\n", b_csv="y,x\nb,2\n")
    assert read_parts(path) == {"x": [1, 2], "y": ["a", "b"]}


def test_columns_that_differ_between_files_are_named(folder):
    path = folder(a_csv="x,y,z\n1,a,2\n", b_csv="x,w\n2,b\n")
    text = message_of(lambda: open_table(path))
    assert f"'{path / 'b.csv'}' has other columns than '{path / 'a.csv'}'" in text
    assert "it lacks 'y', 'z'; it has besides 'w'" in text


def test_numbers_of_several_types_are_numbers_and_missing_fits_all(folder):
    path = folder(a_csv="x,y\n1,\n", b_csv="x,y\n2.5,7\n", c_csv="x,y\n,\n")
    assert read_parts(path) == {"x": [1.0, 2.5, None], "y": [None, 7, None]}


def test_text_in_one_file_makes_it_text_in_all_as_it_is_written(folder):
    path = folder(a_csv="zip,price\n02134,1.50\n", b_csv="zip,price\nEC1A,free\n")
    assert read_parts(path) == {"zip": ["02134", "EC1A"], "price": ["1.50", "free"]}


def test_parquet_files_with_different_types_are_unified(folder):
    path = folder(
        a_parquet=pa.table({"n": pa.array([1], pa.int8()), "t": [1], "d": pa.array([0], "date32")}),
        b_parquet=pa.table({"n": [0.5], "t": ["x"], "d": pa.array([86400], pa.timestamp("s"))}),
    )
    rows = read_parts(path)
    assert rows["n"] == [1.0, 0.5] and rows["t"] == ["1", "x"]
    assert [day.isoformat() for day in rows["d"]] == ["1970-01-01T00:00:00", "1970-01-02T00:00:00"]


def test_parquet_types_that_do_not_go_together_are_named(folder):
    path = folder(a_parquet=pa.table({"n": [1]}), b_parquet=pa.table({"n": [[1]]}))
    assert "Column 'n' is list<element: int64>" in message_of(open_table(path).read)


@pytest.mark.parametrize("second", ["", "a\n"])
def test_an_empty_file_among_others_is_an_error(folder, second):
    path = folder(a_csv="a\n1\n", b_csv=second)
    assert "b.csv" in message_of(lambda: open_table(path))


def test_csv_and_parquet_in_one_folder_are_an_error(folder):
    path = folder(a_csv="a\n1\n", b_parquet=pa.table({"a": [1]}))
    text = message_of(lambda: open_table(path))
    assert "a.csv" in text and "b.parquet" in text and "not both CSV" in text


def test_a_folder_without_tables_says_what_it_holds(folder):
    assert "it holds notes.md" in message_of(lambda: open_table(folder(notes_md="x")))


def test_a_glob_that_matches_nothing_is_an_error(tmp_path):
    assert "No file matches" in message_of(lambda: open_table(tmp_path / "*.csv"))


# Columns, types, hashes.


def test_only_the_columns_asked_for_are_given_in_that_order(csv_file, tmp_path):
    path = csv_file("a,b,c\n1,2,3\n")
    pq.write_table(read_table(path), tmp_path / "table.parquet")
    for files in (open_table(path), open_table(tmp_path / "table.parquet")):
        assert files.read(["c", "a"]).to_pydict() == {"c": [3], "a": [1]}
        assert next(files.batches(["c", "a"])).to_pydict() == {"c": [3], "a": [1]}


def test_a_parquet_column_is_not_mistaken_for_a_part_of_another(tmp_path):
    pq.write_table(pa.table({"a": [1], "a.b": [2]}), tmp_path / "t.parquet")
    assert open_table(tmp_path / "t.parquet").read(["a"]).to_pydict() == {"a": [1]}


@pytest.mark.parametrize("method", ["read", "batches"])
def test_a_column_that_is_not_there_is_named_with_the_nearest(csv_file, method):
    files = open_table(csv_file("income,b\n1,2\n"))
    text = message_of(lambda: getattr(files, method)(["incom"]))
    assert "has no column 'incom'" in text and "Did you mean 'income'?" in text


def test_an_unclosed_quote_is_noticed_without_its_column_too(csv_file):
    files = open_table(csv_file('a,b\n1,x\n2,"y\n' + "3,4\n" * 200_000))
    assert "is never closed" in message_of(lambda: files.read(["a"]))
    assert "is never closed" in message_of(lambda: list(files.batches(["a"])))


def test_types_that_are_said_are_used(csv_file, tmp_path):
    path = csv_file("zip,n,flag,rest\n02134, 1 ,true,1\n,2,False,2\n")
    types = {"zip": pa.string(), "n": pa.float64(), "flag": pa.bool_(), "not there": pa.int64()}
    expected = {"zip": ["02134", None], "n": [1.0, 2.0], "flag": [True, False], "rest": [1, 2]}
    assert read_parts(path, column_types=types) == expected
    pq.write_table(pa.table({"zip": [2134, None], "n": [1, 2]}), tmp_path / "t.parquet")
    rows = read_parts(tmp_path / "t.parquet", column_types=types)
    assert rows == {"zip": ["2134", None], "n": [1.0, 2.0]}


@pytest.mark.parametrize("method", ["read", "batches"])
@pytest.mark.parametrize("kind", [pa.int64(), pa.bool_(), pa.date32()])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_value_of_another_type_is_named_by_row(csv_file, tmp_path, method, kind, form):
    good = {pa.int64(): "7", pa.bool_(): "true", pa.date32(): "2011-01-31"}[kind]
    values = [good] * 200_000 + ["many"] + [good]
    path = tmp_path / f"table.{form}"
    if form == "csv":
        path.write_text("id,a\n" + "".join(f"1,{value}\n" for value in values))
    else:
        pq.write_table(pa.table({"a": values}), path)
    files = open_table(path, column_types={"a": kind})
    text = message_of(lambda: list(getattr(files, method)(["a"])))
    assert str(path) in text and "column 'a': 'many' in row 200,001" in text


def test_decimals_are_not_made_text_of_one_of_several_writings(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1.0, 1.5]}), path)
    text = message_of(open_table(path, column_types={"a": pa.string()}).read)
    assert "1.5 in row 2" in text and "several ways" in text


def test_infinities_survive(csv_file):
    path = csv_file("a,b\ninf,1\n-Infinity,2\n1e999,3\n2,inf\n")
    infinite = float("inf")
    expected = {"a": [infinite, -infinite, infinite, 2.0], "b": [1.0, 2.0, 3.0, infinite]}
    assert read_parts(path) == expected


def test_bytes_that_are_not_all_text_are_bytes_in_every_batch(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [b"x", b"", b"y", b"\xff"], "b": [b"x", b"", b"y", b"z"]}), path)
    rows = read_parts(path)
    assert rows == {"a": [b"x", b"", b"y", b"\xff"], "b": ["x", None, "y", "z"]}


def test_the_hash_is_of_contents_format_and_types(folder):
    path = folder(a_csv="a\n1\n", b_csv="a\n2\n")
    said = {"column_types": {"a": pa.string()}}
    variants = [
        open_table(path),
        open_table(path / "a.csv"),
        open_table(path, **said),
        open_table(path, table_format=TableFormat(separator=",")),
    ]
    hashes = [files.content_sha256() for files in variants]
    assert len(set(hashes)) == 4
    assert open_table(path).content_sha256() == hashes[0]
    (path / "b.csv").write_text("a\n3\n")
    assert open_table(path).content_sha256() not in hashes


def test_the_estimate_of_memory_is_of_the_right_order(tmp_path, csv_file):
    table = pa.table({"same": [1.0] * 100_000, "rising": list(range(100_000))})
    pq.write_table(table, tmp_path / "t.parquet")
    text = "same,rising\n" + "".join(f"1,{n}\n" for n in range(100_000))
    estimates = [
        open_table(tmp_path / "t.parquet").nbytes_estimate,
        open_table(csv_file(text)).nbytes_estimate,
        open_table(csv_file(gzip.compress(text.encode()), "t.csv.gz")).nbytes_estimate,
    ]
    assert all(table.nbytes / 3 < estimate < 3 * table.nbytes for estimate in estimates)


@pytest.mark.parametrize("name", ["adult.parquet", "bank-full.csv.gz", "bike-sharing-hour.csv.gz"])
def test_real_tables_in_batches_are_the_same_tables(real_data, name):
    path = real_data / "tabular" / name
    batches = pa.concat_tables(open_table(path).batches(rows=10_000))
    assert batches.equals(read_table(path))


@st.composite
def tables(draw):
    """Some rows of columns of several types, with missing values."""
    count = draw(st.integers(1, 12))
    kinds = {
        "int64": st.integers(-(2**63), 2**63 - 1),
        "float64": st.floats(),
        "string": st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=5),
        "bool": st.booleans(),
        "date32": st.dates(),
    }
    columns = {}
    for place, kind in enumerate(draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1))):
        values = st.lists(st.none() | kinds[kind], min_size=count, max_size=count)
        columns[f"c{place}"] = pa.array(draw(values), pa.type_for_alias(kind))
    return pa.table(columns)


@settings(max_examples=50)
@given(tables(), st.integers(1, 5))
def test_parquet_is_the_same_in_batches_and_whole(tmp_path_factory, table, rows):
    path = tmp_path_factory.mktemp("parquet") / "t.parquet"
    pq.write_table(table, path, row_group_size=3)
    batches = pa.concat_tables(open_table(path).batches(rows=rows))
    assert batches.equals(open_table(path).read().combine_chunks())
    assert batches.equals(plain_table(table).combine_chunks())


def message_of(call) -> str:
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)
