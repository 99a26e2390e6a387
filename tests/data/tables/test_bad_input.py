"""Tables as they come: what cannot be learned from gets a message that helps, all else loads."""

from __future__ import annotations

import gzip
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from kerastrain.data.source import Classification, Regression
from kerastrain.data.tables.loading import load_table_data
from kerastrain.errors import DataError, OptionsError
from kerastrain.options import TableOptions, TrainOptions

N = 60
AGES = [18 + row % 11 for row in range(N)]
CITIES = [["Bern", "Rom", "Ulm"][row % 3] for row in range(N)]
BOUGHT = ["no" if row % 4 else "yes" for row in range(N)]


def lines_of(**columns) -> list[str]:
    rows = zip(*columns.values(), strict=True)
    return [",".join(columns), *(",".join(map(str, row)) for row in rows)]


@pytest.fixture
def load(tmp_path):
    """Writes text, bytes or columns (beside age, city and the target "bought"); loads the file."""

    def write_and_load(content=None, *, target="bought", seed=0, options=None, **columns):
        if content is None:
            content = "\n".join(
                lines_of(**{"age": AGES, "city": CITIES, "bought": BOUGHT, **columns})
            )
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_table_data(
            TrainOptions(
                data=str(path), target=target, seed=seed, table=TableOptions(**(options or {}))
            )
        )

    return write_and_load


@pytest.fixture
def refused(load):
    """The message with which the same is refused."""

    def message(*args, **options) -> str:
        with pytest.raises((DataError, OptionsError)) as caught:
            load(*args, **options)
        return str(caught.value)

    return message


def used(data) -> list[str]:
    return list(data.description["columns"])


# What cannot be used.


def test_no_such_target(refused):
    text = refused(target="bougth")
    assert "has no column 'bougth'" in text and "age, city, bought" in text
    assert "Did you mean 'bought'?" in text


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", "age,city,bought\n", " \n"])
def test_an_empty_file(refused, content):
    text = refused(content)
    assert "is empty" in text or "has a header but no rows" in text


def test_too_few_rows(refused):
    text = refused("\n".join(lines_of(a=range(9), y=[0] * 9)), target="y")
    assert "has 9 rows; expected at least 10" in text


@pytest.mark.parametrize("value", ["yes", "1", "2.5", "True"])
def test_one_class_only(refused, value):
    assert "'bought' has the same value in every row" in refused(bought=[value] * N)


@pytest.mark.parametrize("missing", ["", "NA", "nan", "?"])
def test_a_target_that_is_missing_in_some_rows(refused, missing):
    text = refused(bought=[*BOUGHT[:-2], missing, missing])
    assert "missing in 2 of 60 rows (row 59, 60;" in text and "Remove these rows" in text


def test_a_target_that_is_missing_everywhere(refused):
    assert "missing in 60 of 60 rows" in refused(bought=[""] * N)


def test_a_target_that_is_infinite(refused):
    assert "is infinite or too large in 1 rows, the first is row 2: inf" in refused(
        bought=[1.5, "inf", *range(N - 2)]
    )


def test_a_target_with_a_text_for_each_row(refused):
    text = refused(bought=[f"customer {row}" for row in range(N)])
    assert "60 different texts in 60 rows; expected classes that repeat" in text


def test_every_column_missing_or_the_same(refused):
    text = refused(age=[""] * N, city=["Rom"] * N)
    assert "no column to predict 'bought' from" in text
    assert "'age': it has no values; 'city': it has one value only" in text


def test_the_target_alone(refused):
    assert "no column to predict 'y' from" in refused(
        "\n".join(["y", *["0", "1"] * 20]), target="y"
    )


def test_only_a_column_with_as_many_values_as_rows(refused):
    content = "\n".join(lines_of(name=[f"{row}x" for row in range(N)], y=BOUGHT))
    assert "'name': it looks like an identifier (60 different texts" in refused(content, target="y")


@pytest.mark.parametrize("names", ["age,age,bought", "age, age ,bought", "bought,age,bought"])
def test_duplicated_names(refused, names):
    rows = [",".join(map(str, row)) for row in zip(AGES, CITIES, BOUGHT, strict=True)]
    assert "more than one column named" in refused("\n".join([names, *rows]))


def test_a_header_that_is_missing(refused):
    numbers = "\n".join(f"{row},{row % 7},{row % 2}" for row in range(N))
    assert "holds numbers only (0, 0, 0)" in refused(numbers)
    mixed = "\n".join(lines_of(age=AGES, city=CITIES, bought=BOUGHT)[1:])
    assert "looks like data" in refused(mixed) and "--header=false" in refused(mixed)


def test_a_header_that_is_said_to_be_missing(load):
    rows = "\n".join(lines_of(age=AGES, city=CITIES, bought=BOUGHT)[1:])
    data = load(rows, target="column_3", options={"header": False})
    assert used(data) == ["column_1", "column_2"] and data.task.classes == ("no", "yes")


@pytest.mark.parametrize("value", ["inf", "-inf", "1e39"])
def test_numbers_that_are_infinite(refused, value):
    text = refused(age=[*range(7), value, *range(N - 8)])
    assert "Column 'age' holds 1 infinite or too large numbers, the first in row 8" in text


def test_lines_with_too_many_values(refused):
    content = lines_of(age=AGES, city=CITIES, bought=BOUGHT)
    content[5] += ",extra"
    assert "line 6 has 4 fields" in refused("\n".join(content))


def test_another_encoding_and_a_binary_file(refused):
    assert "is not UTF-8" in refused("größe,y\n1,2\n2,3\n".encode("latin-1"), target="y")
    assert "binary file" in refused(b"a,y\n\0\1,2\n")
    assert "UTF-16" in refused("a,y\n1,2\n".encode("utf-16"))


def test_files_of_a_folder_with_other_columns(tmp_path):
    for name, header in (("a.csv", "age,bought"), ("b.csv", "years,bought")):
        (tmp_path / name).write_text("\n".join([header, *(f"{row},{row % 2}" for row in range(9))]))
    with pytest.raises(DataError, match=r"b\.csv' has other columns than .*lacks 'age'"):
        load_table_data(TrainOptions(data=str(tmp_path), target="bought"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"balance": True}, "--balance is for classes, but 'age' is predicted as a number"),
        ({"split_column": "city"}, "'city' holds .*; expected train, validation or test"),
        ({"split_time": "bought"}, "'bought' holds .*; to split by time, expected dates"),
        ({"split_group": "bought"}, "'bought' has 2 groups"),
        ({"weights": "city"}, "--weights=city is a column of type string"),
        ({"schema": "/nonsuch.json"}, "--schema=/nonsuch.json cannot be read"),
        ({"test_data": "/nonsuch.csv"}, "There is no file '/nonsuch.csv'"),
        ({"separator": "ab"}, "The separator 'ab' cannot be used"),
        ({"encoding": "utf-9"}, "no encoding 'utf-9'"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_the_table(load, options, says):
    with pytest.raises((DataError, OptionsError), match=says):
        load(target="age", options={"task": "regression", **options})


def test_a_scaling_that_there_is_not(tmp_path):
    with pytest.raises(OptionsError, match="--set=numbers=log; expected one of standard, quant"):
        load_table_data(TrainOptions(data="x.csv", target="y"), numbers="log")


# What can be used as it comes.


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress])
def test_byte_order_mark_line_ends_and_gzip_change_nothing(load, mark, end, pack):
    expected = load().fingerprint()
    content = end.join(lines_of(age=AGES, city=CITIES, bought=BOUGHT)).encode()
    assert load(pack(mark + content)).fingerprint() == expected


def test_quotes_and_spaces_change_nothing(load):
    rows = [f'"{a}" , "{c}",{b} ' for a, c, b in zip(AGES, CITIES, BOUGHT, strict=True)]
    plain = load()
    quoted = load("\n".join(['"age", city ,"bought"', *rows]))
    assert used(quoted) == used(plain) and quoted.task == plain.task


def test_yes_and_no_in_a_column_and_in_the_target(load):
    data = load(member=["yes" if row % 3 else "no" for row in range(N)])
    assert data.task == Classification(("no", "yes"))
    assert data.columns.sizes == (3, 2)


@pytest.mark.parametrize(
    "words", [("True", "False"), ("true", "false"), ("t", "f"), ("1", "0"), ("1.0", "0.0")]
)
def test_bools_in_any_writing_are_two_classes(load, words):
    data = load(bought=[words[row % 2] for row in range(N)], member=words * (N // 2))
    assert len(data.task.classes) == 2 and "member" in used(data)
    assert data.train.targets.dtype == np.int32


def test_bools_of_parquet_are_classes_and_columns(tmp_path):
    flags = [row % 3 == 0 for row in range(N)]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"flag": flags, "age": AGES, "y": [not flag for flag in flags]}), path)
    data = load_table_data(TrainOptions(data=str(path), target="y"))
    assert data.task.classes == ("false", "true")
    np.testing.assert_array_equal(data.train.inputs["numbers"][:, 0], 1 - data.train.targets)


@pytest.mark.parametrize("values", [12, N])
def test_numbers_with_thousands_separators_are_warned_of(load, refused, caplog, values):
    """As a category, or left out where nearly each row has another one."""
    incomes = [f'"1,{100 + row % values}"' for row in range(N)]
    load(income=incomes)
    assert "'income' is taken for text" in caplog.text
    assert "Remove thousands separators" in caplog.text
    if values == N:
        assert "expected classes that repeat, or numbers. The first is '1,100'" in refused(
            bought=incomes
        )


def test_a_column_with_a_few_words_among_numbers_is_text_with_a_warning(load, caplog):
    data = load(income=[*["unknown"] * 2, *(row % 20 for row in range(N - 2))])
    assert "income" in data.columns.categories
    assert "nearly all of its values are numbers" in caplog.text and "'unknown'" in caplog.text


def test_columns_of_no_use_are_left_out_with_their_reason(load, caplog):
    with caplog.at_level(logging.INFO, logger="kerastrain"):
        data = load(
            row=range(1, N + 1),
            ticket=[f"A/{row}" for row in range(N)],
            empty=[""] * N,
            same=["x"] * N,
            note=[f"they said that it was item number {row}" for row in range(N)],
        )
    assert used(data) == ["age", "city"]
    left_out = data.description["left_out"].items()
    assert {name: " ".join(why.split()[:2]) for name, why in left_out} == {
        "row": "it numbers", "ticket": "it looks", "empty": "it has", "same": "it has",
        "note": "it is",
    }  # fmt: skip
    for name in ("row", "ticket", "empty", "same", "note"):
        assert f"'{name}' is left out" in caplog.text


@pytest.mark.parametrize(
    "columns",
    [
        {"day": [f"2020-01-{1 + row % 28:02d}" for row in range(N)]},
        {"when": [f"2020-01-{1 + row % 28:02d} 12:{row % 60:02d}:00" for row in range(N)]},
        {"city": CITIES},
        {"city": [*CITIES[:-1], ""], "land": ["", "x"] * (N // 2)},
        {"age": AGES},
        {"age": ["", "7"] * (N // 2)},
        {"flag": [row % 2 for row in range(N)]},
    ],
)
def test_columns_of_one_kind_alone_are_enough(load, columns):
    data = load("\n".join(lines_of(**columns, bought=BOUGHT)))
    assert used(data) == list(columns)
    for name, values in data.train.inputs.items():
        assert values.shape[1] > 0 and (name != "numbers" or np.isfinite(values).all())
    assert len(data.columns.numbers) + len(data.columns.categories) >= len(columns)


def test_a_column_that_is_constant_once_the_rows_are_split(load):
    rows = load().split_rows
    lone = [1] * N
    lone[rows["test"][0]] = 2  # of training rows all are 1
    data = load(lone=[f"{value}.5" for value in lone], city=["b" if v == 2 else "a" for v in lone])
    place = data.columns.numbers.index("lone")
    assert not data.train.inputs["numbers"][:, place].any()
    assert np.isfinite(data.test.inputs["numbers"]).all()
    assert data.test.inputs["categories"].min() == -1  # "b" was never seen


def test_a_class_that_has_one_row_is_for_training(load, caplog):
    data = load(bought=["maybe", *BOUGHT[1:]])
    assert data.task.classes == ("maybe", "no", "yes")
    assert (data.train.targets == 0).sum() == 1 and "one row only" in caplog.text


def test_balance_with_a_class_that_training_lacks(load):
    split = ["train"] * 30 + ["val"] * 15 + ["test"] * 15
    bought = [*(BOUGHT[:45]), *["maybe"] * 15]
    data = load(split=split, bought=bought, options={"split_column": "split", "balance": True})
    assert np.isfinite(data.train.weights).all()
    sums = np.bincount(data.train.targets, weights=data.train.weights, minlength=3)
    assert sums[0] == 0 and sums[1] == pytest.approx(sums[2])


def test_balance_keeps_the_rows_own_weights(load):
    weights = [row % 3 for row in range(N)]
    data = load(w=weights, options={"weights": "w", "balance": True})
    train = data.train
    sums = np.bincount(train.targets, weights=train.weights)
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
    of_rows = np.array(weights)[data.split_rows["train"]]
    assert ((train.weights == 0) == (of_rows == 0)).all()
    assert data.validation.weights is not None


def test_one_class_alone_left_to_train_on_does_not_stop_the_loading(load):
    split = ["train"] * 40 + ["test"] * 20
    data = load(
        split=split, bought=["no"] * 40 + ["yes", "no"] * 10, options={"split_column": "split"}
    )
    assert set(data.train.targets) == {0} and data.task.classes == ("no", "yes")


def test_a_target_that_does_not_vary_in_training_has_a_scale(load):
    split = ["train"] * 40 + ["test"] * 20
    price = [0.1] * 40 + [0.1, 2.5] * 10
    data = load(split=split, price=price, target="price", options={"split_column": "split"})
    assert data.task == Regression("price")
    assert data.columns.target_deviation == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_target_far_from_zero_keeps_its_differences(load, stream, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    price = [1e9 + row % 11 / 10 for row in range(N)]
    data = load(price=price, target="price", options={"stream": stream})
    assert data.columns.target_mean == pytest.approx(1e9 + 0.5, abs=0.1)
    assert data.columns.target_deviation == pytest.approx(0.31, abs=0.05)
    for split in ("train", "validation", "test"):
        targets = getattr(data, split).targets
        assert targets.dtype == np.float64 and targets.shape[1:] == (1,)
    expected = [price[row] for row in data.split_rows["test"]]
    np.testing.assert_array_equal(data.test.targets[:, 0], expected)


def test_a_target_that_float64_cannot_tell_apart_is_refused(refused):
    rows = [(2**60 + row, row) for row in range(N)]
    text = refused("\n".join(["y,age", *(f"{y},{age}" for y, age in rows)]), target="y")
    assert "'y' differ by less than float64 tells apart near 1.15292e+18" in text


@pytest.mark.parametrize("numbers", ["standard", "quantiles"])
def test_a_column_far_from_zero_keeps_its_differences(numbers, tmp_path):
    seconds = [1_700_000_000 + 3 * (row * 7 % N) for row in range(N)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines_of(age=AGES, seconds=seconds, bought=BOUGHT)))
    data = load_table_data(TrainOptions(data=str(path), target="bought"), numbers=numbers)
    assert data.columns.numbers == ("age", "seconds")
    encoded = data.train.inputs["numbers"][:, 1]
    of_rows = np.array(seconds)[data.split_rows["train"]]
    order = np.argsort(of_rows)
    assert (np.diff(encoded[order]) > 0).all() and encoded.std() > 0.5
    assert data.test_rows["seconds"].dtype == np.float64
    rows = {name: tf.constant(values) for name, values in data.test_rows.items()}
    served = data.encoder(rows)["numbers"]
    np.testing.assert_allclose(served, data.test.inputs["numbers"], atol=1e-6)


def test_what_is_no_code_is_taken_for_none_of_them(load):
    data = load(zip=[1 + row % 3 for row in range(N)])
    codes = [1, 2, 3, 1.5, 2.999, 4, np.nan, np.inf, -np.inf, 1e30, -1]
    rows = {name: np.repeat(values[:1], len(codes)) for name, values in data.test_rows.items()}
    rows["zip"] = np.array(codes, np.float32)
    encoded = data.encoder({name: tf.constant(values) for name, values in rows.items()})
    indices = encoded["categories"][:, data.columns.categories.index("zip")].numpy()
    assert sorted(indices[:3]) == [0, 1, 2] and set(indices[3:].tolist()) == {-1}


def test_codes_too_large_for_float32_are_sent_as_text(load):
    data = load(zip=[2**40 + row % 3 for row in range(N)])
    assert set(data.test_rows["zip"]) <= {str(2**40 + place) for place in range(3)}
    assert data.columns.sizes[data.columns.categories.index("zip")] == 3


def test_names_that_are_odd_are_columns(load):
    names = ["km/h", "self", "a b", "größe", "numbers", "x:y", "(€)"]
    columns = {name: [row % 7 + place for row in range(N)] for place, name in enumerate(names)}
    data = load("\n".join(lines_of(**columns, y=BOUGHT)), target="y")
    assert used(data) == names
    assert sorted(data.test_rows) == sorted(tensor.name for tensor in data.encoder.inputs)


def test_a_table_of_the_fewest_rows_and_one_of_many_columns(load):
    few = load("\n".join(lines_of(a=range(0, 20, 2), y=[0, 1] * 5)), target="y")
    assert [len(few.train), len(few.validation), len(few.test)] == [6, 2, 2]
    many = {
        f"column {place}": [(row * place) % 11 / 2 for row in range(N)] for place in range(1, 201)
    }
    data = load("\n".join(lines_of(**many, y=BOUGHT)), target="y")
    assert len(data.columns.numbers) >= 180
