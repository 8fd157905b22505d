"""Train the small Allegro potential on effective-medium labels that `asenequip.testing.emt_artifact` gives.

ASE's EMT calculator labels random alloys, surfaces with molecules, clusters, molecules and strained crystals of H C N O
Al Ni Cu Pd Ag Pt Au; its energy per atom is a function of that atom's neighbours alone, as Allegro's is, so the network
learns atomic energies, forces and stress.

    python examples/make_emt_artifact.py asenequip/data/emt.asnq --minutes 50
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.emt import parameters as emt_parameters
from emt_structures import SYMBOLS, all_structures, closely_watched
from torch import Tensor

from asenequip.artifact import load_artifact, save_artifact
from asenequip.graph import Graph, graph_of, join_graphs
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import evaluate_derivatives, sum_frames
from asenequip.model.spec import AllegroSpec

CUTOFF = 5.6

# -- labels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """A graph with EMT's atomic energies (n,) eV, forces (n, 3) eV/A, strain derivative (3, 3) eV, and its weight."""

    graph: Graph
    energies: Tensor
    forces: Tensor
    virial: Tensor
    weight: float


def label(atoms: Atoms, weight: float = 1.0) -> Labelled | None:
    """EMT's answer for a structure; None where it is beyond what the network should learn."""
    atoms = atoms.copy()
    atoms.set_constraint()
    atoms.wrap()
    atoms.calc = EMT()
    energies = atoms.get_potential_energies().copy()
    forces = atoms.get_forces()
    if not np.isfinite(energies).all() or np.abs(forces).max() > 40.0 or np.abs(energies).max() > 30.0:
        return None
    virial = np.zeros((3, 3))
    if atoms.cell.rank == 3:
        virial = atoms.get_stress(voigt=False) * atoms.get_volume()
    graph = graph_of(atoms, SYMBOLS, np.full((len(SYMBOLS),) * 2, CUTOFF))
    to_tensor = torch.from_numpy
    return Labelled(graph, to_tensor(energies), to_tensor(forces.copy()), to_tensor(virial), weight)


def make_frames(seed: int) -> list[Labelled]:
    """All labelled structures."""
    frames = [label(atoms) for atoms in all_structures(np.random.default_rng(seed))]
    frames += [label(atoms, 3.0) for atoms in closely_watched()]
    return [frame for frame in frames if frame is not None]


# -- training ---------------------------------------------------------------------------------------------------------


def start_model(seed: int) -> Allegro:
    """The network before training; an isolated atom has EMT's energy from the start."""
    spec = AllegroSpec(
        SYMBOLS,
        CUTOFF,
        l_max=1,
        num_layers=2,
        num_scalar_features=32,
        num_tensor_features=8,
        radial="bessel",
        num_bessels=10,
        two_body_depth=1,
        two_body_width=32,
        latent_depth=1,
        latent_width=48,
        readout_depth=1,
        readout_width=48,
        avg_num_neighbors=(30.0,) * len(SYMBOLS),
    )
    model = Allegro(spec, seed=seed)
    with torch.no_grad():
        model.shifts.copy_(torch.tensor([-emt_parameters[s][0] for s in SYMBOLS], dtype=torch.float64))
        model.scales.fill_(2.0)
    return model


def smooth_error(difference: Tensor, size: Tensor, scale: float) -> Tensor:
    """Huber-like penalty, in units of ``scale``, softer where the label itself is large."""
    allowed = 1.0 + size / 5.0
    return torch.sqrt(1.0 + (difference / (scale * allowed)) ** 2) - 1.0


def loss(model: Allegro, batch: list[Labelled], train: bool = True) -> tuple[Tensor, np.ndarray]:
    """Penalty of a batch, and sums of (atoms, |dE|, 3 atoms, |dF|)."""
    graph = join_graphs([f.graph for f in batch])
    found = evaluate_derivatives(model, graph, create_graph=train)
    energies, forces = torch.cat([f.energies for f in batch]), torch.cat([f.forces for f in batch])
    weights = torch.tensor([f.weight for f in batch], dtype=torch.float64)
    virials = torch.stack([f.virial for f in batch])
    counts = torch.bincount(graph.frames, minlength=len(batch)).clamp(min=1).to(torch.float64)
    total = sum_frames(graph, found.virials)
    total = 0.5 * (total + total.transpose(1, 2))
    has_cell = (graph.volumes() > 0).to(torch.float64)
    energy_error, force_error = (
        found.energies - energies,
        torch.linalg.vector_norm(found.forces - forces + 1e-12, dim=1),
    )
    virial_error = torch.linalg.matrix_norm(total - virials + 1e-12) / counts * has_cell
    per_atom = weights[graph.frames]
    penalty = (
        (per_atom * smooth_error(energy_error, energies.abs(), 0.02)).mean()
        + (per_atom * smooth_error(force_error, torch.linalg.vector_norm(forces, dim=1), 0.05)).mean()
        + (weights * smooth_error(virial_error, torch.linalg.matrix_norm(virials) / counts, 0.05)).mean()
    )
    sums = [len(energies), energy_error.abs().sum(), len(energies), force_error.sum()]
    return penalty, np.array([float(s) for s in sums])


def batches(frames: list[Labelled], rng: np.random.Generator, edges: int) -> Iterator[list[Labelled]]:
    """Random batches of about ``edges`` edges."""
    batch: list[Labelled] = []
    for k in rng.permutation(len(frames)):
        batch.append(frames[k])
        if sum(f.graph.num_edges for f in batch) >= edges:
            yield batch
            batch = []
    if batch:
        yield batch


def train(model: Allegro, frames: list[Labelled], minutes: float, seed: int) -> Allegro:
    """Adam with a cosine schedule over wall time; gives the running average of the weights."""
    rng = np.random.default_rng(seed)
    held_out = [frames[k] for k in rng.permutation(len(frames))[: len(frames) // 25]]
    kept = {id(f) for f in held_out}
    frames = [f for f in frames if id(f) not in kept]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-2, betas=(0.9, 0.99))
    average = Allegro(model.spec, seed=None).to(model.dtype)
    average.load_state_dict(model.state_dict())
    start, epoch, progress = time.monotonic(), 0, 0.0
    while progress < 1.0:
        sums = np.zeros(4)
        for batch in batches(frames, rng, 4000):
            progress = (time.monotonic() - start) / (60 * minutes)
            rate = 0.5 * (1 + np.cos(np.pi * min(progress, 1.0)))
            optimizer.param_groups[0]["lr"] = 1e-2 * rate + 1e-6
            value, part = loss(model, batch)
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()
            sums += part
            with torch.no_grad():
                for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                    slow.lerp_(fast, 0.005)
            if progress >= 1.0:
                break
        if epoch % 5 == 0 or progress >= 1.0:
            test = sum(loss(average, held_out[k : k + 32], False)[1] for k in range(0, len(held_out), 32))
            errors = [1e3 * s[a] / s[b] for s in (sums, test) for a, b in ((1, 0), (3, 2))]
            print(
                f"{60 * minutes * progress:6.0f} s  epoch {epoch:3d}  |dE| {errors[0]:6.1f} meV |dF| {errors[1]:6.1f}"
                f" meV/A  held out {errors[2]:6.1f} {errors[3]:6.1f}",
                flush=True,
            )
        epoch += 1
    return average


def errors(model: Allegro, frames: list[Labelled]) -> str:
    """Mean absolute errors over frames, in words."""
    sums = sum(loss(model, frames[k : k + 32], False)[1] for k in range(0, len(frames), 32))
    return f"|dE| {1e3 * sums[1] / sums[0]:.1f} meV/atom, |dF| {1e3 * sums[3] / sums[2]:.1f} meV/A"


def main() -> None:
    """Make the frames, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="a potential to go on from, in place of random weights")
    options = parser.parse_args()
    frames = make_frames(options.seed)
    atoms, edges = sum(f.graph.num_atoms for f in frames), sum(f.graph.num_edges for f in frames)
    print(f"{len(frames)} frames, {atoms} atoms, {edges} edges", flush=True)
    model = start_model(options.seed)
    if options.start is not None:
        model.load_state_dict(load_artifact(options.start, dtype="float64").model.state_dict())
    if options.minutes > 0:
        model = train(model.to(torch.float32), frames, options.minutes, options.seed).to(torch.float64)
    sample = frames[:: max(1, len(frames) // 400)]
    print(f"over all kinds of frames: {errors(model, sample)}", flush=True)
    provenance = {"labels": "ase.calculators.emt.EMT", "frames": len(frames), "script": "examples/make_emt_artifact.py"}
    print(save_artifact(options.output, model, provenance=provenance))


if __name__ == "__main__":
    main()
