"""What the user sees while training: a live bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from asenequip.train.loop import Event

Watcher = Callable[[Event], None]
_PAUSE = 10.0
"""Least seconds between two plain lines."""


def summary(row: Mapping[str, float]) -> str:
    """One line of an epoch's metrics in the field's units."""
    parts = [f"epoch {row['epoch']:4.0f}", f"loss {row['train_loss']:.3e}"]
    for name, label, unit, factor in (
        ("valid_loss", "valid", "", 1.0),
        ("valid_energy_mae", "E", "meV/atom", 1e3),
        ("valid_forces_mae", "F", "meV/A", 1e3),
        ("valid_stress_mae", "S", "meV/A^3", 1e3),
    ):
        if name in row:
            value = row[name] * factor
            parts.append(f"{label} {value:.3e}" if not unit else f"{label} {value:.2f} {unit}")
    return "  ".join(parts)


@contextmanager
def live(quiet: bool = False) -> Iterator[Watcher]:
    """A watcher for the trainer: silent, a bar with the time left, or lines at most every ten seconds."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _bar() as watcher:
            yield watcher
    else:
        yield _Lines()


class _Lines:
    def __init__(self) -> None:
        self.last = -_PAUSE

    def __call__(self, event: Event) -> None:
        if event.row is None:
            return
        now = time.monotonic()
        if now - self.last >= _PAUSE or event.part >= 1.0:
            self.last = now
            print(f"{100 * event.part:5.1f} %  {event.progress.seconds:6.0f} s  {summary(event.row)}", flush=True)


@contextmanager
def _bar() -> Iterator[Watcher]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=1.0)

        def watch(event: Event) -> None:
            bar.update(task, completed=event.part)
            if event.row is not None:
                bar.update(task, description=summary(event.row))

        yield watch
