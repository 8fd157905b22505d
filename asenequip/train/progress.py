"""What the user sees while training: a live table on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asenequip.train.state import Event

if TYPE_CHECKING:
    from rich.table import Table

Watcher = Callable[[Event], None]
_PAUSE = 10.0
"""Least seconds between two plain lines."""
_ROWS = 8
"""Epochs in the live table."""
_COLUMNS = (
    ("epoch", "epoch", 1.0),
    ("learning_rate", "rate", 1.0),
    ("train_loss", "loss", 1.0),
    ("valid_loss", "valid", 1.0),
    ("valid_energy_mae", "E meV/atom", 1e3),
    ("valid_forces_mae", "F meV/A", 1e3),
    ("valid_stress_mae", "S meV/A^3", 1e3),
)
"""Metric, heading, factor to the heading's unit."""


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
    """A watcher for the trainer: silent, a table over a bar, or lines at most every ten seconds."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _table() as watcher:
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
def _table() -> Iterator[Watcher]:
    """A table of the last epochs over a bar with the time left."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns)
    task = bar.add_task("training", total=1.0)
    rows: deque[Mapping[str, float]] = deque(maxlen=_ROWS)
    with Live(bar, console=Console(stderr=True), refresh_per_second=4) as screen:

        def watch(event: Event) -> None:
            bar.update(task, completed=event.part, description=f"step {event.progress.step}")
            if event.row is not None:
                rows.append(event.row)
                screen.update(Group(epoch_table(rows), bar))

        yield watch


def epoch_table(rows: Iterable[Mapping[str, float]]) -> Table:
    """Epochs as a table, errors in the field's units."""
    from rich.table import Table

    rows = list(rows)
    shown = [column for column in _COLUMNS if any(column[0] in row for row in rows)]
    table = Table(*(heading for _, heading, _ in shown), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(f"{row[name] * factor:.4g}" if name in row else "" for name, _, factor in shown))
    return table
