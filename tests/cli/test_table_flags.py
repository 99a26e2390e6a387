"""The flags of tables: the same for every command, and each a field of TableOptions."""

from __future__ import annotations

import dataclasses

import pytest
from absl import flags

from kerastrain.cli import schema, table_flags, train
from kerastrain.cli.command_line import command_help, parse_flags
from kerastrain.errors import OptionsError, UsageError
from kerastrain.options import TableOptions

FLAGS = flags.FlagValues()
table_flags.define(FLAGS)


def options(*arguments) -> TableOptions:
    return table_flags.table_options(parse_flags("train", FLAGS, list(arguments)))


def test_without_flags_the_options_are_the_defaults():
    assert options() == TableOptions()


def test_every_flag_reaches_its_option():
    assert options(
        "--schema=s.json",
        "--ignore_columns=a, b",
        "--task=regression",
        "--quantiles=0.1,0.5,0.9",
        "--weights=w",
        "--balance",
        "--separator=;",
        "--noheader",
        "--encoding=latin-1",
        "--validation_data=v.csv",
        "--test_data=t.csv",
    ) == TableOptions(
        schema="s.json",
        ignore_columns=("a", "b"),
        task="regression",
        quantiles=(0.1, 0.5, 0.9),
        weights="w",
        balance=True,
        separator=";",
        header=False,
        encoding="latin-1",
        validation_data="v.csv",
        test_data="t.csv",
    )
    for split in ("split_column", "split_time", "split_group"):
        assert options(f"--{split}=when") == TableOptions(**{split: "when"})


@pytest.mark.parametrize("module", [train, schema])
def test_every_option_of_tables_has_its_flag_in_both_commands(module):
    fields = {field.name for field in dataclasses.fields(TableOptions)}
    assert fields - set(module.FLAGS) <= {"stream"} and set(FLAGS) <= set(module.FLAGS)
    assert "--quantiles=" in command_help("x", "", module.FLAGS)


@pytest.mark.parametrize(
    ("given", "separator"), [("tab", "\t"), (r"\t", "\t"), ("space", " "), ("|", "|"), (",", ",")]
)
def test_separators_that_a_shell_makes_hard_to_say_have_names(given, separator):
    assert options(f"--separator={given}").separator == separator


def test_a_column_whose_name_holds_a_comma_can_be_quoted():
    assert options('--ignore_columns="price, net",b').ignore_columns == ("price, net", "b")


def test_the_users_folder_is_found_in_locations(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = options("--schema=~/s.json", "--test_data=~/t.csv", "--weights=~w")
    assert (given.schema, given.test_data) == ("/home/me/s.json", "/home/me/t.csv")
    assert given.weights == "~w"


@pytest.mark.parametrize("text", ["a", "0.5,", "10%", "0.1;0.9", "0.1 0.9"])
def test_quantiles_that_are_no_numbers_are_refused(text):
    with pytest.raises(UsageError, match="--quantiles holds .*as in --quantiles=0.1,0.5,0.9"):
        options(f"--quantiles={text}")


@pytest.mark.parametrize("text", ["0.9,0.1", "0.5,0.5", "10,90", "nan", "0,0.5", "1"])
def test_quantiles_out_of_order_or_range_are_refused(text):
    with pytest.raises(OptionsError, match="--quantiles is .*rise, between 0 and 1"):
        options(f"--quantiles={text}")


def test_another_task_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="--task is 'ranking'; expected one of classification, r"):
        options("--task=ranking")


def test_empty_lists_are_none():
    assert options("--quantiles=", "--ignore_columns=") == TableOptions()
