"""Long work that stops between two steps, on Ctrl-C or a scheduler's signal, with its state written."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(Exception):  # noqa: N818 (not an error: the work is saved, and the message says how to go on)
    """The work was asked to stop; the message says what is saved and how to continue."""


class StopRequest:
    """Whether a signal has asked the work to stop."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request that the work looks at between its steps.

    A second Ctrl-C acts at once, as it would without this. Outside the main thread nothing is changed.

    Yields
    ------
    StopRequest
        True once a signal has come.
    """
    request = StopRequest()
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        request.requested = True
        signal.signal(number, before.get(number, signal.SIG_DFL))

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stop) or signal.SIG_DFL  # None: not set from Python
    except ValueError:  # not the main thread: the caller's own handling stays
        before.clear()
    try:
        yield request
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
