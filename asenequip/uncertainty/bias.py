"""Dynamics that is drawn to where the potential is unsure: energy minus a multiple of its own deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from asenequip.errors import parameter_error
from asenequip.evaluate import Evaluator
from asenequip.model.derivatives import assemble
from asenequip.results import results_of
from asenequip.uncertainty.last_layer import LastLayer, Uncertainty


class UncertaintyBias(Calculator):
    """ASE calculator of E - strength * deviation(E), with the forces that follow from it.

    Hyperactive learning: van der Oord, Sachs, Kovacs, Ortner and Csanyi, npj Comput. Mater. 9, 168 (2023). The
    deviation is the last-layer one, and its gradient costs nothing more: both are one backward pass.

    Parameters
    ----------
    evaluator : Evaluator
        Of a potential that carries an uncertainty.
    strength : float
        0 or more; without unit.
    """

    name = "allegro-uncertainty-bias"
    implemented_properties: ClassVar[list[str]] = [  # type: ignore[misc]
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "stresses",
    ]

    def __init__(self, evaluator: Evaluator, strength: float) -> None:
        super().__init__()
        if not (isinstance(strength, (int, float)) and strength >= 0):
            raise parameter_error("strength", "UncertaintyBias", "a float >= 0", strength)
        self.evaluator, self.strength = evaluator, float(strength)
        self.rigidity = LastLayer.of(evaluator.potential, "UncertaintyBias")
        self.parameters = {"sha256": evaluator.potential.sha256, "strength": self.strength}
        device = evaluator.device
        self._root = torch.from_numpy(self.rigidity.root).to(device)
        self._factors = torch.from_numpy(self.rigidity.factors).to(device)
        self._found: Uncertainty | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Energy, forces and stress, bias included; per atom, the bias is shared out evenly."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ValueError("The calculator has no atoms. Pass them: calc.calculate(atoms), or set atoms.calc = calc.")
        model, graph = self.evaluator.model, self.evaluator.graph(atoms)
        with torch.enable_grad():
            vectors = graph.vectors().detach().requires_grad_(True)
            output = model(graph, vectors)
            rows = model.last_layer(output, graph.centers, graph.num_atoms)
            reduced = (rows * self._factors[graph.types].unsqueeze(1)).sum(dim=0) @ self._root
            deviation = self.rigidity.energy_scale * torch.sqrt((reduced**2).sum() + 1e-24)
            total = output.energies.sum() - self.strength * deviation
            (gradient,) = torch.autograd.grad(total, vectors)
        energies = output.energies.detach() - self.strength * deviation.detach() / max(graph.num_atoms, 1)
        found = assemble(graph, vectors.detach(), gradient, energies)
        numbers = [t.cpu().numpy() for t in (found.energies, found.forces, found.virials, graph.volumes())]
        self._found = self.rigidity.deviations(rows.detach().cpu().numpy(), graph.types.cpu().numpy())
        self.atoms, self.results = atoms.copy(), dict(results_of(np.array([0, len(atoms)]), *numbers)[0])

    def uncertainty(self, atoms: Atoms) -> Uncertainty:
        """Deviations of the potential itself."""
        if self._found is None or self.check_state(atoms, tol=0.0):
            self.calculate(atoms)
        found = self._found
        if found is None:
            raise ValueError("The calculator has no atoms.")
        return found
