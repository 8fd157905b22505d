"""Deviation of a frame's forces by the last-layer posterior itself: what says which frames to label."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms

from asenequip.errors import parameter_error
from asenequip.evaluate import Evaluator
from asenequip.uncertainty.features import force_rows
from asenequip.uncertainty.last_layer import LastLayer


def frame_deviation(evaluator: Evaluator, atoms: Atoms, *, directions: int = 4, seed: int = 0) -> float:
    """Standard deviation of a frame's forces, rms over their components, eV/Angstrom.

    With F linear in the last weights, F = J w, the posterior of w gives the forces the covariance
    alpha^2 J (C + s^2 1)^-1 J^T, whose mean diagonal is estimated from random combinations of the components
    (Hutchinson; see `asenequip.uncertainty.features.force_rows`). It costs a few force calls. Unlike the deviations of
    `asenequip.AllegroCalculator.uncertainty`, those of the atoms' energies times a length per species, it may be
    compared between phases. Its scale alpha is that of the energies.

    Parameters
    ----------
    evaluator : Evaluator
        Of a potential that carries an uncertainty, such as ``calculator.evaluator``.
    atoms : ase.Atoms
    directions : int
        Random combinations: the relative error of the result is about 1/sqrt(2 directions) or less.
    seed : int
        Of these.

    Returns
    -------
    float
        0 without atoms.

    Raises
    ------
    ValueError
        If the potential carries no uncertainty.
    """
    if not isinstance(directions, int) or directions < 1:
        raise parameter_error("directions", "frame_deviation", "an integer >= 1", directions)
    rigidity = LastLayer.of(evaluator.potential, "frame_deviation")
    if not len(atoms):
        return 0.0
    rows = force_rows(evaluator.model, evaluator.graph(atoms), directions, np.random.default_rng(seed))
    total = float(((rows @ rigidity.root) ** 2).sum(axis=1).mean())
    return rigidity.energy_scale * math.sqrt(total / (3 * len(atoms)))
