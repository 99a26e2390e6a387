"""Flags of one command: read from its arguments, and shown by --help.

values = parse_flags("train", train.FLAGS, ["--max_epochs=3"])
values.max_epochs   # 3
print(command_help("train", train.SUMMARY, train.FLAGS))
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from kerastrain.errors import UsageError, suggestion

RECIPE = "recipe"
HELP = ("--help", "-help", "-h")


class Folders(flags.ArgumentParser[list[str]]):
    """Folders, or NAME=FOLDERs, joined by commas; one with commas in its own name stays whole."""

    def parse(self, argument: Any) -> list[str]:
        rest = argument.split(",") if isinstance(argument, str) else argument
        found: list[str] = []
        while rest:
            counts = range(len(rest), 1, -1)
            count = next((n for n in counts if _is_folder(",".join(rest[:n]))), 1)
            found.append(",".join(rest[:count]))
            rest = rest[count:]
        return [one if _is_folder(one) else one.strip() for one in found if one.strip()]


def _is_folder(text: str) -> bool:
    name, _, folder = text.partition("=")
    places = (text,) if "," in name else (text, folder)
    return any(place and os.path.isdir(os.path.expanduser(place)) for place in places)


def is_help_asked(arguments: Sequence[str]) -> bool:
    return any(argument in HELP for argument in arguments)


def parse_flags(
    command: str, defined: flags.FlagValues, arguments: Sequence[str]
) -> flags.FlagValues:
    """Reads the arguments into a copy of the defined flags.

    An argument that is no flag is the recipe, where the command has one.

    Raises:
        UsageError: an unknown flag, a value of the wrong kind, or an argument
            that is no flag.
    """
    values = copy.deepcopy(defined)
    values.set_gnu_getopt(True)  # Flags may follow an argument that is none.
    try:
        stray = values([command, *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UsageError(
            f"'kerastrain {command}' has no flag '--{error.flagname}'."
            f"{_suggested_flag(error.flagname, values)}"
            f"{_see_help(command)}"
        ) from None
    except flags.IllegalFlagValueError as error:
        raise UsageError(_wrong_value(str(error), values) + _see_help(command)) from None
    except flags.Error as error:
        raise UsageError(f"{error}.{_see_help(command)}") from None
    if stray and RECIPE in values and "=" not in stray[0]:
        _take_recipe(stray.pop(0), values, command)
    if stray:
        name = stray[0].partition("=")[0]
        raise UsageError(
            f"Unexpected argument '{stray[0]}'; flags are given as --name=value."
            f"{_suggested_flag(name, values)}{_see_help(command)}"
        )
    return values


def _take_recipe(name: str, values: flags.FlagValues, command: str) -> None:
    flag = values[RECIPE]
    if flag.present and flag.value != name:
        raise UsageError(
            f"'{name}' and --recipe={flag.value} both say what to train; give one of them."
            f"{_see_help(command)}"
        )
    if not flag.present:
        flag.parse(name)


def _suggested_flag(name: str, values: flags.FlagValues) -> str:
    return suggestion(name.strip("-").replace("-", "_"), values).replace("'", "'--", 1)


def _see_help(command: str) -> str:
    return f" See 'kerastrain {command} --help'."


def _wrong_value(message: str, values: flags.FlagValues) -> str:
    """Says again, for people, what absl says as "flag --seed=x: invalid literal for int()…"."""
    match = re.match(r"flag --(\w+)=(.*?): ", message, flags=re.DOTALL)
    if not match or match[1] not in values:
        return f"{message}."
    flag = values[match[1]]
    return f"--{match[1]} is '{match[2]}'; expected {_expected(flag)}."


def _expected(flag: flags.Flag) -> str:
    if isinstance(flag, flags.EnumFlag):
        return "one of " + ", ".join(flag.parser.enum_values)
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    return kinds.get(flag.flag_type(), flag.flag_type())


def given_flags(values: flags.FlagValues, names: Iterable[str]) -> list[str]:
    """Those of the flags that were given, as another command line takes them."""
    given = []
    for name in names:
        flag = values[name]
        if not flag.present:
            continue
        if isinstance(flag, flags.MultiFlag):
            given += [f"--{name}={one}" for one in flag.value]
        else:
            text = ",".join(flag.value) if isinstance(flag.value, list) else flag.value
            given.append(f"--{name}={text}")
    return given


def command_help(command: str, summary: str, defined: flags.FlagValues) -> str:
    """The text of `kerastrain COMMAND --help`: every flag with its default, as defined."""
    width = min(shutil.get_terminal_size().columns, 100)
    shown = [_flag_help(defined[name], width) for name in defined]
    recipe = "[RECIPE] " if RECIPE in defined else ""
    usage = f"Usage: kerastrain {command} {recipe}--flag=value …"
    return "\n".join([summary, "", usage, "", *shown])


def _flag_help(flag: flags.Flag, width: int) -> str:
    text = textwrap.fill(
        _description(flag), width, initial_indent=" " * 6, subsequent_indent=" " * 6
    )
    return f"  {_form(flag)}\n{text}"


def _form(flag: flags.Flag) -> str:
    if flag.boolean:
        return f"--[no]{flag.name}"
    if isinstance(flag, flags.EnumFlag):
        return f"--{flag.name}={'|'.join(flag.parser.enum_values)}"
    form = {"int": "N", "float": "X"}.get(flag.flag_type(), "TEXT")
    return f"--{flag.name}={form}"


def _description(flag: flags.Flag) -> str:
    text = flag.help or ""
    if isinstance(flag, flags.EnumFlag):
        text = text.partition(">: ")[2]  # absl puts "<auto|on|off>: " in front.
    if isinstance(flag, flags.MultiFlag):
        return text.partition(";\n")[0] + " May be given several times."
    return text if flag.default is None else f"{text} Default: {_shown(flag.default)}."


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)
