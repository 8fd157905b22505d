"""torch-sim: its integrators and optimisers over a batch of systems, with an Allegro potential."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from asenequip.artifact import Potential
from asenequip.evaluate import Evaluator

try:
    from torch_sim import SimState
    from torch_sim.models.interface import ModelInterface
except ImportError as error:
    raise ImportError(
        f"This needs torch-sim ({error}).\nInstall it: pip install 'asenequip[torchsim]' (Python 3.11 or newer)."
    ) from error


class AllegroModel(ModelInterface):
    """A torch-sim model: energies, forces and stresses of all systems of a state in one evaluation.

    Parameters
    ----------
    model : path or Potential
        A ``model.asnq`` file.
    device, dtype, compiled
        As for `asenequip.evaluate.Evaluator`; ``dtype`` is the precision of the network. The states that torch-sim
        makes for this model are float64, like positions everywhere.
    skin : float
        Verlet skin of the neighbour lists, Angstrom.

    Examples
    --------
    >>> model = AllegroModel("model.asnq")  # doctest: +SKIP
    >>> torch_sim.optimize(frames, model, optimizer=torch_sim.optimizers.fire)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Potential,
        *,
        device: str | torch.device = "auto",
        dtype: str = "float32",
        compiled: bool | None = None,
        skin: float = 1.0,
    ) -> None:
        super().__init__()
        self.evaluator = Evaluator(model, device=device, dtype=dtype, compiled=compiled, skin=skin)
        self._device, self._dtype = self.evaluator.device, torch.float64
        self._compute_forces = self._compute_stress = True
        self._memory_scales_with = "n_atoms_x_density"
        self._frames: list[Atoms] = []

    def forward(self, state: SimState | dict[str, Tensor]) -> dict[str, Tensor]:
        """Evaluate all systems of a state.

        Parameters
        ----------
        state : torch_sim.SimState or dict
            Positions in Angstrom; not changed.

        Returns
        -------
        dict of str to Tensor
            "energy" (systems,) eV, "forces" (atoms, 3) eV/Angstrom, "stress" (systems, 3, 3) eV/Angstrom^3, tension
            positive, NaN for a system whose cell has no volume; precision and device of the state's positions.

        Raises
        ------
        ase.calculators.calculator.InputError
            For a system that cannot be evaluated.
        """
        if isinstance(state, dict):
            state = SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        frames = self._frames_of(state)
        self.evaluator.lists.capacity = max(self.evaluator.lists.capacity, len(frames))
        results = self.evaluator.evaluate(frames)
        missing = np.full(6, np.nan)
        stress = np.array([found.get("stress", missing) for found in results])[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]]
        forces = np.concatenate([found["forces"] for found in results])
        energies = np.array([found["energy"] for found in results])
        arrays = {"energy": energies, "forces": forces, "stress": stress.reshape(-1, 3, 3)}
        return {name: torch.from_numpy(array).to(state.positions) for name, array in arrays.items()}

    def _frames_of(self, state: SimState) -> list[Atoms]:
        """The systems as structures: the objects of the last call where they fit, whose neighbour lists are kept."""
        positions = state.positions.detach().to("cpu", torch.float64).numpy()
        cells = state.row_vector_cell.detach().to("cpu", torch.float64).numpy()
        numbers = state.atomic_numbers.cpu().numpy()
        starts = np.cumsum([0, *state.n_atoms_per_system.tolist()])
        periodic = np.broadcast_to(np.asarray(torch.as_tensor(state.pbc).cpu(), bool), 3)
        kept, self._frames = self._frames, []
        for k, (first, last) in enumerate(pairwise(starts)):
            atoms = kept[k] if k < len(kept) else None
            if atoms is None or not np.array_equal(atoms.numbers, numbers[first:last]):
                atoms = Atoms(numbers[first:last])
            atoms.positions, atoms.cell, atoms.pbc = positions[first:last], cells[k], periodic
            self._frames.append(atoms)
        return self._frames
