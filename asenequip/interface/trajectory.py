"""Frames of a trajectory, one after another, whichever program wrote it."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np
from ase import Atoms

from asenequip.errors import parameter_error

Frames = str | os.PathLike[str] | Iterable[Atoms]
"""A file in any format of ASE's, or the frames themselves."""
AXES = {"a": (1, 2, 0), "b": (2, 0, 1), "c": (0, 1, 2)}
"""Cyclic orders of the lattice vectors that put one of them last."""
_DUMP = "ITEM: TIMESTEP"
"""How a frame of a LAMMPS dump begins."""


def open_frames(frames: Frames, *, index: str = ":", start: Atoms | None = None, normal: str = "c") -> Iterator[Atoms]:
    """Read frames one after another.

    Parameters
    ----------
    frames : path or iterable of ase.Atoms
    index : str
        ASE's slice of frames, where ``frames`` is a path.
    start : ase.Atoms, optional
        The same atoms in the same order. The frames get its tags, which most formats do not know, and where a dump of
        LAMMPS says types only, its elements.
    normal : {"a", "b", "c"}
        The lattice vector that leads from layer to layer; the vectors are given another order to make it the third.

    Yields
    ------
    ase.Atoms

    Raises
    ------
    ValueError, FileNotFoundError
    """
    if normal not in AXES:
        raise parameter_error("normal", "stream", 'one of "a", "b", "c"', normal)
    order = list(AXES[normal])
    source = _read(os.fspath(frames), index, start) if isinstance(frames, (str, os.PathLike)) else frames
    for number, atoms in enumerate(source):
        if start is None and normal == "c":
            yield atoms
            continue
        found = atoms.copy()
        if start is not None:
            if not np.array_equal(start.numbers, atoms.numbers):
                wanted = f"the atoms of frame {number}, {atoms.symbols.get_chemical_formula()}, in their order"
                raise parameter_error("start", "stream", wanted, start.symbols.get_chemical_formula())
            found.set_tags(start.get_tags())
        found.set_cell(atoms.cell.array[order])
        found.pbc = atoms.pbc[order]
        yield found


def count_frames(frames: Frames, index: str = ":") -> int:
    """How many frames a file or list has; a file of text is read through once for it."""
    if not isinstance(frames, (str, os.PathLike)):
        if not isinstance(frames, Sized):
            raise parameter_error(
                "choices",
                "analyse",
                "with 'lags', where frames come from a generator",
                "lags=None",
                "Give Choices(lags=...).",
            )
        return len(frames)
    path = _existing(os.fspath(frames))
    if path.endswith(".traj"):
        from ase.io.trajectory import Trajectory

        with Trajectory(path) as file:
            return len(range(len(file))[_slice(index)])
    if _is_dump(path):
        return len(range(_dump_length(path))[_slice(index)])
    from ase.io import iread

    return sum(1 for _ in iread(path, index=_slice(index)))


def _read(path: str, index: str, start: Atoms | None) -> Iterator[Atoms]:
    from ase.io import iread

    chosen = _slice(index)
    if _is_dump(_existing(path)):
        return _read_dump(path, chosen, start)
    return iread(path, index=chosen)


def _existing(path: str) -> str:
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file '{path}'. Check the path.")
    return path


def _slice(index: str) -> slice:
    """A slice as ASE writes it; a single number takes that frame."""
    try:
        parts = [int(part) if part else None for part in index.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3:
        raise parameter_error("index", "stream", "a Python slice such as '100:' or '::10'", index)
    if len(parts) == 1 and parts[0] is not None:
        return slice(parts[0], parts[0] + 1 or None)
    return slice(*parts)


# -- dumps of LAMMPS, which ASE's own function reads as a whole --------------------------------------------------------


def _is_dump(path: str) -> bool:
    with _open(path) as file:
        return file.readline().startswith("ITEM: ")


def _open(path: str) -> io.TextIOWrapper:
    """For reading as text; what is not text does not matter, for then it is no dump."""
    from ase.io.formats import open_with_compression

    file: Any = open_with_compression(path, "rb")
    return io.TextIOWrapper(file, errors="replace")


def _dump_length(path: str) -> int:
    with _open(path) as file:
        return sum(1 for _ in _chunks(file))


def _read_dump(path: str, chosen: slice, start: Atoms | None) -> Iterator[Atoms]:
    """Frames of a text dump, the corner of the box at the origin; they say their step as ``info["timestep"]``."""
    from ase.io.lammpsrun import read_lammps_dump_text

    bounds = (chosen.start, chosen.stop, chosen.step)
    length = _dump_length(path) if any(bound is not None and bound < 0 for bound in bounds) else None
    wanted = itertools.islice(itertools.count(), *bounds) if length is None else iter(range(length)[chosen])
    following = next(wanted, None)
    with _open(path) as file:
        for number, text in enumerate(_chunks(file)):
            if number != following:
                continue
            following = next(wanted, None)
            atoms = read_lammps_dump_text(io.StringIO(text), index=0)
            if not _says_elements(text):
                if start is None:
                    raise ValueError(
                        f"The dump '{path}' says types and not elements.\n"
                        "Give the structure that the run began with, or have LAMMPS write them: dump_modify ID element."
                    )
                if len(start) == len(atoms):
                    speeds = atoms.get_velocities() if atoms.has("momenta") else None  # momenta hold other masses
                    atoms.numbers = start.numbers
                    if speeds is not None:
                        atoms.set_velocities(speeds)
            atoms.positions -= atoms.get_celldisp().ravel()
            atoms.set_celldisp(np.zeros(3))
            atoms.info["timestep"] = int(text.split("\n", 2)[1])
            yield atoms
            if following is None:
                return


def _chunks(file: Iterable[str]) -> Iterator[str]:
    """The text of each whole frame: where a run was killed while it wrote, one may end early."""
    lines: list[str] = []
    for line in itertools.chain(file, [_DUMP]):
        if line.startswith(_DUMP):
            if _is_whole(lines):
                yield "".join(lines)
            lines = []
        lines.append(line)


def _is_whole(lines: list[str]) -> bool:
    items = {line.split()[1]: k for k, line in enumerate(lines[:20]) if line.startswith("ITEM: ")}
    if "ATOMS" not in items or not lines[-1].endswith("\n"):
        return False
    return len(lines) > items["ATOMS"] + int(lines[items["NUMBER"] + 1])


def _says_elements(text: str) -> bool:
    place = text.find("ITEM: ATOMS")
    columns = text[place : text.find("\n", place)].split()
    return "element" in columns or "mass" in columns
