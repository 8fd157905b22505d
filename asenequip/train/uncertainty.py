"""The last-layer uncertainty of a potential that has just been trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from asenequip.artifact import Potential, UncertaintyPart
from asenequip.model.allegro import Allegro
from asenequip.train.config import Uncertainty
from asenequip.train.data import Sample
from asenequip.uncertainty.fit import fit_last_layer


def fit_uncertainty(
    model: Allegro, samples: Mapping[str, Sequence[Sample]], offsets: np.ndarray, settings: Uncertainty, seed: int
) -> UncertaintyPart:
    """Fit on training frames, calibrate on validation frames.

    Parameters
    ----------
    model : Allegro
        Trained.
    samples : mapping
        "train" and "valid".
    offsets : (d, T) float64
        Energy per atom of each data set and type taken off the labels, eV.
    settings : Uncertainty
    seed : int

    Returns
    -------
    (dict, dict of ndarray)
        For `asenequip.artifact.save_artifact`.
    """
    order = np.random.default_rng(seed).permutation(len(samples["train"]))[: settings.max_frames]
    train = [labelled(samples["train"][k], offsets) for k in np.sort(order)]
    held_out = [labelled(sample, offsets) for sample in samples["valid"]]
    dtype = str(model.dtype).removeprefix("torch.")
    potential = Potential(model, {}, dtype, None, "")
    fitted = fit_last_layer(
        potential,
        train,
        held_out,
        directions=settings.directions,
        seed=seed,
        device=str(model.device),
        compiled=False,
    )
    return fitted.to_part()


def labelled(sample: Sample, offsets: np.ndarray) -> Atoms:
    """A frame with its labels as results, in the zero of energy of the network."""
    frame = sample.frame
    atoms = frame.atoms.copy()
    energy = frame.energy - float(offsets[frame.dataset][sample.graph.types.numpy()].sum())
    results = {"forces": frame.forces, **({"energy": energy} if np.isfinite(energy) else {})}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
