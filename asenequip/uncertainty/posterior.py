"""Deviation of a frame's forces by the last-layer posterior itself: what says which frames to label."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms

from asenequip.evaluate import Evaluator
from asenequip.fused.engine import FusedEngine
from asenequip.uncertainty.features import force_jacobian
from asenequip.uncertainty.last_layer import LastLayer


def frame_deviation(evaluator: Evaluator, atoms: Atoms) -> float:
    """Standard deviation of a frame's forces, rms over their components, eV/Angstrom.

    With F linear in the last weights, F = J w, the posterior of w gives the forces the covariance
    alpha^2 J W W^T J^T, W W^T = (C + s^2 1)^-1. The rms over its diagonal is that of the forces of as many networks as
    there are last weights, one with each column of W in their place: exact, for the price of so many force calls.
    Unlike the deviations of `asenequip.AllegroCalculator.uncertainty`, those of the atoms' energies times a length per
    species, it may be compared between phases. Its scale alpha is that of the energies.

    Parameters
    ----------
    evaluator : Evaluator
        Of a potential that carries an uncertainty, such as ``calculator.evaluator``.
    atoms : ase.Atoms

    Returns
    -------
    float
        0 without atoms.

    Raises
    ------
    ValueError
        If the potential carries no uncertainty.
    """
    rigidity = LastLayer.of(evaluator.potential, "frame_deviation")
    if not len(atoms):
        return 0.0
    graph = evaluator.graph(atoms)
    if evaluator.engine is None:
        squares = float(((force_jacobian(evaluator.model, graph) @ rigidity.root) ** 2).sum())
    else:
        squares = _sum_of_squares(evaluator, evaluator.engine, atoms, graph.types.numpy(), rigidity.root)
    return rigidity.energy_scale * math.sqrt(squares / (3 * len(atoms)))


def _sum_of_squares(
    evaluator: Evaluator, engine: FusedEngine, atoms: Atoms, types: np.ndarray, root: np.ndarray
) -> float:
    """Of the forces of the compiled network with each column of W in turn as its last weights."""
    cell, pbc = np.asarray(atoms.cell, np.float64), np.asarray(atoms.pbc, bool)
    edges = evaluator.lists.list_for(atoms).rows(atoms.positions, cell, pbc)
    frames, scale, squares = np.zeros(len(atoms), np.int32), float(evaluator.model.readout.scales[-1]), 0.0
    for column in root.T:
        size = float(np.linalg.norm(column)) or 1.0  # weights of the network's own size, for the sake of float32
        one = engine.with_last_weights(column / size * scale)
        squares += size**2 * float((one.run(atoms.positions, cell[None], frames, types, edges)[1] ** 2).sum())
    return squares
