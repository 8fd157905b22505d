"""What a molecular-dynamics run leaves on disk: state for an exact restart, trajectory, table of numbers."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from asenequip.files import refuse_existing, replace_file

FORMAT = "asenequip-md-state"
FORMAT_VERSION = 1
TRAJECTORY_SUFFIXES = (".traj", ".xyz", ".extxyz")


class RestartError(ValueError):
    """A state from which a run cannot go on; the message names the file, the fault and the remedy."""


@dataclass(frozen=True)
class State:
    """Everything a run needs to go on as if it had never stopped.

    Attributes
    ----------
    atoms : ase.Atoms
        The configuration, with momenta and constraints, without a calculator.
    integrator : dict of ndarray
        Inner variables of the integrator.
    header : dict
        JSON-able: settings, step, random generator, files and how long they were.
    """

    atoms: Atoms
    integrator: dict[str, np.ndarray] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)


def write_state(path: Path, state: State) -> None:
    """Write a state atomically, in the place of the run's earlier one; exact, and without pickle."""
    atoms = state.atoms
    arrays = {f"atoms.{name}": array for name, array in atoms.arrays.items() if array.dtype.kind in "biufU"}
    arrays |= {"cell": np.asarray(atoms.cell), "pbc": atoms.pbc, "celldisp": atoms.get_celldisp()}
    arrays |= {f"integrator.{name}": array for name, array in state.integrator.items()}
    info = {key: value for key, value in atoms.info.items() if isinstance(value, (str, int, float, bool))}
    header = {
        **state.header,
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "info": info,
        "constraints": [_plain(constraint.todict()) for constraint in atoms.constraints],
    }
    buffer = io.BytesIO()
    np.savez(buffer, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
    replace_file(path, buffer.getvalue())


def read_state(path: Path) -> State:
    """Read a state written by `write_state`.

    Raises
    ------
    FileNotFoundError, RestartError
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no state to restart from at '{path}'. Check the path, or start the run anew."
        )
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is no archive of arrays")
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(str(arrays.pop("header")))
        if header["format"] != FORMAT or header["format_version"] > FORMAT_VERSION:
            raise RestartError(f"'{path}' is a state of a newer asenequip. Update: pip install --upgrade asenequip.")
        return _unpack(header, arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, RestartError):
            raise
        raise RestartError(
            f"'{path}' is not an intact state of a run: {error}.\nStart anew from the last frame of its trajectory."
        ) from error


def _unpack(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> State:
    from ase.constraints import dict2constraint

    atoms = Atoms(
        numbers=arrays["atoms.numbers"],
        positions=arrays["atoms.positions"],
        cell=arrays["cell"],
        pbc=arrays["pbc"],
        celldisp=arrays["celldisp"],
        info=header.pop("info"),
    )
    for name, array in arrays.items():
        if name.startswith("atoms."):
            atoms.arrays[name.removeprefix("atoms.")] = array
    atoms.set_constraint([dict2constraint(entry) for entry in header.pop("constraints")])
    inner = {k.removeprefix("integrator."): v for k, v in arrays.items() if k.startswith("integrator.")}
    return State(atoms, inner, header)


def _plain(value: Any) -> Any:
    """A constraint's description with arrays and tuples as lists."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value


# -- files that grow with the run -------------------------------------------------------------------------------------


class Table:
    """A CSV file that grows by a row at a time and can be cut back to where a state was written.

    Parameters
    ----------
    path : Path
    columns : sequence of str
    size : int, optional
        Bytes to keep of an existing file; a new file is started if None.

    Raises
    ------
    FileExistsError
        If a new file would overwrite one.
    RestartError
        If the existing file is shorter than ``size``.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], size: int | None = None) -> None:
        self.path = path
        if size is None:
            refuse_existing(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(",".join(columns) + "\n")
        else:
            _cut(path, size)

    def write(self, values: tuple[object, ...]) -> None:
        """Append a row."""
        with self.path.open("a") as file:
            file.write(",".join(str(value) for value in values) + "\n")

    @property
    def mark(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size


class Frames:
    """A trajectory that grows by a frame at a time: ASE's ``.traj``, or extended XYZ.

    Parameters
    ----------
    path : Path
        Ending in .traj, .xyz or .extxyz.
    mark : dict, optional
        As given by `mark` when the state was written; a new file is started if None.

    Raises
    ------
    ValueError, FileExistsError, RestartError
    """

    def __init__(self, path: Path, mark: Mapping[str, int] | None = None) -> None:
        if path.suffix not in TRAJECTORY_SUFFIXES:
            raise ValueError(
                f"The trajectory of a run must end in {', '.join(TRAJECTORY_SUFFIXES)}, which can grow. "
                f"Got '{path}' instead.\nOther formats: convert it afterwards with 'ase convert'."
            )
        self.path, self.binary = path, path.suffix == ".traj"
        self._skip = 0
        if mark is None:
            refuse_existing(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self.count = 0
            return
        self.count = mark["frames"]
        if not self.binary:
            _cut(path, mark["bytes"])
        elif (surplus := _length(path) - self.count) >= 0:
            self._skip = surplus  # frames written after the state: the restarted run would write the same again
        else:
            raise RestartError(f"'{path}' has fewer frames than when the run stopped. Put the file back as it was.")

    def write(self, atoms: Atoms, results: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        """Append a frame with its results (energy, forces, stress)."""
        self.count += 1
        if self._skip:
            self._skip -= 1
            return
        frame = atoms.copy()
        frame.info.update(info)
        frame.calc = SinglePointCalculator(frame, **results)
        if self.binary:
            from ase.io.trajectory import Trajectory

            with Trajectory(str(self.path), "a") as file:
                file.write(frame)
        else:
            from ase.io import write

            frame.set_constraint()  # plain columns: every reader of the format takes them
            write(str(self.path), frame, format="extxyz", append=True)

    @property
    def mark(self) -> dict[str, int]:
        """Frames and bytes written so far."""
        return {"frames": self.count, "bytes": self.path.stat().st_size if self.path.exists() else 0}


def _length(path: Path) -> int:
    from ase.io.trajectory import Trajectory

    if not path.exists():
        return 0
    with Trajectory(str(path)) as file:
        return len(file)


def _cut(path: Path, size: int) -> None:
    """Cut a file back to ``size`` bytes."""
    have = path.stat().st_size if path.exists() else 0
    if have < size:
        raise RestartError(f"'{path}' is shorter than when the run stopped. Put the file back as it was.")
    if have > size:
        os.truncate(path, size)


def numbers_of(owner: object, parts: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Copies of the numbers and arrays among an object's attributes, and among those of the named parts of it."""
    found = {k: np.array(v) for k, v in vars(owner).items() if _is_number(v)}
    for part in parts:
        inner = getattr(owner, part, None)
        if inner is not None:
            found |= {f"{part}.{k}": np.array(v) for k, v in vars(inner).items() if _is_number(v)}
    return found


def put_numbers(owner: object, numbers: Mapping[str, np.ndarray]) -> None:
    """Put back what `numbers_of` took.

    Raises
    ------
    RestartError
        If the object has no such attribute, as after a change of ASE's version.
    """
    for name, value in numbers.items():
        part, _, attribute = name.rpartition(".")
        target = getattr(owner, part) if part else owner
        old = vars(target).get(attribute)
        if old is None or np.shape(old) != value.shape:
            raise RestartError(
                f"The integrator has no variable '{name}' of shape {value.shape}: another ASE version wrote it.\n"
                "Install the version of ASE that the run began with, or start anew from its last frame."
            )
        convert: Callable[[np.ndarray], Any] = np.array if isinstance(old, np.ndarray) else type(old)
        vars(target)[attribute] = convert(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.ndarray, np.number)) and not isinstance(value, bool)
