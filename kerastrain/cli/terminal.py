"""What reaches the terminal: the package's messages, and not TensorFlow's chatter.

with messages_to_terminal():   # logger "kerastrain": info to stdout, warnings to stderr
    quiet_tensorflow()         # before anything imports TensorFlow
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.abc
import importlib.util
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# What the user sets it to is left; unset, it is 3: nothing below a fatal error is shown.
LOG_LEVEL_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"


@contextlib.contextmanager
def messages_to_terminal() -> Iterator[None]:
    """Shows what the package logs, for as long as the context lasts."""
    logger = logging.getLogger("kerastrain")
    handler, level, propagate = _TerminalHandler(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _TerminalHandler(logging.Handler):
    """Writes to what sys.stdout and sys.stderr are now: a live display replaces them."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            print(record.getMessage(), flush=True)
        else:
            print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def quiet_tensorflow() -> None:
    """Keeps what TensorFlow logs away from the terminal; exceptions and warnings stay.

    Level 3 silences the native libraries once they have read it. What they write
    before that, while they are loaded and whatever the level, is filtered out of stderr:
    oneDNN being on and CUDA not being found are no news on a machine without a GPU.
    """
    level = os.environ.setdefault(LOG_LEVEL_VARIABLE, "3").strip()
    if level.isdecimal() and int(level) >= 2:  # What is no number is 0 to TensorFlow.
        for name in ("tensorflow", "absl"):
            logging.getLogger(name).setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietImport())


@contextlib.contextmanager
def quieter(logger_name: str, level: int) -> Iterator[None]:
    """Below `level` (logging.WARNING, …) a part of the package says nothing meanwhile."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


class _QuietImport(importlib.abc.MetaPathFinder):
    """Finds "tensorflow" as everybody does, and has it run with native logs hidden.

    As a finder, because which import is the first to need TensorFlow (a recipe's,
    Keras's, ours) is not known, and a command that needs none shall import none.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_quietly(module: ModuleType) -> None:
                with native_logs_hidden():
                    execute(module)
                    if not os.path.exists("/dev/nvidiactl"):
                        # Has it complain now that it finds no GPU, where there is none.
                        module.config.list_physical_devices()

            spec.loader.exec_module = execute_quietly  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def native_logs_hidden() -> Iterator[None]:
    """Holds back what is written to file descriptor 2; at the end all but log lines is shown."""
    sys.stderr.flush()
    terminal = os.dup(2)
    # Were the process to crash while stderr is held back, it would say nothing at all.
    reports_crash = not faulthandler.is_enabled()
    if reports_crash:
        faulthandler.enable(terminal)
    try:
        with tempfile.TemporaryFile() as held_back:
            os.dup2(held_back.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(terminal, 2)
                held_back.seek(0)
                sys.stderr.write(without_native_logs(held_back.read()).decode(errors="replace"))
                sys.stderr.flush()
    finally:
        if reports_crash:
            faulthandler.disable()
        os.close(terminal)


def without_native_logs(text: bytes) -> bytes:
    """Drops the lines that absl's C++ logging writes: "I0000 00:00:1795218508.451563 …] …"."""
    log_line = re.compile(
        rb"[IWE]\d{4} \d\d:\d\d:[\d.]+ .*|WARNING: All log messages before absl::InitializeLog.*"
        rb"|To enable the following instructions: .*"  # the second line of a message
    )
    return b"".join(line for line in text.splitlines(True) if not log_line.match(line))
