"""CSV in detail: layouts, headers, encodings, and types that do not depend on blocks."""

from __future__ import annotations

import csv
import gzip
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.tables import delimited
from kerastrain.data.tables.reading import TableFormat, open_table, read_table
from kerastrain.errors import DataError, OptionsError


@pytest.fixture
def csv_file(tmp_path):
    def write(content: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def rows_of(path: Path, **table_format) -> dict[str, list]:
    """By `read`; `batches` must agree."""
    form = TableFormat(**table_format)
    table = open_table(path, table_format=form).read()
    batches = pa.concat_tables(open_table(path, table_format=form).batches(rows=2))
    assert batches.equals(table.combine_chunks())
    return table.to_pydict()


def message(path: Path, **table_format) -> str:
    with pytest.raises(DataError) as caught:
        open_table(path, table_format=TableFormat(**table_format)).read()
    assert str(path) in str(caught.value)
    return str(caught.value)


# Separators.


def test_runs_of_spaces_and_tabs_separate_where_nothing_else_does(csv_file):
    path = csv_file('  name   n \tprice\n"a  b"  1\t 2.5  \n\n c""   22 10.\n')
    expected = {"name": ["a  b", 'c""'], "n": [1, 22], "price": [2.5, 10.0]}
    assert rows_of(path) == rows_of(path, separator="space") == expected


def test_a_separator_that_is_said_is_used(csv_file):
    assert rows_of(csv_file("a:b\n1:x,y\n"), separator=":") == {"a": [1], "b": ["x,y"]}
    assert rows_of(csv_file("a,b\tc\n1,2\t3\n"), separator="tab") == {"a,b": ["1,2"], "c": [3]}


def test_tabs_separate_texts_of_several_words(csv_file):
    path = csv_file("name\tplace\nAnn Lee\tNew York\nBob Ray\tLos Angeles\n")
    assert list(rows_of(path)) == ["name", "place"]


@pytest.mark.parametrize("separator", ["", ", ", '"', "\n"])
def test_a_separator_that_cannot_be_one_is_refused(separator):
    with pytest.raises(OptionsError, match="expected one character"):
        TableFormat(separator=separator)


@pytest.mark.parametrize(
    ("name", "shape"), [("german.data", (1000, 21)), ("auto-mpg.data", (398, 9))]
)
def test_real_tables_in_aligned_columns_are_read(real_data, name, shape):
    path = real_data / "tabular" / name
    table = open_table(path, table_format=TableFormat(header=False)).read()
    assert table.shape == shape
    named = read_table(
        path.with_name({"german.data": "german-credit.csv"}.get(name, "auto-mpg.csv"))
    )
    assert table["column_2"].equals(named.column(1))


# Headers.


@pytest.mark.parametrize(
    "text",
    [
        "39,State-gov,77516\n50,Private,83311\n38,Private,215646\n",
        "2011-01-01,a\n2011-01-02,b\n",
        "p,x,s\ne,x,n\np,y,s\ne,x,s\n",
    ],
)
def test_a_first_line_like_those_below_must_be_said_to_be_names_or_data(csv_file, text):
    path = csv_file(text)
    said = message(path)
    assert "looks like data" in said and "--header=false" in said and "--header=true" in said
    without, with_header = rows_of(path, header=False), rows_of(path, header=True)
    assert list(without)[:2] == ["column_1", "column_2"]
    assert len(without["column_1"]) == text.count("\n")
    assert ",".join(with_header) == text.splitlines()[0]


@pytest.mark.parametrize(
    "text",
    [
        "id,2019,2020\n7,1.5,2\n8,3.5,4\n",
        "name,kind\na,x\nb,x\n",
        "1st,2nd\n1,2\n",
        ",a\n0,5\n",
        "x,y\n,\n1,2\n",
        "kind\nkind\nother\n",
    ],
)
def test_names_above_values_of_another_kind_are_a_header(csv_file, text):
    assert len(next(iter(rows_of(csv_file(text)).values()))) == text.count("\n") - 1


def test_numbers_as_names_can_be_said(csv_file):
    assert rows_of(csv_file("2019,2020\n3,4\n"), header=True) == {"2019": [3], "2020": [4]}


def test_one_line_without_a_header_is_a_table(csv_file):
    assert rows_of(csv_file("1,x\n"), header=False) == {"column_1": [1], "column_2": ["x"]}


def test_a_quoted_line_break_in_the_header_and_blank_lines_before_it(csv_file):
    path = csv_file('\ufeff\r\n\r\n"a\r\nb",c\r\n\r\n1,2\r\n')
    assert rows_of(path) == {"a\r\nb": [1], "c": [2]}


def test_very_many_columns_have_all_their_names(csv_file):
    names = [f"column{n}" + "x" * 500 for n in range(2000)]
    path = csv_file(",".join(names) + "\n" + (",".join("1" * 2000) + "\n") * 2)
    table = read_table(path)
    assert table.num_rows == 2 and table.column_names == names


def test_real_data_without_a_header_are_noticed(real_data):
    for name in ("adult.data.gz", "german.data", "auto-mpg.data", "pima-indians-diabetes.csv"):
        assert "--header=false" in message(real_data / "tabular" / name)


def test_a_remark_in_place_of_the_first_line_is_a_bad_line(real_data):
    path = real_data / "tabular" / "adult.test.gz"
    for header in (None, True, False):
        text = message(path, header=header)
        assert "Most lines have 15" in text
        assert "line 1 has 1 field: '|1x3 Cross validator'" in text


def test_bad_lines_of_aligned_columns_are_named(csv_file):
    text = message(csv_file("a  b\n1  2\n3\n4  5  6\n7 8\n9 9\n"), separator="space")
    assert "line 3 has 1 field" in text and "line 4 has 3 fields" in text
    assert "runs of spaces" in text


def test_bad_lines_without_a_header_are_named(csv_file):
    text = message(csv_file("1,2\n3\n4,5\n"), header=False)
    assert "Most lines have 2" in text and "line 2 has 1 field" in text


def test_a_header_with_a_quote_that_is_never_closed_is_an_error(csv_file):
    assert "never closed" in message(csv_file('"a,b\n' + "1,2\n" * 200_000))


# Encodings.


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("latin-1", "latin-1"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-8-sig", "utf-8"),
        ("utf-8", "UTF-8-SIG"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("separator", [";", "   "])
def test_an_encoding_that_is_said_is_used(csv_file, encoding, said, pack, separator):
    text = f"größe{separator}ort\n1{separator}Köln\n2{separator}Graz\n"
    path = csv_file(pack(text.encode(encoding)))
    assert rows_of(path, encoding=said) == {"größe": [1, 2], "ort": ["Köln", "Graz"]}


def test_bytes_of_another_encoding_than_said_are_an_error(csv_file):
    text = message(csv_file("a,b\n1,Köln\n".encode("latin-1")), encoding="ascii")
    assert "is not ASCII" in text and "another --encoding" in text


@pytest.mark.parametrize("method", ["read", "batches"])
@pytest.mark.parametrize("separator", [",", "  "])
def test_bytes_that_are_not_utf8_far_below_are_an_error(csv_file, method, separator):
    lines = "".join(f"{n}{separator}x\n" for n in range(200_000))
    path = csv_file(f"a{separator}b\n{lines}".encode() + f"1{separator}Köln\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        list(getattr(open_table(path), method)())


def test_an_unknown_encoding_is_refused():
    for encoding in ("latin-one", "hex"):
        with pytest.raises(OptionsError, match=f"no encoding '{encoding}'"):
            TableFormat(encoding=encoding)


# Values and types.


def test_missing_values_with_spaces_around_them_are_missing(csv_file):
    text = "a,b\n1,x\n   NA  ,   ?  \n 2 ,         NULL\n ,\n"
    assert rows_of(csv_file(text)) == {"a": [1, None, 2, None], "b": ["x", None, None, None]}


@pytest.mark.parametrize(
    ("late", "kind"),
    [
        ("7", "int64"),
        ("7.5", "double"),
        ("99999999999999999999", "double"),
        ("?", "int64"),
        ("seven", "string"),
        ("2011-01-31", "string"),
    ],
)
def test_a_value_far_below_decides_the_type_from_the_first_batch_on(csv_file, late, kind):
    path = csv_file("a,b\n" + "1,2\n" * 300_000 + f"{late},3\n")
    files = open_table(path)
    batches = list(files.batches())
    assert {str(batch.schema.field("a").type) for batch in batches} == {kind}
    assert pa.concat_tables(batches).equals(read_table(path))


numbers = st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([0.5, -0.0, 7])
# Fractions of seconds are for the years from 1678 to 2262.
years = {"min_value": datetime(1700, 1, 1), "max_value": datetime(2200, 1, 1)}
days = st.datetimes(**years).map(lambda moment: str(moment.date()))
moments = st.datetimes(**years).map(lambda moment: moment.isoformat(" "))
kinds = {
    "whole": st.integers(-9, 9).map(str),
    "number": numbers.map(str),
    "written": st.sampled_from(
        ["+1", "1.", ".5", "1e5", "0x1F", "inf", "-Infinity", "-nan", "007"]
    ),
    "date": days,
    "moment": moments.map(lambda text: text[:19]),
    "fraction": moments,
    "zoned": moments.map(lambda text: text[:19] + "Z"),
    "time": st.times().map(lambda time: time.strftime("%H:%M")),
    "missing": st.sampled_from(["", "NA", " ?", "null ", "\t", "      n/a"]),
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=4),
    "odd": st.sampled_from(["True", "24:00", "2011-1-1", "20110101", "1_0", "\xa01", "1,5"]),
}


@st.composite
def columns(draw):
    """Cells of one or two kinds, so that most columns have a type and some change theirs."""
    chosen = [kinds[kind] for kind in draw(st.lists(st.sampled_from(sorted(kinds)), max_size=2))]
    cell = st.one_of(kinds["whole"], kinds["missing"]) if not chosen else st.one_of(chosen)
    padding = st.sampled_from(["", "", " ", "\t", "  \u2003"])
    return draw(st.lists(st.tuples(padding, cell, padding).map("".join), min_size=20, max_size=20))


@settings(max_examples=100)
@given(st.lists(columns(), min_size=1, max_size=4), st.integers(1, 40))
def test_types_and_values_do_not_depend_on_blocks(tmp_path_factory, cells, rows):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow([f"name{n}" for n in range(len(cells))] + ["kept"])
        writer.writerows([*row, "x"] for row in zip(*cells, strict=True))
    whole = read_table(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_BLOCK_BYTES", 64)
        batches = pa.concat_tables(open_table(path).batches(rows=rows))
        small_blocks = read_table(path)
    assert batches.equals(whole.combine_chunks())
    assert small_blocks.equals(whole)


def test_hexadecimal_numbers_are_numbers_beside_others_too(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("whole,mixed\n" + "0x1F,+1.5\n" * 20 + "0x20,0x1F\n" * 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_BLOCK_BYTES", 64)
        in_blocks = pa.concat_tables(open_table(path).batches(rows=7))
    assert in_blocks.equals(read_table(path).combine_chunks())
    assert in_blocks["whole"].to_pylist() == [31] * 20 + [32] * 20
    assert in_blocks["mixed"].to_pylist() == [1.5] * 20 + [31.0] * 20
