"""Compiled forms of a potential: made once, checked against the exact network before they run, kept in a cache."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import warnings
import weakref
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

import asenequip
from asenequip.artifact import Potential, default_golden, golden_atoms, verify
from asenequip.files import mark_used, remove_oldest, replace_file
from asenequip.fused.engine import FusedEngine, has_bfloat16, vector_lanes
from asenequip.fused.fold import RadialTable, fold, tabulate
from asenequip.fused.plan import Plan, unsupported
from asenequip.graph import graph_of
from asenequip.kernels import native
from asenequip.kernels.native import CACHE_BYTES, cache_directory
from asenequip.kernels.ops import use_backend
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import Derivatives, evaluate_derivatives
from asenequip.neighbors import EdgeList, find_edges

TABLE_TOLERANCES = (1e-5, 3e-7, 3e-8, 3e-9)
"""Slope errors, relative to the largest slope, that the radial tables are refined to until the forces are right. The
compiled form in float64 begins with the second."""

FORCE_TOLERANCE = 1e-6
"""eV/Angstrom: largest error that the tables may bring to the forces of the frames of the check, in float64."""

COMPILED = ("float32", "float64", "bfloat16")
"""Precisions that have a compiled form."""

BFLOAT16_TOLERANCE = 0.05
"""Largest error of a force with products in bfloat16, relative to 1 eV/Angstrom more than the largest force."""

RELATIVE_TOLERANCES = {"float64": 1e-9, "float32": 1e-4, "tf32": 1e-2, "bfloat16": BFLOAT16_TOLERANCE}
"""The same for each precision of the network."""

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Energies (n,) eV, forces (n, 3) eV/Angstrom, virials (n, 3, 3) eV."""


_IN_USE: weakref.WeakValueDictionary[Path, FusedEngine] = weakref.WeakValueDictionary()
"""Engines by the place of what they were made from: an engine holds constants alone, so that the calculators of one
potential share it (the tables of eleven elements take 160 MB)."""

_LATEST: deque[FusedEngine] = deque(maxlen=1)
"""Keeps the last engine for a process that is sent one calculator after the other."""


class CompilationError(RuntimeError):
    """A potential that cannot be compiled here, or whose compiled form failed its check; the message says why."""


@dataclass(frozen=True)
class CompileReport:
    """What the check of a compiled form measured.

    Attributes
    ----------
    force_error, energy_error : float
        Largest deviation of the compiled form, in its precision, from the exact float64 network: eV/Angstrom, eV/atom.
    table_force_error : float
        The part of it that the radial tables bring, from a float64 pass: eV/Angstrom.
    eager_force_error : float
        The same deviation of the eager network in that precision, for comparison.
    difference_error : float
        Largest deviation of the compiled float64 forces from central differences of its energy, eV/Angstrom.
    intervals : int
        Intervals of the radial tables.
    table_slope_error : float
        Largest error of a slope of the radial tables, relative to the largest slope.
    largest_force : float
        On the frames of the check, eV/Angstrom.
    """

    force_error: float
    energy_error: float
    table_force_error: float
    eager_force_error: float
    difference_error: float
    intervals: int
    table_slope_error: float
    largest_force: float


def fused_engine(potential: Potential, dtype: str = "float32") -> FusedEngine:
    """The fused CPU engine of a potential: the one in use, or from the user's cache, or built and checked now.

    Raises
    ------
    CompilationError
    """
    path = _checked_path(potential, dtype)
    engine = _IN_USE.get(path)
    if engine is None:
        engine = _prepare(potential, dtype, path)[0]
        _IN_USE[path] = engine
    _LATEST.append(engine)
    return engine


def compile_potential(potential: Potential, dtype: str = "float32") -> CompileReport:
    """Make sure that a checked compiled form is in the user's cache; tell what its check measured.

    Raises
    ------
    CompilationError
    """
    return _prepare(potential, dtype, _checked_path(potential, dtype))[1]


def _checked_path(potential: Potential, dtype: str) -> Path:
    """Where the compiled form is kept, or why there is none."""
    reason = unsupported(potential.spec)
    if reason:
        raise CompilationError(f"This potential has no fused form: {reason}.")
    if dtype == "bfloat16" and not has_bfloat16():
        raise CompilationError(
            "This processor has no products in bfloat16 (AVX512-BF16), so they would be slower than those in float32.\n"
            'Take dtype="float32".'
        )
    try:
        return _cache_path(potential, dtype)
    except (OSError, subprocess.SubprocessError) as error:
        raise _not_made(error) from error


def _prepare(potential: Potential, dtype: str, path: Path) -> tuple[FusedEngine, CompileReport]:
    try:
        found = _read(path)
        if found is not None:
            return FusedEngine(potential.spec, dtype, found[0]), CompileReport(**found[1])
        verify(potential)
        model = potential.cast("float64", "cpu")
        plan = Plan(potential.spec, vector_lanes(dtype))
        for tolerance in TABLE_TOLERANCES[1 if dtype == "float64" else 0 :]:
            table = tabulate(model, plan, tolerance)
            constants = fold(model, plan, dtype, tolerance, table)
            engine = FusedEngine(potential.spec, dtype, constants)
            report = _check(potential, engine, dtype, tolerance, table)
            if report.table_force_error <= FORCE_TOLERANCE:
                break
        _judge(report, dtype)
    except (OSError, subprocess.SubprocessError) as error:
        raise _not_made(error) from error
    _write(path, constants, vars(report))
    return engine, report


def _not_made(error: Exception) -> CompilationError:
    return CompilationError(f"The compiled form cannot be made here: {error}")


# -- the check --------------------------------------------------------------------------------------------------------


def _check(
    potential: Potential, engine: FusedEngine, dtype: str, tolerance: float, table: RadialTable
) -> CompileReport:
    """Compare with the exact network on frames of different sizes, and the forces with finite differences."""
    spec, exact = potential.spec, potential.cast("float64", "cpu")
    rounded = potential.cast("float32" if dtype == "bfloat16" else dtype, "cpu")
    plan = Plan(spec, vector_lanes("float64"))
    shared = table if plan.columns() == Plan(spec, vector_lanes(dtype)).columns() else None
    double = FusedEngine(spec, "float64", fold(exact, plan, "float64", tolerance, shared))
    found: dict[str, list[float]] = {"force": [], "energy": [], "table": [], "eager": [], "difference": []}
    largest = 0.0
    for atoms in check_frames(potential):
        with use_backend("plain"):
            reference, eager = (exact_derivatives(model, atoms) for model in (exact, rounded))
        forces = reference.forces.numpy()
        energies, fused, _ = run_fused(engine, atoms)
        largest = max(largest, float(np.abs(forces).max(initial=0.0)))
        found["force"].append(distance(fused, forces))
        found["energy"].append(distance(energies, reference.energies.detach().numpy()))
        found["table"].append(distance(run_fused(double, atoms)[1], forces))
        found["eager"].append(distance(eager.forces.numpy(), forces))
        found["difference"].append(difference_error(partial(run_fused, double), atoms))
    worst = {name: worst_of(errors) for name, errors in found.items()}
    return CompileReport(
        force_error=worst["force"],
        energy_error=worst["energy"],
        table_force_error=worst["table"],
        eager_force_error=worst["eager"],
        difference_error=worst["difference"],
        intervals=engine.intervals,
        table_slope_error=table.slope_error,
        largest_force=largest,
    )


def _judge(report: CompileReport, dtype: str) -> None:
    """Refuse a form that is not the network."""
    limits = {
        "table_force_error": FORCE_TOLERANCE,
        "difference_error": 1e-5,
        "force_error": 4 * report.eager_force_error + 2e-5,
    }
    if dtype == "bfloat16":
        limits["force_error"] = BFLOAT16_TOLERANCE * (1.0 + report.largest_force)
    for name, limit in limits.items():
        if not getattr(report, name) <= limit:
            raise CompilationError(f"The compiled form failed its check: its {name} is over {limit:.1e} in {report}.")


def check_frames(potential: Potential) -> list[Atoms]:
    """The structures that compiled forms are checked on: of different sizes, the golden frame among them."""
    frames = [default_golden(potential.spec, seed=1)]
    if potential.path is not None and potential.path.is_file():
        frames.append(golden_atoms(potential.path))
    other = default_golden(potential.spec, seed=2).repeat((2, 1, 1))
    other.rattle(0.05, seed=3)
    return [*frames, other]


def exact_derivatives(model: Allegro, atoms: Atoms) -> Derivatives:
    """Energies, forces and virials of a structure, by the network itself."""
    return evaluate_derivatives(model, graph_of(atoms, model.spec.type_names, np.asarray(model.spec.cutoff_table())))


def run_fused(engine: FusedEngine, atoms: Atoms) -> Arrays:
    """One structure through an engine, with a fresh list: energies (n,), forces (n, 3), virials (n, 3, 3)."""
    cell, pbc = np.asarray(atoms.cell, np.float64), np.asarray(atoms.pbc, bool)
    edges = find_edges(atoms.positions, cell, pbc, engine.spec.cutoff)
    types = [engine.spec.type_names.index(symbol) for symbol in atoms.symbols]
    rows = EdgeList.from_edges(edges, len(atoms))
    return engine.run(atoms.positions, cell[None], np.zeros(len(atoms), np.int32), np.array(types, np.int32), rows)


def difference_error(run: Callable[[Atoms], Arrays], atoms: Atoms, step: float = 1e-3) -> float:
    """Largest deviation of three atoms' forces from four-point central differences of the energy, eV/Angstrom."""
    forces, errors = run(atoms)[1], []
    for atom in sorted({0, len(atoms) // 2, len(atoms) - 1}):
        for axis in range(3):
            energy = []
            for k in (-2, -1, 1, 2):
                moved = atoms.copy()
                moved.positions[atom, axis] += k * step
                energy.append(run(moved)[0].sum())
            slope = (energy[0] - 8 * energy[1] + 8 * energy[2] - energy[3]) / (12 * step)
            errors.append(abs(float(forces[atom, axis] + slope)))
    return worst_of(errors)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of two arrays; NaN where one of them holds a NaN."""
    return float(np.abs(a - b).max(initial=0.0))


def worst_of(errors: Sequence[float]) -> float:
    """The largest of some errors; NaN if one is NaN, which Python's ``max`` may pass over."""
    return float(np.max(errors))


# -- the cache --------------------------------------------------------------------------------------------------------


def cache_name(potential: Potential, sources: Iterable[Path], facts: Sequence[object]) -> str:
    """A name for what is made of a potential: a hash of its weights, of versions, source files, and further facts."""
    state = potential.model.state_dict()
    digest = hashlib.sha256(json.dumps(potential.spec.to_dict(), sort_keys=True).encode())
    for name in sorted(state):
        digest.update(name.encode() + state[name].detach().cpu().contiguous().numpy().tobytes())
    for source in sorted(sources):
        digest.update(source.read_bytes())
    digest.update(repr([asenequip.__version__, torch.__version__, *facts]).encode())
    return digest.hexdigest()[:40]


def network_sources() -> list[Path]:
    """The files that say what a potential computes: those of the network, and of its kernels."""
    return [*(Path(__file__).parent / "model").glob("*.py"), *Path(native.__file__).parent.glob("*.py")]


def _cache_path(potential: Potential, dtype: str) -> Path:
    """A file named by everything the compiled form depends on, precision, vectors, and toolchain among it."""
    sources = [path for path in (Path(__file__).parent / "fused").iterdir() if path.suffix in (".py", ".hpp")]
    facts = [dtype, vector_lanes(dtype), TABLE_TOLERANCES, native.toolchain()]
    name = cache_name(potential, [Path(__file__), *sources, *network_sources()], facts)
    return cache_directory() / "fused" / f"{name}.npz"


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Arrays and report of a compiled form, or None where there is none or it is damaged."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        report = json.loads(str(arrays.pop("report")))
        mark_used(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return arrays, report


def _write(path: Path, arrays: dict[str, np.ndarray], report: dict[str, Any]) -> None:
    """Keep a compiled form; a cache that cannot be written is no error."""
    buffer = io.BytesIO()
    np.savez(buffer, report=np.array(json.dumps(report)), **arrays)  # type: ignore[arg-type]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, buffer.getvalue())
        remove_oldest(path.parent, CACHE_BYTES)
    except OSError as error:
        warnings.warn(f"The compiled potential could not be kept in '{path.parent}': {error}", stacklevel=2)
