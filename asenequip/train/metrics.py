"""Predictions on labelled frames and the errors they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import evaluate_derivatives, stress, sum_frames
from asenequip.train.batching import Loader, pack
from asenequip.train.data import Batch, Sample, collate
from asenequip.train.distributed import Team
from asenequip.train.loss import LossFunction, Residuals, residuals
from asenequip.train.table import names_of, tabulate

_QUANTITIES = ("energy", "stress", "forces")


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
    for first in range(0, len(samples), batch_size):
        part = [samples[k] for k in range(first, min(first + batch_size, len(samples)))]
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
    loader: Loader,
    loss: LossFunction,
    team: Team = Team(),  # noqa: B008 (immutable)
    batch_size: int = 4,
    budget: int | None = None,
) -> dict[str, float]:
    """Loss and errors on samples; a quantity without labels is absent.

    Parameters
    ----------
    model : Allegro
    loader : Loader
        Holds the samples; every process of the team gives the same, and takes its share of them.
    loss : LossFunction
    team : Team
    batch_size : int
        Frames at a time, at most.
    budget : int, optional
        Edges at a time, where there is more than one frame.

    Returns
    -------
    dict
        "loss"; "energy_mae", "energy_rmse" (eV per atom); "forces_mae", "forces_rmse" (eV/Angstrom, per component);
        "stress_mae", "stress_rmse" (eV/Angstrom^3, per component); the forces' also by species, as "forces_mae_Li",
        and all of them by data set where there are several, as "energy_rmse@bulk".
    """
    samples, species = loader.samples, model.spec.type_names
    totals = _Totals(species, names_of(samples))
    sums = weights = torch.zeros(3, dtype=torch.float64)
    edges = tabulate(samples, len(species)).num_edges().tolist()
    batches = pack(team.share(range(len(samples))), edges, batch_size, budget)
    for loaded in loader.load(batches):
        if loaded is None:
            continue
        batch = loaded.to(model.device)
        found = residuals(evaluate_derivatives(model, batch.graph), batch)
        new_sums, new_weights = loss.terms(found, batch)
        sums, weights = sums + new_sums.detach().cpu(), weights + new_weights.detach().cpu()
        totals.add(found, batch)
    everything = team.add(torch.cat([sums, weights, totals.vector()]).to(model.device)).cpu()
    totals.set_vector(everything[6:])
    return {"loss": float(loss.total(everything[:3], everything[3:6])), **totals.errors()}


class _Totals:
    """Running sums of |r|, r^2 and counts, by quantity and by (quantity, species or data set)."""

    def __init__(self, species: Sequence[str], datasets: Sequence[str]) -> None:
        self.species, several = tuple(species), sorted(set(datasets))
        self.datasets = several if len(several) > 1 else []
        names = [*_QUANTITIES, *(f"forces_{name}" for name in species)]
        names += [f"{quantity}@{name}" for quantity in _QUANTITIES for name in self.datasets]
        self.sums = {name: np.zeros(3) for name in names}

    def vector(self) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(list(self.sums.values())))

    def set_vector(self, values: torch.Tensor) -> None:
        self.sums = dict(zip(self.sums, values.numpy().reshape(-1, 3), strict=True))

    def add(self, found: Residuals, batch: Batch) -> None:
        graph = batch.graph
        per_volume = found.virial * (batch.counts / graph.volumes())[:, None, None]
        values = {"energy": found.energy, "forces": found.forces, "stress": per_volume}
        known = {"energy": found.has_energy, "forces": found.has_forces, "stress": found.has_virial}
        names = np.array(batch.names)
        for quantity in _QUANTITIES:
            self._add(quantity, values[quantity][known[quantity]])
            for name in self.datasets:
                mine = torch.from_numpy(names == name).to(graph.frames.device)
                mine = mine[graph.frames] if quantity == "forces" else mine
                self._add(f"{quantity}@{name}", values[quantity][known[quantity] & mine])
        for k, name in enumerate(self.species):
            self._add(f"forces_{name}", found.forces[found.has_forces & (graph.types == k)])

    def _add(self, name: str, values: torch.Tensor) -> None:
        values = values.detach()
        self.sums[name] = self.sums[name] + [float(values.abs().sum()), float(values.square().sum()), values.numel()]

    def errors(self) -> dict[str, float]:
        out = {}
        for name, (modulus, square, count) in self.sums.items():
            if count:
                quantity = next(q for q in _QUANTITIES if name.startswith(q))
                rest = name[len(quantity) :]
                out[f"{quantity}_mae{rest}"] = float(modulus / count)
                out[f"{quantity}_rmse{rest}"] = float(np.sqrt(square / count))
        return out
