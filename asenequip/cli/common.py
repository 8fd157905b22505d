"""What every verb shares: its flags, its error sentence, its progress, and files that are never overwritten."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from asenequip.files import give_name, refuse_existing
from asenequip.interrupt import Interrupted

if TYPE_CHECKING:
    from ase import Atoms

    from asenequip.calculator import AllegroCalculator

DONE, SOME_FAILED, ERROR, STOPPED = 0, 1, 2, 130
"""Exit codes: all done; finished but for some structures; an error; stopped by Ctrl-C."""

_USAGE: type[BaseException] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _set_debug(context: typer.Context, value: bool) -> bool:
    context.meta["asenequip.debug"] = value
    return value


Model = Annotated[
    Path | None,
    typer.Option(
        "--model", "-m", help="Potential, a .asnq file; else that of ASE's configuration.", show_default=False
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="File to write, in any format of ASE's.", show_default=False)
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Precision: float32, float64, bfloat16, or tf32 (CUDA).")]
Index = Annotated[str, typer.Option("--index", help="Structures taken from the file, as a Python slice.")]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", callback=_set_debug, is_eager=True)
]


class Verbs(TyperGroup):
    """Turns any error into one sentence on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except (_USAGE, typer.Exit, typer.Abort):
            raise
        except (Interrupted, KeyboardInterrupt) as stop:
            typer.echo(str(stop) or "Stopped.", err=True)
            raise typer.Exit(STOPPED) from None
        except Exception as error:
            if ctx.meta.get("asenequip.debug"):
                raise
            typer.echo(f"Error: {_sentence(error)}", err=True)
            raise typer.Exit(ERROR) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, (ValueError, OSError, ImportError)) or type(error).__module__.startswith(
        ("ase.", "asenequip.")
    ):
        return str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}\nThis was not foreseen; --debug shows where it happened."


def open_calculator(model: Path | None, device: str, dtype: str, **options: Any) -> AllegroCalculator:
    """The calculator of a potential's file, or of the one that ASE's configuration names; options as it has them."""
    from asenequip.calculator import AllegroCalculator

    return AllegroCalculator(model, device=device, dtype=dtype, **options)


# -- structures -------------------------------------------------------------------------------------------------------


def read_frames(path: Path, index: str = ":") -> list[Atoms]:
    """Structures of a file in any format of ASE's.

    Raises
    ------
    FileNotFoundError, ValueError
    """
    from ase.io import read

    if not path.exists():
        raise FileNotFoundError(f"There is no file '{path}'. Check the path.")
    try:
        frames = read(str(path), index=index if ":" in index else f"{int(index)}:{int(index) + 1 or ''}")
    except Exception as error:
        raise ValueError(f"'{path}' cannot be read by ASE at index '{index}': {error}") from error
    found = frames if isinstance(frames, list) else [frames]
    if not found:
        raise ValueError(f"'{path}' holds no structures at index '{index}'.")
    return found


def number_in_file(index: str, position: int) -> str:
    """Name of the structure at a position of what ``index`` took: its index in the file where that is known."""
    parts = index.split(":")
    start, step = parts[0] or "0", (parts[2] if len(parts) > 2 else "") or "1"
    if start.startswith("-") or step.startswith("-"):
        return f"{position} of those taken by '{index}'"
    return str(int(start) + position * int(step))


def check_output(path: Path) -> str:
    """Refuse a file that exists, or whose format or folder cannot be written, before any work is done.

    Returns
    -------
    str
        ASE's name of the format.
    """
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    refuse_existing(path)
    remedy = "Take an ending such as .extxyz or .traj."
    try:
        name = filetype(str(path), read=False)
        writable = ioformats[name].can_write
    except (UnknownFileTypeError, KeyError) as error:
        raise ValueError(f"ASE knows no format by the name '{path}'. {remedy}") from error
    if not writable:
        raise ValueError(f"ASE cannot write the format of '{path}' ({name}). {remedy}")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PermissionError(f"'{path}' cannot be written: '{folder}' is no folder that takes files. Choose another.")
    return name


def write_frames(path: Path, frames: Sequence[Atoms]) -> None:
    """Write structures whole or not at all; a file that has appeared meanwhile is not overwritten."""
    from ase.io import write

    name = check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(str(part), list(frames), format=name)
        give_name(part, path)
    finally:
        part.unlink(missing_ok=True)


# -- what is shown while it works -------------------------------------------------------------------------------------


class Progress:
    """A bar with the time left on a terminal; elsewhere a plain line each tenth of the way. On standard error.

    Parameters
    ----------
    title : str
    total : int
    """

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, max(total, 1)
        self._bar: Any = None
        self._tenth = 0
        self._begun = time.monotonic()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self._bar.start()
            self._bar.add_task(self.title, total=self.total, note="")
        return self

    def __exit__(self, *stop: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, note: str = "") -> None:
        """Say how far it is."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, note=note)
            return
        tenth = 10 * done // self.total
        if tenth > self._tenth:
            self._tenth = tenth
            seconds = time.monotonic() - self._begun
            typer.echo(f"{self.title}: {done}/{self.total} in {seconds:.1f} s{'  ' + note if note else ''}", err=True)


def table(rows: Sequence[Sequence[str]], left: bool = False) -> str:
    """Rows as text in columns, the first to the left and the others to the right (or all to the left)."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if left or k == 0 else cell.rjust(w)
            for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
