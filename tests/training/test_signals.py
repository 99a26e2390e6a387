"""SIGINT and SIGTERM: raised at once where nothing is in flux, noted where something is."""

import os
import signal

import pytest

from kerastrain.training.signals import SignalReceived, Signals


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_raised_at_once(number, status):
    with Signals() as signals:
        with pytest.raises(SignalReceived):
            send(number)
        assert signals.received == number and signals.exit_status == status


def test_under_nohup_a_run_outlives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            send(signal.SIGHUP)
        assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_no_except_exception_takes_it():
    with Signals(), pytest.raises(SignalReceived):
        try:
            send(signal.SIGTERM)
        except Exception:
            pytest.fail("it was taken for an error")


def test_in_the_loop_it_is_noted_and_raised_when_the_loop_is_left():
    reached = []
    with Signals() as signals, pytest.raises(SignalReceived), signals.deferred():
        send(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        reached.append("the loop goes on to a safe place")
    assert reached


def test_an_error_in_the_loop_is_not_replaced_by_the_signal():
    with Signals() as signals, pytest.raises(ValueError, match="bug"), signals.deferred():
        send(signal.SIGINT)
        raise ValueError("bug")


def test_a_second_ctrl_c_interrupts_at_once():
    with Signals() as signals, pytest.raises(KeyboardInterrupt) as raised, signals.deferred():
        send(signal.SIGINT)
        send(signal.SIGINT)
    assert not isinstance(raised.value, SignalReceived)


def test_of_a_command_the_second_ctrl_c_is_left_to_the_system():
    with Signals(second_kills=True) as signals, pytest.raises(SignalReceived), signals.deferred():
        send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_handlers_are_as_before_afterwards():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Signals(second_kills=True), pytest.raises(SignalReceived):
        send(signal.SIGTERM)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
