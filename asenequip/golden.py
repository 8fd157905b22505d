"""The golden frame of a potential: a structure with its float64 energy, forces and stress, replayed on loading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError

from asenequip.graph import graph_of
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import evaluate_derivatives, stress
from asenequip.model.spec import AllegroSpec

_TOLERANCE = {"energy": 1e-8, "forces": 1e-7, "stress": 1e-8}
"""eV per atom, eV/A, eV/A^3: float64 on any machine."""

MAX_ATOMS = 4096
"""Most atoms of a golden frame."""

_MAX_EDGES = 2e7
"""Most edges that the search of a golden frame may meet."""

_BLOCK = 100_000
"""Edges that are evaluated at once."""


def default_golden(spec: AllegroSpec, seed: int = 0) -> Atoms:
    """A small periodic structure of all types, atoms at least 1.5 Angstrom apart, for models that bring no frame."""
    rng = np.random.default_rng(seed)
    count = max(8, 2 * spec.num_types)
    edge = 2.6 * count ** (1 / 3)
    side = int(np.ceil(count ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:count] * (edge / side)
    positions = grid + rng.uniform(-0.2, 0.2, grid.shape)
    symbols = [spec.type_names[k % spec.num_types] for k in range(count)]
    return Atoms(symbols, positions=positions, cell=np.eye(3) * edge + 0.1 * rng.uniform(-1, 1, (3, 3)), pbc=True)


def golden_record(model: Allegro, atoms: Atoms) -> dict[str, Any]:
    """The structure and what the float64 network says of it, in plain JSON-able form."""
    double = Allegro(model.spec, seed=None)
    double.load_state_dict(model.state_dict())
    record = {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": np.asarray(atoms.cell).tolist(),
        "pbc": atoms.pbc.tolist(),
        **{k: v.tolist() for k, v in _results(double, atoms).items()},
    }
    golden_structure(record, model.spec)
    return record


def golden_structure(record: Mapping[str, Any], spec: AllegroSpec | None = None) -> Atoms:
    """The structure of a record, refused where it would need unreasonable work.

    Parameters
    ----------
    record : mapping
        Untrusted.
    spec : AllegroSpec, optional
        Gives the cutoff that bounds the number of edges.

    Raises
    ------
    ValueError
    """
    try:
        arrays = {k: np.array(record[k], dtype=np.float64) for k in ("numbers", "positions", "cell", "pbc")}
        shapes = {k: v.shape for k, v in arrays.items()}
        count = len(arrays["numbers"])
        if shapes != {"numbers": (count,), "positions": (count, 3), "cell": (3, 3), "pbc": (3,)}:
            raise ValueError(f"shapes {shapes}")
        if not 1 <= count <= MAX_ATOMS:
            raise ValueError(f"{count} atoms; 1 to {MAX_ATOMS} are allowed")
        if not all(np.isfinite(v).all() for v in arrays.values()) or np.abs(arrays["positions"]).max() > 1e6:
            raise ValueError("a number in it is not finite or too large")
        numbers = arrays["numbers"].astype(np.int64)
        if not ((numbers > 0) & (numbers < 120)).all():
            raise ValueError("an atomic number is out of range")
        atoms = Atoms(
            numbers=numbers, positions=arrays["positions"], cell=arrays["cell"], pbc=arrays["pbc"].astype(bool)
        )
        if spec is not None and _edge_bound(atoms, spec.cutoff) > _MAX_EDGES:
            raise ValueError(f"its cell is too small for the cutoff {spec.cutoff:g} A")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"its golden frame is wrong ({error})") from error
    return atoms


def _edge_bound(atoms: Atoms, cutoff: float) -> float:
    """About how many edges a search may meet: n^2 times the cells that the cutoff spans, along periodic directions."""
    cell = np.asarray(atoms.cell)
    bound = float(len(atoms)) ** 2
    for axis in np.flatnonzero(atoms.pbc):
        area = np.linalg.norm(np.cross(cell[(axis + 1) % 3], cell[(axis + 2) % 3]))
        height = abs(np.linalg.det(cell)) / area if area > 0 else np.linalg.norm(cell[axis])
        bound *= 2 * cutoff / height if height > 0 else np.inf
    return bound


def replay(model: Allegro, record: Mapping[str, Any]) -> None:
    """Evaluate the golden frame with a float64 network and compare with the record.

    Raises
    ------
    ValueError
        If the record is no valid frame, or its numbers are not reproduced.
    """
    atoms = golden_structure(record, model.spec)
    try:
        results = _results(model, atoms)
    except InputError as error:
        raise ValueError(f"its golden frame cannot be evaluated ({error})") from error
    for name, value in results.items():
        try:
            stored = np.array(record[name], dtype=np.float64)
        except (KeyError, TypeError, ValueError, OverflowError) as wrong:
            raise ValueError(f"its golden frame has no valid {name} ({wrong})") from wrong
        if stored.shape != value.shape:
            raise ValueError(f"its golden {name} has shape {stored.shape} in place of {value.shape}")
        off = float(np.abs(stored - value).max(initial=0.0))
        scale = max(1.0, float(np.abs(value).max(initial=0.0))) * (len(atoms) if name == "energy" else 1)
        if not off <= _TOLERANCE[name] * scale:
            raise ValueError(f"its golden {name} is not reproduced (off by {off:.2e})")


def _results(model: Allegro, atoms: Atoms) -> dict[str, np.ndarray]:
    graph = graph_of(atoms, model.spec.type_names, np.asarray(model.spec.cutoff_table())).to(model.device)
    result = evaluate_derivatives(model, graph, max_edges=_BLOCK)
    tensors = {"energy": result.energies.sum(), "forces": result.forces}
    if atoms.cell.rank == 3:
        tensors["stress"] = stress(graph, result.virials)[0]
    return {k: v.detach().cpu().numpy() for k, v in tensors.items()}
