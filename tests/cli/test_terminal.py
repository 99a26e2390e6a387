import logging
import os
import subprocess
import sys

import pytest

from kerastrain.cli.terminal import messages_to_terminal, without_native_logs

# Each line of it made TensorFlow write to stderr when it was left to itself.
CHATTY = """
import warnings
from kerastrain.cli.terminal import quiet_tensorflow
quiet_tensorflow()
import sys
assert "tensorflow" not in sys.modules
warnings.warn("a warning before")
import keras
import tensorflow as tf
add = tf.function(lambda x: x + x, jit_compile=True)
for size in range(1, 9):
    add(tf.ones([size]))
try:
    tf.io.read_file("/nonsuch")
except tf.errors.NotFoundError:
    print("NotFoundError arrived")
warnings.warn("a warning after")
"""


def test_tensorflow_writes_nothing_to_the_terminal_and_python_warnings_still_do():
    # What is written while it is loaded is so at every level; unset, test_command.py has it.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    result = subprocess.run(
        [sys.executable, "-c", CHATTY], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout == "NotFoundError arrived\n"
    # Python 3.13 shows the line of -c, too.
    lines = [line for line in result.stderr.splitlines() if not line.startswith("  warnings.")]
    assert [line.partition("UserWarning: ")[2] for line in lines] == [
        "a warning before",
        "a warning after",
    ]


def test_a_crash_while_native_logs_are_hidden_still_says_where():
    code = (
        "import os\nfrom kerastrain.cli.terminal import native_logs_hidden\n"
        "with native_logs_hidden():\n    os.abort()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "Fatal Python error: Aborted" in result.stderr


def test_what_is_no_native_log_line_is_shown_once_loading_is_over(capfd):
    code = (
        "import os\nfrom kerastrain.cli.terminal import native_logs_hidden\n"
        "with native_logs_hidden():\n"
        "    os.write(2, b'I0000 00:00:1795218508.451563    5311 port.cc:153] oneDNN\\n')\n"
        "    os.write(2, b'a real message\\n')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert capfd.readouterr().err == "a real message\n"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (b"I0000 00:00:1795218508.451563    5311 port.cc:153] oneDNN is on\n", False),
        (b"E1120 23:41:08.451563    5311 cuda_platform.cc:52] failed call\n", False),
        (b"WARNING: All log messages before absl::InitializeLog() is called are\n", False),
        (b"To enable the following instructions: AVX2 FMA, in other operations\n", False),
        (b"F0000 00:00:1795218508.451563    5311 cpu.cc:1] AVX is missing\n", True),
        (b"x.py:3: UserWarning: I0000 is odd\n", True),
        (b"no line end", True),
        (b"", True),
    ],
)
def test_only_log_lines_below_fatal_are_dropped(line, kept):
    assert without_native_logs(line) == (line if kept else b"")


def test_information_goes_to_stdout_and_warnings_to_stderr(capsys):
    logger = logging.getLogger("kerastrain.training.loop")
    with messages_to_terminal():
        logger.info("Training on %s.", "2 CPUs")
        logger.warning("The disk is nearly full.")
        logger.debug("Nobody wants to know.")
    shown = capsys.readouterr()
    assert shown.out == "Training on 2 CPUs.\n"
    assert shown.err == "warning: The disk is nearly full.\n"


def test_messages_follow_a_stdout_that_is_replaced_meanwhile(capsys):
    import contextlib
    import io

    replaced = io.StringIO()
    with messages_to_terminal(), contextlib.redirect_stdout(replaced):
        logging.getLogger("kerastrain").info("above the progress bar")
    assert replaced.getvalue() == "above the progress bar\n"


def test_afterwards_logging_is_as_it_was(capsys):
    logger = logging.getLogger("kerastrain")
    before = (list(logger.handlers), logger.level, logger.propagate)
    with messages_to_terminal():
        pass
    assert (list(logger.handlers), logger.level, logger.propagate) == before
