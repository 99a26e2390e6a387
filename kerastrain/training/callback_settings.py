"""What callbacks are set to, which may not differ between the starts of a run.

    recorded = callback_settings(callbacks)             # {"0 Patience": {"patience": "3"}}
    setting_differences(recorded, callbacks)            # ["callback 0 Patience: patience: …"]

Settings are the attributes as they stand after the constructor. Functions are compared by their
name and code, without what they refer to; arrays by their content.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
import types
from collections.abc import Mapping, Sequence

import keras

from kerastrain.training.callback_attributes import as_made, named_callbacks

logger = logging.getLogger(__name__)

# Nothing that is learned: what Keras's base class sets, and how much is shown.
NO_SETTINGS = {"params", "_model", "verbose"}
# A text that may differ from start to start: a path, the name of a file, a date, an id.
OF_ONE_START = re.compile(r'^".*([/\\]|\d{4}-\d\d|\d{6}|0x|[0-9a-f]{8}|\.\w{1,8}"$)')
# Callbacks of this program were made later than that: some time before this is imported.
EARLIEST = time.time() - 30 * 86400, time.monotonic() - 3600
# Names in the code of a callback that acts on the training.
ACTING = frozenset(
    ("stop_training", "learning_rate", "lr", "trainable", "compile", "set_weights")
    + ("load_weights", "set_value", "assign", "assign_add", "assign_sub", "apply")
)


def callback_settings(
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, dict[str, str]]:
    """{"0 Patience": {"patience": "3", …}, …}: what every callback was set to, as texts."""
    return {name: _settings(callback) for name, callback in named_callbacks(callbacks)}


def setting_differences(
    recorded: Mapping[str, Mapping[str, str]], callbacks: Sequence[keras.callbacks.Callback]
) -> list[str]:
    """Lines "callback 0 Patience: patience: 3 recorded, 5 now", of callbacks that were there.

    No difference, but told: paths, names of files, dates, ids and times, which may differ from
    start to start; and whatever a callback has that does not act on the training.
    """
    differences = []
    for name, callback in named_callbacks(callbacks):
        before, now = recorded.get(name, {}), _settings(callback)
        for attribute in (a for a in now if a in before and before[a] != now[a]):
            line = f"{attribute}: {before[attribute]} recorded, {now[attribute]} now"
            if _is_of_one_start(before[attribute], now[attribute]):
                logger.info("The callback %s was made otherwise: %s.", name, line)
            elif not _acts_on_training(callback):
                logger.warning("The callback %s was made otherwise: %s.", name, line)
            else:
                differences.append(f"callback {name}: {line}")
    return differences


def _acts_on_training(callback: keras.callbacks.Callback) -> bool:
    """Whether its code names what changes a model or an optimizer, or ends the training."""
    kinds = [k for k in type(callback).__mro__ if k not in (keras.callbacks.Callback, object)]
    members = [*vars(callback).values(), *(m for kind in kinds for m in vars(kind).values())]
    codes = [m.__code__ for m in members if isinstance(m, types.FunctionType)]
    while codes:
        code = codes.pop()
        if not ACTING.isdisjoint(code.co_names):
            return True
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return False


def _is_of_one_start(before: str, now: str) -> bool:
    if OF_ONE_START.match(before) and OF_ONE_START.match(now):
        return True
    clocks = zip(EARLIEST, (time.time(), time.monotonic()), strict=True)
    # Nobody sets anything to so many digits.
    is_reading = re.fullmatch(r"\d+\.\d{4,}", now) is not None
    return is_reading and any(earliest <= float(now) <= ends for earliest, ends in clocks)


def _settings(callback: keras.callbacks.Callback) -> dict[str, str]:
    made, kind = as_made(callback), type(callback)
    # When to stop is an option, and is compared there.
    is_own = any(base.__module__.startswith("kerastrain.") for base in kind.__mro__)
    left_out = NO_SETTINGS | (made.by_libraries if is_own else set())
    texts = {name: json.dumps(kept) for name, kept in made.kept.items()}
    texts |= made.functions
    own = [name for name in texts if name in vars(callback) and name not in left_out]
    return {name: _short(texts[name]) for name in own}


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
