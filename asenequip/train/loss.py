"""The loss: weighted residuals of energy per atom, forces, and virial per atom; missing labels do not count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asenequip.model.derivatives import Derivatives, sum_frames
from asenequip.train.config import Loss
from asenequip.train.data import Batch, Sample
from asenequip.train.table import FrameTable, tabulate

STRATA = ((0.1, 1.0), (0.3, 0.7), (1.0, 0.4), (float("inf"), 0.1))
"""Stratified Huber: (norm up to which it holds; factor of delta); large forces turn linear earlier."""


@dataclass(frozen=True)
class Residuals:
    """Prediction minus label; zero where there is no label.

    Attributes
    ----------
    energy : (f,) float64
        Energy per atom, eV.
    forces : (n, 3) float64
        eV/Angstrom.
    virial : (f, 3, 3) float64
        Virial (stress times volume) per atom, eV.
    has_energy, has_virial : (f,) bool
    has_forces : (n,) bool
    """

    energy: Tensor
    forces: Tensor
    virial: Tensor
    has_energy: Tensor
    has_forces: Tensor
    has_virial: Tensor


def residuals(derivatives: Derivatives, batch: Batch) -> Residuals:
    """Residuals of one batch, differentiable."""
    graph = batch.graph
    has_energy = batch.energies.isfinite()
    has_forces = batch.forces.isfinite().all(dim=1)
    has_virial = batch.virials.isfinite().all(dim=2).all(dim=1)
    energy = sum_frames(graph, derivatives.energies) - batch.energies.nan_to_num()
    virial = sum_frames(graph, derivatives.virials)
    virial = 0.5 * (virial + virial.transpose(1, 2)) - batch.virials.nan_to_num()
    return Residuals(
        energy=energy / batch.counts * has_energy,
        forces=(derivatives.forces - batch.forces.nan_to_num()) * has_forces[:, None],
        virial=virial / batch.counts[:, None, None] * has_virial[:, None, None],
        has_energy=has_energy,
        has_forces=has_forces,
        has_virial=has_virial,
    )


class LossFunction:
    """Weighted mean of penalties over the labels of a batch.

    loss = w_E <p(dE/N)> + w_F <p(dF)> + w_S <p(dW/N)>, with <> the mean over labelled frames (components) weighted by
    frame (and species), and p the square, the modulus, or Huber's penalty.

    Parameters
    ----------
    settings : Loss
    species : sequence of str
        Order of the model's types.
    """

    def __init__(self, settings: Loss, species: Sequence[str]) -> None:
        self.settings = settings
        weights = [settings.species_weights.get(name, 1.0) for name in species]
        self.species_weights = torch.tensor(weights, dtype=torch.float64)

    def terms(self, found: Residuals, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted sums of the penalties, and the sums of their weights, each (3,): energy, forces, virial.

        Their ratio is the mean; sums of several processes can be added first.
        """
        graph = batch.graph
        atom_weights = batch.weights[graph.frames] * self.species_weights.to(graph.types.device)[graph.types]
        atom_weights = atom_weights * found.has_forces
        energy_weights, virial_weights = batch.weights * found.has_energy, batch.weights * found.has_virial
        delta = self._force_delta(batch)
        sums = torch.stack(
            [
                (self._penalty(found.energy, self.settings.delta) * energy_weights).sum(),
                (self._penalty(found.forces, delta).mean(dim=1) * atom_weights).sum(),
                (self._penalty(found.virial, self.settings.delta).mean(dim=(1, 2)) * virial_weights).sum(),
            ]
        )
        return sums, torch.stack([energy_weights.sum(), atom_weights.sum(), virial_weights.sum()])

    def frame_weights(self, table: FrameTable) -> Tensor:
        """What each frame adds to the sums of weights that `terms` gives, from the labels alone, (f, 3) float64."""
        forces = table.labelled @ self.species_weights.numpy()
        columns = np.stack([np.isfinite(table.energies), forces, table.has_stress], axis=1)
        return torch.from_numpy(table.weights[:, None] * columns)

    def divisors(self, samples: Sequence[Sample]) -> Tensor:
        """Sums of weights (3,) float64 of samples, as `terms` gives them, from the labels alone."""
        return self.frame_weights(tabulate(samples, len(self.species_weights))).sum(dim=0)

    def coefficients(self, part: float) -> Tensor:
        """Coefficients (3,) float64 of energy, forces and virial when ``part`` (0-1) of the training is done."""
        points = [(0.0, [self.settings.energy, self.settings.forces, self.settings.stress])]
        for stage in self.settings.stages:
            given = (stage.energy, stage.forces, stage.stress)
            values = [old if new is None else new for new, old in zip(given, points[-1][1], strict=True)]
            points.append((stage.at, values))
        if self.settings.change == "step":
            return torch.tensor([v for at, v in points if at <= part][-1], dtype=torch.float64)
        ats = [at for at, _ in points]
        columns = zip(*(values for _, values in points), strict=True)
        return torch.tensor([np.interp(part, ats, column) for column in columns], dtype=torch.float64)

    def total(self, sums: Tensor, weights: Tensor, coefficients: Tensor | None = None) -> Tensor:
        """The loss from `terms`, with the coefficients of the end of training unless others are given."""
        factors = self.coefficients(1.0) if coefficients is None else coefficients
        return (factors.to(sums.device) * sums / weights.clamp(min=1e-300)).sum()

    def _force_delta(self, batch: Batch) -> Tensor | float:
        delta = self.settings.delta
        if self.settings.kind != "stratified_huber":
            return delta
        norms = batch.forces.nan_to_num().norm(dim=1, keepdim=True)
        edges = norms.new_tensor([edge for edge, _ in STRATA[:-1]])
        factors = norms.new_tensor([factor for _, factor in STRATA])
        return delta * factors[torch.bucketize(norms, edges)]

    def _penalty(self, residual: Tensor, delta: Tensor | float) -> Tensor:
        kind = self.settings.kind
        if kind == "mse":
            return residual * residual
        size = residual.abs()
        if kind == "mae":
            return size
        return torch.where(size <= delta, 0.5 * residual * residual, delta * (size - 0.5 * delta))
