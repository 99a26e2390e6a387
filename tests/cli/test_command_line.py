from __future__ import annotations

import pytest
from absl import flags

from kerastrain.cli.command_line import Folders, command_help, is_help_asked, parse_flags
from kerastrain.errors import UsageError


@pytest.fixture
def defined() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("name", None, "Whose.", flag_values=values)
    flags.DEFINE_integer("max_epochs", 3, "How long.", flag_values=values)
    flags.DEFINE_float("rate", 0.5, "How fast.", flag_values=values)
    flags.DEFINE_enum("jit", "auto", ("auto", "on"), "How.", flag_values=values)
    flags.DEFINE_boolean("force", False, "Whether.", flag_values=values)
    flags.DEFINE_multi_string("set", [], "What else.", flag_values=values)
    return values


def test_flags_take_their_values(defined):
    given = ["--name=n", "--max_epochs", "5", "--rate=1e-3", "--force", "--set=a=1", "--set=b=2"]
    values = parse_flags("train", defined, given)
    assert (values.name, values.max_epochs, values.rate) == ("n", 5, 0.001)
    assert (values.force, values["set"].value) == (True, ["a=1", "b=2"])


def test_folders_with_commas_in_their_names_stay_whole(tmp_path):
    values = flags.FlagValues()
    flags.DEFINE(Folders(), "model", [], "Which.", flag_values=values)
    place = tmp_path / "{a,,b}\n"
    place.mkdir()
    given = parse_flags("serve", values, [f"--model=x,n={place},{place},y,,z"]).model
    assert given == ["x", f"n={place}", str(place), "y", "z"]


def test_flags_left_out_have_their_defaults_also_after_an_earlier_command_line(defined):
    parse_flags("train", defined, ["--max_epochs=9", "--set=a=1", "--force"])
    values = parse_flags("train", defined, [])
    assert (values.max_epochs, values["set"].value, values.force) == (3, [], False)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--max_epoch=3", "'kerastrain train' has no flag '--max_epoch'. Did you mean '--max_"),
        ("--max-epochs=3", "has no flag '--max-epochs'. Did you mean '--max_epochs'?"),
        ("--zebra", "has no flag '--zebra'. See 'kerastrain train --help'."),
        ("--max_epochs=x", "--max_epochs is 'x'; expected a whole number."),
        ("--max_epochs=1.5", "--max_epochs is '1.5'; expected a whole number."),
        ("--max_epochs=", "--max_epochs is ''; expected a whole number."),
        ("--rate=fast", "--rate is 'fast'; expected a number."),
        ("--jit=maybe", "--jit is 'maybe'; expected one of auto, on."),
        ("--force=maybe", "--force is 'maybe'; expected true or false."),
        ("--max_epochs", "Missing value for flag --max_epochs."),
        ("stray", "Unexpected argument 'stray'; flags are given as --name=value."),
        ("max_epochs=3", "'max_epochs=3'; flags are given as --name=value. Did you mean '--max_"),
        ("--rate=a: b", "--rate is 'a"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_expected(defined, argument, message):
    with pytest.raises(UsageError) as raised:
        parse_flags("train", defined, [argument])
    assert message in str(raised.value)
    assert str(raised.value).endswith(" See 'kerastrain train --help'.")


def test_a_stray_argument_between_flags_is_noticed(defined):
    with pytest.raises(UsageError, match="Unexpected argument 'stray'"):
        parse_flags("train", defined, ["--max_epochs=3", "stray", "--force"])


def test_help_shows_every_flag_with_its_form_and_default(defined):
    shown = command_help("train", "Train it.", defined)
    assert shown.startswith("Train it.\n\nUsage: kerastrain train --flag=value …\n")
    for expected in (
        "  --name=TEXT\n      Whose.\n",
        "  --max_epochs=N\n      How long. Default: 3.\n",
        "  --rate=X\n      How fast. Default: 0.5.\n",
        "  --jit=auto|on\n      How. Default: auto.\n",
        "  --[no]force\n      Whether. Default: false.\n",
        "  --set=TEXT\n      What else. May be given several times.",
    ):
        assert expected in shown
    assert "flagfile" not in shown


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--a=1", "--help"]])
def test_help_may_stand_anywhere(arguments):
    assert is_help_asked(arguments)
    assert not is_help_asked(["--a=--help", "help"])
