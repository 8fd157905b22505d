"""Predictions on labelled frames and the errors they make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import evaluate_derivatives, stress, sum_frames
from asenequip.train.data import Batch, Sample, collate
from asenequip.train.distributed import Team
from asenequip.train.loss import LossFunction, residuals


@dataclass(frozen=True)
class Prediction:
    """What the model says about one frame.

    Attributes
    ----------
    energy : float
        eV, in the zero of the frame's own data set.
    forces : (n, 3) float64
        eV/Angstrom.
    stress : (3, 3) float64
        eV/Angstrom^3, ASE's sign; not finite where the cell has no volume.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray


def batches(samples: Sequence[Sample], size: int) -> Iterator[list[Sample]]:
    """Consecutive samples, ``size`` at a time."""
    for start in range(0, len(samples), size):
        yield list(samples[start : start + size])


def predict(
    model: Allegro, samples: Sequence[Sample], offsets: np.ndarray | None = None, batch_size: int = 4
) -> list[Prediction]:
    """Evaluate the model on samples.

    Parameters
    ----------
    model : Allegro
    samples : sequence of Sample
    offsets : (d, T) float64, optional
        Energy per atom of each data set and type that is added, eV.
    batch_size : int
        Frames at a time.
    """
    out = []
    for part in batches(samples, batch_size):
        graph = collate(part).graph.to(model.device)
        found = evaluate_derivatives(model, graph)
        energies = sum_frames(graph, found.energies.detach()).cpu().numpy()
        forces = found.forces.detach().cpu().numpy()
        tensors = stress(graph, found.virials.detach()).cpu().numpy()
        start = 0
        for k, sample in enumerate(part):
            n, energy = sample.graph.num_atoms, float(energies[k])
            if offsets is not None:
                energy += float(offsets[sample.frame.dataset][sample.graph.types.numpy()].sum())
            out.append(Prediction(energy, forces[start : start + n], tensors[k]))
            start += n
    return out


def validate(
    model: Allegro,
    samples: Sequence[Sample],
    loss: LossFunction,
    species: Sequence[str],
    offsets: np.ndarray | None = None,
    batch_size: int = 4,
    team: Team = Team(),  # noqa: B008 (immutable)
) -> dict[str, float]:
    """Loss and errors on samples; a quantity without labels is absent.

    Returns
    -------
    dict
        "loss"; "energy_mae", "energy_rmse" (eV per atom); "forces_mae", "forces_rmse" (eV/Angstrom, per component);
        "forces_mae_Li", ... per species; "stress_mae", "stress_rmse" (eV/Angstrom^3, per component).
    """
    totals = _Totals(species)
    sums = weights = torch.zeros(3, dtype=torch.float64)
    for part in batches(team.share(samples), batch_size):
        batch = collate(part, offsets).to(model.device)
        found = residuals(evaluate_derivatives(model, batch.graph), batch)
        new_sums, new_weights = loss.terms(found, batch)
        sums, weights = sums + new_sums.detach().cpu(), weights + new_weights.detach().cpu()
        volumes = batch.graph.volumes()[found.has_virial]
        per_volume = found.virial[found.has_virial].detach() * (batch.counts[found.has_virial] / volumes)[:, None, None]
        totals.add("energy", found.energy[found.has_energy].detach())
        totals.add("stress", per_volume)
        totals.add_forces(found.forces[found.has_forces].detach(), batch, found.has_forces)
    everything = team.add(torch.cat([sums, weights, totals.vector()]).to(model.device)).cpu()
    totals.set_vector(everything[6:])
    return {"loss": float(loss.total(everything[:3], everything[3:6])), **totals.errors()}


class _Totals:
    """Running sums of |r|, r^2 and counts by quantity."""

    def __init__(self, species: Sequence[str]) -> None:
        self.species = tuple(species)
        names = ["energy", "stress", "forces", *(f"forces_{name}" for name in species)]
        self.sums = {name: np.zeros(3) for name in names}

    def vector(self) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(list(self.sums.values())))

    def set_vector(self, values: torch.Tensor) -> None:
        self.sums = dict(zip(self.sums, values.numpy().reshape(-1, 3), strict=True))

    def add(self, name: str, values: torch.Tensor) -> None:
        new = np.array([float(values.abs().sum()), float(values.square().sum()), values.numel()])
        self.sums[name] = self.sums[name] + new

    def add_forces(self, forces: torch.Tensor, batch: Batch, labelled: torch.Tensor) -> None:
        self.add("forces", forces)
        types = batch.graph.types[labelled]
        for k, name in enumerate(self.species):
            self.add(f"forces_{name}", forces[types == k])

    def errors(self) -> dict[str, float]:
        out = {}
        for name, (modulus, square, count) in self.sums.items():
            if not count:
                continue
            quantity, _, kind = name.partition("_")
            out[f"{quantity}_mae" + (f"_{kind}" if kind else "")] = float(modulus / count)
            if not kind:
                out[f"{quantity}_rmse"] = float(np.sqrt(square / count))
        return out
