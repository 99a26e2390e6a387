"""`kerastrain find_lr`: a learning-rate range test, its curve, and what it suggests.

    kerastrain find_lr --recipe=digits
    kerastrain find_lr --recipe=tabular --data=housing.csv --target=price --plot=rates.png

It trains a few steps of a model that is thrown away; no work directory is needed or touched.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from kerastrain import plots
from kerastrain.cli import train
from kerastrain.cli.command_line import given_flags
from kerastrain.cli.terminal_chart import chart
from kerastrain.errors import UsageError
from kerastrain.options import TableOptions
from kerastrain.workdir import check_file, strict_json

if TYPE_CHECKING:
    from kerastrain.options import TrainOptions
    from kerastrain.training.range_test import RangeTest

logger = logging.getLogger(__name__)

SUMMARY = "Run a learning-rate range test and suggest a learning rate."
# Of train's flags, those that change what is trained in its first steps.
KEPT = (
    "recipe",
    "data",
    "data_dir",
    "target",
    "batch_size",
    "optimizer",
    "seed",
    "strategy",
    "precision",
    "set",
    *(field.name for field in dataclasses.fields(TableOptions)),
)
FLAGS = copy.deepcopy(train.FLAGS)
for _name in list(FLAGS):
    if _name not in KEPT:
        delattr(FLAGS, _name)

flags.DEFINE_string(
    "plot",
    None,
    "Draw the curve into this file (PNG, SVG or PDF); --plot= draws none. Needs matplotlib (pip "
    "install 'kerastrain[plot]'). Default: find_lr_RECIPE.png, unless --json is given.",
    flag_values=FLAGS,
)
flags.DEFINE_boolean(
    "json",
    False,
    'Print one line {"suggestion": …, "rates": […], "losses": […]} and nothing else.',
    flag_values=FLAGS,
)


def run(values: flags.FlagValues) -> int:
    """Makes the test, shows what it found, and returns the exit status."""
    options = train.options_from(values)
    picture = picture_file(values, options)
    if values.json:
        # One line and nothing else: what is only to be known is not said; warnings are.
        logging.getLogger("kerastrain").setLevel(logging.WARNING)
    from kerastrain.run import find_learning_rate

    found = find_learning_rate(options)
    if values.json:
        values_found = {**dataclasses.asdict(found), "suggestion": found.suggestion}
        print(json.dumps(strict_json(values_found)))
    else:
        print("\n".join(lines(found, command=train_command(values))))
    if picture is not None:
        plots.draw_range_test(found, picture, title=options.recipe)
    if not values.json:
        print(picture_line(values, picture))
    return 0


def picture_file(values: flags.FlagValues, options: TrainOptions) -> Path | None:
    """Where to draw; None: nowhere.

    Raises:
        UsageError: a picture was asked for that cannot be drawn.
    """
    if values.plot:
        plots.check_can_draw(Path(values.plot))
        return Path(values.plot)
    if values.plot == "" or values.json or not plots.has_matplotlib():
        return None
    picture = Path(f"find_lr_{Path(options.recipe).stem}.png")
    try:
        check_file(picture, flag="plot")
    except UsageError as error:  # Nobody asked for it.
        logger.warning("No picture will be drawn: %s", error)
        return None
    return picture


def picture_line(values: flags.FlagValues, picture: Path | None) -> str:
    if picture is None and values.plot is None and not plots.has_matplotlib():
        return "picture: none without matplotlib (pip install 'kerastrain[plot]')"
    return "picture: " + ("none" if picture is None else str(picture))


def lines(found: RangeTest, *, command: str) -> list[str]:
    """The curve of the smoothed loss, the suggestion, and what to do with it."""
    width = min(shutil.get_terminal_size().columns, 100)
    smoothed = within_view(found.smoothed)
    return [
        *chart(found.rates, smoothed, width=width, marked=found.suggestion,
               x_label="learning rate (the line: suggested); smoothed loss of the training"),
        "",
        f"suggested learning rate: {found.suggestion:g}",
        f"next:    {command} --learning_rate={found.suggestion:g}",
    ]  # fmt: skip


def within_view(smoothed: tuple[float, ...]) -> list[float]:
    """Without the last rise, which would flatten all that came before."""
    start = smoothed[0]
    least = min(smoothed)
    limit = start + (start - least)
    return [value if value <= limit else float("inf") for value in smoothed]


def train_command(values: flags.FlagValues) -> str:
    """The train command with what was given here."""
    given = given_flags(values, KEPT)
    parts = [flag.partition("=") for flag in given]
    shown = [f"{name}={shlex.quote(value)}" for name, _, value in parts]
    return " ".join(["kerastrain train", *shown])
