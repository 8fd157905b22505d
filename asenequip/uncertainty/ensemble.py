"""Several potentials as one calculator: their mean, and their spread as its uncertainty."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from asenequip.artifact import Potential
from asenequip.errors import parameter_error
from asenequip.evaluate import PROPERTIES, Evaluator
from asenequip.uncertainty.last_layer import Uncertainty


@dataclass(frozen=True)
class Spread:
    """What the members of an ensemble say of one structure.

    Attributes
    ----------
    mean : dict
        Of each property that all members give; names, shapes and units of `asenequip.evaluate.Evaluator.evaluate`.
    deviation : dict
        Sample standard deviation over the members (one less than their number in the denominator).
    """

    mean: dict[str, Any]
    deviation: dict[str, Any]


class Ensemble(Calculator):
    """ASE calculator of the mean of several potentials, with their spread as uncertainty.

    Deep ensembles: Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017. The mean of the forces is the gradient of the
    mean of the energies.

    Parameters
    ----------
    models : sequence of path or Potential
        At least two ``model.asnq``.
    device, dtype, skin
        As for `asenequip.AllegroCalculator`.
    scale : float
        Factor on all deviations, such as a calibration on held-out errors gives
        (`asenequip.uncertainty.calibration.likelihood_scale`).
    """

    name = "allegro-ensemble"
    implemented_properties: ClassVar[list[str]] = list(PROPERTIES)  # type: ignore[misc]
    ignored_changes: ClassVar[set[str]] = {"initial_charges", "initial_magmoms"}  # type: ignore[misc]

    def __init__(
        self,
        models: Sequence[str | os.PathLike[str] | Potential],
        *,
        device: str = "auto",
        dtype: str = "float32",
        skin: float = 1.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(models, (str, os.PathLike, Potential)) or len(models) < 2:
            raise parameter_error("models", "Ensemble", "at least two potentials", models)
        self.evaluators = [Evaluator(model, device=device, dtype=dtype, skin=skin) for model in models]
        paths = [evaluator.potential.path for evaluator in self.evaluators]
        self.parameters = {
            "models": [None if path is None else str(path.resolve()) for path in paths],
            "sha256": [evaluator.potential.sha256 for evaluator in self.evaluators],
            "device": device,
            "dtype": dtype,
            "skin": skin,
            "scale": scale,
        }
        self.scale = scale
        self._deviation: dict[str, Any] = {}
        self._lock = threading.RLock()

    def spread(self, atoms: Atoms) -> Spread:
        """Mean and standard deviation of everything the members say of a structure."""
        found = [evaluator.evaluate([atoms])[0] for evaluator in self.evaluators]
        names = [name for name in found[0] if all(name in other for other in found)]
        stacked = {name: np.stack([np.asarray(one[name], np.float64) for one in found]) for name in names}
        mean = {k: float(v.mean()) if v.ndim == 1 else v.mean(axis=0) for k, v in stacked.items()}
        deviation = {k: float(v.std(ddof=1)) if v.ndim == 1 else v.std(axis=0, ddof=1) for k, v in stacked.items()}
        return Spread(mean, deviation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate all members; the results are their means."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ValueError("The calculator has no atoms. Pass them: calc.calculate(atoms), or set atoms.calc = calc.")
        with self._lock:
            found = self.spread(atoms)
            missing = [name for name in properties if name not in found.mean]
            if missing:
                raise PropertyNotImplementedError(
                    f"The {missing[0]} needs a cell with three lattice vectors; this one has rank {atoms.cell.rank}."
                )
            self.atoms, self.results, self._deviation = atoms.copy(), found.mean, found.deviation

    def __reduce__(self) -> tuple[Any, ...]:
        paths = self.parameters["models"]
        if None in paths:
            raise TypeError("An ensemble of potentials without files cannot be copied or pickled. Save them first.")
        rest = {name: self.parameters[name] for name in ("device", "dtype", "skin", "scale")}
        return _open, (paths, rest)

    def uncertainty(self, atoms: Atoms) -> Uncertainty:
        """Standard deviations over the members; of the forces the rms over the three components."""
        with self._lock:
            if not self._deviation or self.check_state(atoms, tol=0.0):
                self.calculate(atoms)
            found = self._deviation
            forces = np.sqrt((np.asarray(found["forces"]) ** 2).mean(axis=1))
            energies = np.asarray(found["energies"])
            return Uncertainty(self.scale * float(found["energy"]), self.scale * energies, self.scale * forces)


def _open(paths: Sequence[str], options: dict[str, Any]) -> Ensemble:
    return Ensemble(paths, **options)
