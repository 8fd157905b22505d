"""Requests to stop: taken from a signal, and everybody's own handlers back in place afterwards."""

from __future__ import annotations

import signal

import pytest

from asenequip.interrupt import stop_on_signal


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of this process, whatever a test leaves behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request_and_the_handler_comes_back(number):
    mine = lambda *_: None  # noqa: E731
    signal.signal(number, mine)
    with stop_on_signal() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop
    assert signal.getsignal(number) is mine


def test_a_second_ctrl_c_acts_at_once():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_handler_that_a_library_has_set_is_no_error(monkeypatch):
    """Python gives None in place of a handler that was set in C, as by an MPI library, and takes no None back."""
    real = signal.signal

    def from_c(number, handler):
        known = real(number, handler)
        return None if handler not in (signal.SIG_DFL, signal.SIG_IGN) else known

    monkeypatch.setattr(signal, "signal", from_c)
    with stop_on_signal() as stop:
        assert not stop
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
