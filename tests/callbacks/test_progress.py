"""What a person sees: lines in a file, a bar on a terminal, nothing when asked for nothing."""

import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap

import keras
import numpy as np
import pytest
from rich.console import Console

from kerastrain.callbacks.progress import ProgressDisplay, TimeLeft
from kerastrain.objective import Objective
from kerastrain.training.status import RunStatus


def begin(display, *, verbose=1, step=0, last_step=40):
    status = RunStatus(
        Objective("val_loss", "min"),
        step=step,
        last_step=last_step,
        steps_per_epoch=10,
        max_epochs=last_step / 10,
    )
    callbacks = keras.callbacks.CallbackList([display])
    callbacks.set_params({"epochs": 4, "steps": 10, "verbose": verbose, "run": status})
    callbacks.on_train_begin()
    return callbacks, status


def run(callbacks, status, *, to, losses=(0.5, 0.25, 0.75, 1.0)):
    """Goes on up to step `to`: a log point every 5 steps, a round every 10."""
    while status.step < to:
        status.step += 5
        status.epoch = status.step / 10
        status.examples_per_second = 512345.0
        status.is_log_point = status.step % 10 == 5
        if status.is_log_point:
            callbacks.on_train_batch_end(status.step, {"loss": 2.0, "accuracy": 0.5})
            continue
        value = losses[status.step // 10 - 1]
        logs = {"loss": 1.0, "accuracy": 0.75, "val_loss": value}
        callbacks.on_epoch_end(status.step // 10 - 1, logs)
        # The loop notes the best after the callbacks, which may still add to the logs.
        if status.best is None or value < status.best:
            status.best, status.best_step = value, status.step


def terminal(width=100):
    return Console(force_terminal=True, file=io.StringIO(), width=width)


def test_in_a_file_each_round_is_a_plain_line(capsys):
    callbacks, status = begin(ProgressDisplay())
    run(callbacks, status, to=40)
    callbacks.on_train_end()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert " ".join(lines[2].split()) == (
        "epoch 3/4 step 30/40 loss 1.0000 accuracy 0.7500 examples/s 512,345 "
        "val_loss 0.7500 best val_loss 0.2500 (1 epoch ago)"
    )
    assert all(character.isprintable() for line in lines for character in line)
    assert len({line.index("val_loss") for line in lines}) == 1


def test_a_round_that_is_the_best_so_far_says_so(capsys):
    callbacks, status = begin(ProgressDisplay())
    run(callbacks, status, to=20)
    first, second = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines())
    assert first.endswith("best val_loss 0.5000 (now)")
    assert second.endswith("best val_loss 0.2500 (now)")


def test_in_a_file_log_points_are_shown_when_a_round_takes_long(capsys):
    callbacks, status = begin(ProgressDisplay(seconds_between_lines=0.0))
    run(callbacks, status, to=20)
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()[:4]) for line in lines] == [
        "epoch 0.5/4 step 5/40",
        "epoch 1/4 step 10/40",
        "epoch 1.5/4 step 15/40",
        "epoch 2/4 step 20/40",
    ]


def test_verbose_0_shows_nothing(capsys):
    callbacks, status = begin(ProgressDisplay(), verbose=0)
    run(callbacks, status, to=40)
    callbacks.on_train_end()
    assert capsys.readouterr().out == ""


def test_numbers_of_any_size_are_readable(capsys):
    callbacks, _ = begin(ProgressDisplay())
    logs = {"loss": 4.7e9, "mae": 48123.4, "small": 1.5e-7, "none": float("nan"), "zero": 0.0}
    callbacks.on_epoch_end(0, logs)
    line = " ".join(capsys.readouterr().out.split())
    for shown in ("loss 4.700e+09", "mae 48,123.4", "small 1.500e-07", "none nan", "zero 0.0000"):
        assert shown in line


def test_on_a_terminal_the_bar_shows_where_the_run_is():
    console = terminal()
    display = ProgressDisplay(console=console)
    callbacks, status = begin(display)
    run(callbacks, status, to=35)
    display._live.refresh()
    shown = last_frame(console)
    callbacks.on_train_end()
    assert "epoch 3.5/4" in shown
    assert "step 35/40" in shown
    assert re.search(r"\d:\d\d left", shown)
    assert "loss 2.0000  accuracy 0.5000  examples/s 512,345" in shown
    assert "val_loss 0.7500  best val_loss 0.2500 (1.5 epochs ago)" in shown


def last_frame(console):
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    return text[text.rindex("epoch ") :]


def test_a_run_shorter_than_a_frame_still_shows_its_result():
    console = terminal()
    callbacks, status = begin(ProgressDisplay(console=console))
    run(callbacks, status, to=40)
    callbacks.on_train_end()
    assert console.file.getvalue().endswith(
        "epoch 4/4  step 40/40  loss 1.0000  accuracy 0.7500  examples/s 512,345\n"
        "val_loss 1.0000  best val_loss 0.2500 (2 epochs ago)\n"
    )


def test_closing_after_an_error_gives_the_terminal_back():
    console, standard_output = terminal(), sys.stdout
    display = ProgressDisplay(console=console)
    callbacks, status = begin(display)
    run(callbacks, status, to=15)
    assert sys.stdout is not standard_output
    display.close()
    display.close()
    callbacks.on_train_end()
    assert sys.stdout is standard_output
    assert console.file.getvalue().count("epoch 1/4  step 10/40") == 1


@pytest.mark.parametrize("error", [BrokenPipeError("Broken pipe"), ValueError("Broken pipe")])
def test_training_goes_on_when_nobody_reads_any_more(caplog, error):
    class Closed(io.StringIO):
        def write(self, text):
            raise error

    callbacks, status = begin(ProgressDisplay(console=Console(file=Closed())))
    with caplog.at_level(logging.WARNING, "kerastrain"):
        run(callbacks, status, to=40)
        callbacks.on_train_end()
    assert [record.message for record in caplog.records] == [
        "The progress cannot be shown any more: Broken pipe."
    ]


def test_in_fit_the_display_replaces_keras_own(capsys):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x, y = np.ones((20, 3), np.float32), np.ones((20, 1), np.float32)
    model.fit(x, y, batch_size=5, epochs=2, verbose=0, callbacks=[ProgressDisplay()])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["epoch", "1/2", "step", "4/8"],
        ["epoch", "2/2", "step", "8/8"],
    ]


def test_the_time_left_follows_the_pace():
    time_left = TimeLeft()
    assert time_left.seconds(100) is None
    time_left.update(1000, 50.0)  # a resumed run: the first 1000 steps took none of this time
    assert time_left.seconds(2000) is None
    time_left.update(1100, 60.0)
    assert time_left.seconds(2000) == pytest.approx(90.0)
    assert time_left.seconds(1100) == 0.0


def test_the_time_left_forgets_a_slow_start():
    time_left = TimeLeft(window_seconds=60.0)
    for step, now in ((0, 0.0), (1, 100.0), (101, 160.0), (201, 220.0)):
        time_left.update(step, now)
    assert time_left.seconds(301) == pytest.approx(60.0)


def test_log_lines_appear_above_the_bar_of_a_real_terminal():
    program = """
        import logging, sys, time, os
        sys.path.insert(0, os.path.dirname(sys.argv[1]))
        from test_progress import ProgressDisplay, begin, run

        class ToStandardOutput(logging.Handler):
            def emit(self, record):
                sys.stdout.write(record.getMessage() + "\\n")

        logger = logging.getLogger("kerastrain")
        logger.addHandler(ToStandardOutput())
        logger.setLevel(logging.INFO)
        callbacks, status = begin(ProgressDisplay())
        run(callbacks, status, to=20)
        logger.info("Saved at step 20.")
        run(callbacks, status, to=40)
        callbacks.on_train_end()
        print("The end.")
    """
    text = output_on_a_terminal(["-c", textwrap.dedent(program), __file__])
    # What the bar draws is erased line by line; what remains is what is never erased again.
    lines = [line for line in remaining_lines(text) if line]
    assert lines == [
        "Saved at step 20.",
        "epoch 4/4  step 40/40  loss 1.0000  accuracy 0.7500  examples/s 512,345",
        "val_loss 1.0000  best val_loss 0.2500 (2 epochs ago)",
        "The end.",
    ]


def output_on_a_terminal(arguments):
    """What a Python program writes when its standard output is a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**env, "TERM": "xterm-256color", "CUDA_VISIBLE_DEVICES": ""},
    )
    os.close(theirs)
    chunks = []
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(ours)
    assert process.wait() == 0
    return b"".join(chunks).decode()


def remaining_lines(text):
    """The lines on the screen after the few control sequences that rich uses."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", text):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token.endswith("A") and token.startswith("\x1b"):
            row -= int(re.findall(r"\d+", token)[0])
        elif token == "\x1b[2K":
            lines[row] = ""
        elif not token.startswith("\x1b") and token != "\r":
            lines[row] += token
    return [line.rstrip() for line in lines]
