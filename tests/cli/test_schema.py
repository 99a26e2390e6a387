"""`kerastrain schema`: what columns are taken for, shown, written, edited and given back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from kerastrain.cli.main import main
from kerastrain.data.tables.schema import Schema

N = 50


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    lines = [
        f"{row},{18 + row % 9},{'Bern' if row % 3 else 'Rom'},2020-01-{1 + row % 28:02d},"
        f"{'yes' if row % 4 else 'no'}"
        for row in range(N)
    ]
    (tmp_path / "people.csv").write_text("\n".join(["row,age,city,joined,stays", *lines]))
    return tmp_path


def shown(capsys) -> dict[str, str]:
    """The lines of the printed table by their first word."""
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: " ".join(line.split()) for line in lines if line}


def test_columns_counts_and_splits_are_shown(table, capsys):
    assert main(["schema", "--data=people.csv", "--target=stays"]) == 0
    lines = shown(capsys)
    assert lines["column"] == "column used as missing different examples"
    assert lines["age"] == "age number 0 9 18, 19, 20"
    assert lines["city"] == "city category 0 2 Rom, Bern"
    assert lines["joined"].startswith("joined date 0 28 2020-01-01, ")
    assert lines["row"].startswith("row left out: it numbers the rows (0 to 49)")
    assert lines["stays"].startswith("stays target: 2 classes")
    assert lines["50"] == "50 rows: train 32, validation 8, test 10"


def test_the_file_can_be_edited_and_given_back(table, capsys):
    main(["schema", "--data=people.csv", "--target=stays", "--output=schema.json"])
    assert "train with --schema=schema.json" in capsys.readouterr().out
    values = json.loads((table / "schema.json").read_text())
    assert [c["name"] for c in values["columns"]] == ["age", "city", "joined"]
    values["columns"][0]["kind"] = "category"
    values["left_out"]["city"] = "not ours"
    del values["columns"][1]
    (table / "schema.json").write_text(json.dumps(values))
    assert main(["schema", "--data=people.csv", "--schema=schema.json", "--output=2.json"]) == 0
    lines = shown(capsys)
    assert lines["age"].startswith("age category of codes")
    assert lines["city"].startswith("city left out: not ours")
    schema = Schema.from_json(json.loads((table / "2.json").read_text()))
    assert [(c.name, c.kind) for c in schema.columns] == [("age", "category"), ("joined", "date")]


def test_the_positive_class_and_columns_that_give_the_target_away_are_told(table, capsys):
    lines = (table / "people.csv").read_text().splitlines()
    copied = [f"{line},{line.rsplit(',', 1)[1]}ish" for line in lines[1:] * 2]
    (table / "people.csv").write_text("\n".join([f"{lines[0]},copy", *copied]))
    assert main(["schema", "--data=people.csv", "--target=stays"]) == 0
    printed = capsys.readouterr()
    assert "\npositive class: yes\n" in printed.out
    assert "'copy' alone explains 100.0% of the errors of 'stays'" in printed.err
    assert main(["schema", "--data=people.csv", "--target=stays", "--positive=no"]) == 0
    assert shown(capsys)["positive"] == "positive class: no"


def test_what_is_said_of_the_table_is_heeded(table, capsys):
    arguments = ["--data=people.csv", "--target=age", "--quantiles=0.1,0.9", "--split_time=joined"]
    assert main(["schema", *arguments, "--ignore_columns=city,row"]) == 0
    lines = shown(capsys)
    assert lines["age"].startswith("age target: quantiles 0.1, 0.9")
    assert lines["city"].startswith("city left out: --ignore_columns names it")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 1, "--data is missing"),
        (["--data=people.csv"], 1, "--target is missing; the columns of people.csv are: row, age"),
        (["--data=people.csv", "--target=stay"], 1, "Did you mean 'stays'?"),
        (["--data=poeple.csv", "--target=stays"], 1, "Did you mean 'people.csv'?"),
        (["--data=people.csv", "--target=stays", "--schema=s.json"], 1, "s.json cannot be read"),
        (["--data=people.csv", "--target=stays", "--output=no/s.json"], 2, "there is no folder"),
        (["--data=people.csv", "--target=stays", "--output=."], 2, "=. is a folder"),
        (["--data=people.csv", "--target=stays", "--output=/proc/s"], 2, "cannot be written"),
        (["--data=people.csv", "--target=stays", "--epochs=3"], 2, "has no flag '--epochs'"),
        (["--data=people.csv", "--target=stays", "--weights=city"], 1, "expected numbers"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(table, capsys, arguments, status, says):
    assert main(["schema", *arguments]) == status
    printed = capsys.readouterr()
    assert says in printed.err and "Traceback" not in printed.err
    assert not (table / "schema.json").exists()


def test_it_needs_no_tensorflow(table):
    check = "import sys; print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    call = (
        "from kerastrain.cli.main import main; "
        "status = main(['schema', '--data=people.csv', '--target=stays', '--output=s.json'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{call}\n{check}\nsys.exit(status)"],
        capture_output=True,
        text=True,
        cwd=table,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr
    assert done.stderr == "" and (table / "s.json").exists()


def test_as_a_command_it_says_what_is_wrong_on_one_line(run_kerastrain):
    done = run_kerastrain("schema", "--data=none.csv", "--target=y")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "kerastrain: error: There is no file 'none.csv'.\n"
