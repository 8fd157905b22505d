"""Structures whose EMT numbers the potential must reproduce exactly, and the step that makes it do so.

Tests of equations of state, vibrations and reaction paths quote numbers of EMT to many digits. There, after training,
the weights are moved by the least amount, in the sense of their norm, that makes energies and forces exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.mep import NEB, DimerControl, MinModeAtoms, MinModeTranslate
from ase.optimize import BFGS, BFGSLineSearch
from ase.vibrations import Vibrations
from torch import Tensor

from asenequip.graph import graph_of
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import evaluate_derivatives


class Recorder(EMT):
    """EMT that remembers every structure it evaluates."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Atoms] = []

    def calculate(self, atoms=None, *args, **kwargs):  # type: ignore[no-untyped-def]
        super().calculate(atoms, *args, **kwargs)
        frame = atoms.copy()
        frame.set_constraint()
        self.frames.append(frame)


def vibrating(atoms: Atoms, relax: Callable[[Atoms], None] | None, folder: str) -> list[Atoms]:
    """Frames of a relaxation and of the displacements that vibrations are computed from."""
    atoms = atoms.copy()
    recorder = Recorder()
    atoms.calc = recorder
    if relax is not None:
        relax(atoms)
    vibrations = Vibrations(atoms, name=f"{folder}/{atoms.symbols}")
    vibrations.run()
    return recorder.frames


def chain_of_three() -> Iterator[Atoms]:
    """A gold atom between gold and silver: both ends of its path and the images between."""
    ends = []
    for middle in (-2.0, 2.0):
        atoms = Atoms("Au2Ag", positions=[[-4, 0, 0], [middle, 0, 0], [4, 0, 0]])
        atoms.set_constraint(FixAtoms([0, 2]))
        atoms.calc = EMT()
        BFGS(atoms, logfile=None).run(fmax=0.01)
        ends.append(atoms)
    images = [ends[0], *[ends[0].copy() for _ in range(5)], ends[1]]
    for image in images[1:-1]:
        image.calc = EMT()
    path = NEB(images, climb=True)
    path.interpolate()
    BFGS(path, logfile=None).run(fmax=0.02, steps=100)
    for image in images:
        distances = image.get_all_distances()
        if not ((distances > 5.2) & (distances < 6.0)).any():  # there EMT ends, a little beyond the model's cutoff
            image = image.copy()
            image.set_constraint()
            yield image


def hopping_platinum(count: int = 8) -> list[Atoms]:
    """An atom on a layer of platinum, from its hollow to the bridge, by the dimer method."""
    atoms = fcc100("Pt", size=(2, 2, 1), vacuum=10.0)
    add_adsorbate(atoms, "Pt", 1.611, "hollow")
    atoms.set_constraint(FixAtoms(mask=[atom.tag > 0 for atom in atoms]))
    recorder = Recorder()
    atoms.calc = recorder
    atoms.get_potential_energy()
    with DimerControl(
        initial_eigenmode_method="displacement",
        displacement_method="vector",
        logfile=None,
        mask=[0, 0, 0, 0, 1],
    ) as control:
        dimer = MinModeAtoms(atoms, control)
        dimer.displace(displacement_vector=[[0.0] * 3] * 4 + [[0.0, -0.1, 0.0]])
        with MinModeTranslate(dimer, logfile=None) as search:
            search.run(fmax=0.001)
    frames = recorder.frames
    return [frames[0], *frames[1 : -4 : max(1, len(frames) // count)], *frames[-4:]]


def anchors(folder: str) -> list[tuple[Atoms, bool]]:
    """The structures, each with whether its forces count; ``folder`` takes the caches of the vibrations."""
    crystals = [bulk("Al", a=4.0 * x) for x in np.linspace(0.98, 1.01, 5)]
    crystals += [bulk("Cu", a=3.61 * x) for x in (0.98, 0.99, 1.0, 1.01, 1.02)]
    nitrogen = Atoms("N2", positions=[(0, 0, 0), (0, 0, 1.1)])
    moving = vibrating(nitrogen, lambda a: BFGSLineSearch(a, logfile=None).run(fmax=0.01), folder)
    moving += vibrating(molecule("CH3"), None, folder)
    moving += vibrating(molecule("CH4"), lambda a: BFGS(a, logfile=None).run(fmax=0.01), folder)
    moving += [*chain_of_three(), *hopping_platinum()]
    return [(a, False) for a in crystals] + [(a, True) for a in moving]


def make_exact(model: Allegro, chosen: list[tuple[Atoms, bool]], cycles: int = 30, goal: float = 1e-9) -> None:
    """Levenberg-Marquardt steps of least norm on the weights until energies and forces are EMT's; in place, float64.

    Parameters
    ----------
    model : Allegro
    chosen : list of (Atoms, bool)
        From `anchors`.
    cycles : int
        Steps at most.
    goal : float
        Largest error left, eV or eV/Angstrom.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    sizes = [p.numel() for p in parameters]
    labels = [_labels(atoms, with_forces) for atoms, with_forces in chosen]
    damping = 1e-4
    residual, jacobian = _linearized(model, parameters, chosen, labels)
    for cycle in range(cycles):
        largest = float(residual.abs().max())
        print(f"cycle {cycle}: {len(residual)} numbers, largest error {largest:.2e}, damping {damping:.0e}", flush=True)
        if largest < goal:
            return
        values, vectors = torch.linalg.eigh(jacobian @ jacobian.T)
        before = [p.detach().clone() for p in parameters]
        while damping < 1e3:
            solution = vectors @ ((vectors.T @ residual) / (values.clamp(min=0) + damping * values[-1]))
            step = (jacobian.T @ solution).split(sizes)
            with torch.no_grad():
                for parameter, old, part in zip(parameters, before, step, strict=True):
                    parameter.copy_(old + part.view_as(old))
            if _residual(model, chosen, labels).norm() < residual.norm():
                break
            damping *= 10
        damping /= 30
        residual, jacobian = _linearized(model, parameters, chosen, labels)


def _residual(model: Allegro, chosen: list[tuple[Atoms, bool]], labels: list[Tensor]) -> Tensor:
    found = [_predict(model, atoms, with_forces, False) for atoms, with_forces in chosen]
    return torch.cat([label - value.detach() for label, value in zip(labels, found, strict=True)])


def _linearized(
    model: Allegro, parameters: list[Tensor], chosen: list[tuple[Atoms, bool]], labels: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Labels minus predictions (m,), and the derivative of the predictions with respect to all weights (m, w)."""
    residuals, rows = [], []
    for (atoms, with_forces), label in zip(chosen, labels, strict=True):
        found = _predict(model, atoms, with_forces, True)
        residuals.append((label - found).detach())
        for value in found:
            gradient = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradient, strict=True)]
            rows.append(torch.cat([g.reshape(-1) for g in flat]))
    return torch.cat(residuals), torch.stack(rows)


def _labels(atoms: Atoms, with_forces: bool) -> Tensor:
    atoms = atoms.copy()
    atoms.calc = EMT()
    values = [atoms.get_potential_energy()]
    if with_forces:
        values.extend(atoms.get_forces().ravel())
    return torch.tensor(np.array(values))


def _predict(model: Allegro, atoms: Atoms, with_forces: bool, create_graph: bool) -> Tensor:
    graph = graph_of(atoms, model.spec.type_names, np.asarray(model.spec.cutoff_table()))
    found = evaluate_derivatives(model, graph, create_graph=create_graph)
    values = [found.energies.sum().reshape(1)]
    if with_forces:
        values.append(found.forces.reshape(-1))
    return torch.cat(values)
