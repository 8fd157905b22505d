"""AllegroCalculator: the thin ASE shell over `asenequip.evaluate.Evaluator`."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from asenequip.artifact import Potential
from asenequip.evaluate import PROPERTIES, Evaluator, Outcome, Results
from asenequip.graph import atom_types
from asenequip.settings import calculator_defaults
from asenequip.uncertainty.last_layer import LastLayer, Uncertainty


class AllegroCalculator(Calculator):
    """ASE calculator of a compiled Allegro potential.

    Energies in eV, forces in eV/Angstrom, stress in eV/Angstrom^3 (xx yy zz yz xz xy, tension positive); results are
    float64 whatever the network's precision. One evaluation gives all properties.

    Parameters
    ----------
    model : path or Potential, optional
        A ``model.asnq`` file. Without it, model, device and dtype come from the section ``[asenequip]`` of ASE's
        configuration file; what is passed here goes before what stands there.
    device : str, optional
        "auto" (CUDA if there is one; the default), "cpu", "cuda" or "cuda:1".
    dtype : {"float32", "float64", "bfloat16", "tf32"}, optional
        Precision of the network, as for `asenequip.Evaluator`; float32 by default.
    skin : float
        Verlet skin of the neighbour list, Angstrom.
    compiled : bool, optional
        As for `asenequip.Evaluator`; True for the compiled form in float64 too, which by default is the exact network.

    Raises
    ------
    FileNotFoundError, asenequip.artifact.ArtifactError
        If the file is missing or damaged.
    ValueError
        For a parameter out of its range, or if no model is named anywhere.

    Examples
    --------
    >>> atoms.calc = AllegroCalculator("model.asnq")  # doctest: +SKIP
    >>> atoms.get_potential_energy()  # doctest: +SKIP
    """

    name = "allegro"
    implemented_properties: ClassVar[list[str]] = list(PROPERTIES)  # type: ignore[misc]
    discard_results_on_any_change = False
    ignored_changes: ClassVar[set[str]] = {"initial_charges", "initial_magmoms"}  # type: ignore[misc]

    def __init__(
        self,
        model: str | os.PathLike[str] | Potential | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        skin: float = 1.0,
        compiled: bool | None = None,
    ) -> None:
        super().__init__()
        defaults = calculator_defaults() if model is None else {}
        model = defaults["model"] if model is None else model
        device = defaults.get("device", "auto") if device is None else device
        dtype = defaults.get("dtype", "float32") if dtype is None else dtype
        self._open(Evaluator(model, device=device, dtype=dtype, skin=skin, compiled=compiled), str(device), compiled)

    def _open(self, evaluator: Evaluator, device: str, compiled: bool | None) -> None:
        self.evaluator = evaluator
        self._lock = threading.RLock()
        self._last_layer: np.ndarray | None = None
        part, spec = evaluator.potential.uncertainty, evaluator.potential.spec
        width = spec.readout_width if spec.readout_depth else spec.num_scalar_features * (spec.num_layers + 1)
        self.rigidity = None if part is None else LastLayer.from_part(part, width)
        path = evaluator.potential.path
        self.parameters = {
            "model": None if path is None else str(path.resolve()),
            "sha256": evaluator.potential.sha256,
            "device": device,
            "dtype": evaluator.dtype,
            "skin": evaluator.lists.skin,
            "compiled": compiled,
        }

    # -- what ASE calls ---------------------------------------------------------------------------------------------

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate all properties of ``atoms`` at once; ``system_changes`` is not relied upon.

        Raises
        ------
        ase.calculators.calculator.InputError
            For unknown elements, positions that are not finite, or coinciding atoms; results are left as they were.
        ase.calculators.calculator.PropertyNotImplementedError
            For the stress of atoms whose cell has no volume.
        """
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ValueError("The calculator has no atoms. Pass them: calc.calculate(atoms), or set atoms.calc = calc.")
        unknown = set(properties) - set(self.implemented_properties)
        if unknown:
            raise PropertyNotImplementedError(f"An Allegro potential has no {', '.join(sorted(unknown))}.")
        results = self.evaluator.evaluate([atoms], last_layer=self.rigidity is not None)[0]
        layer = results.pop("last_layer") if self.rigidity is not None else None
        missing = [name for name in properties if name not in results]
        if missing:
            raise PropertyNotImplementedError(
                f"The {missing[0]} needs a cell with three lattice vectors; this one has rank {atoms.cell.rank}.\n"
                "Give the atoms a full cell (a slab may keep vacuum in it)."
            )
        self.atoms = atoms.copy()
        self.results, self._last_layer = dict(results), None if layer is None else np.asarray(layer)

    def set(self, **parameters: Any) -> dict[str, Any]:
        """Refused, but for no parameters at all: what a calculator was made of stays.

        Raises
        ------
        ValueError
        """
        if parameters:
            raise ValueError(
                f"The parameters of an AllegroCalculator cannot be changed: {', '.join(parameters)}.\n"
                "Make a new one; calculators of one potential share its compiled form."
            )
        return {}

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """One property, from the last results if they still hold; safe to call from several threads."""
        with self._lock:
            return super().get_property(name, atoms, allow_calculation)

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What differs, exactly, from the atoms of the last results; charges and magnetic moments do not matter."""
        old = self.atoms
        if old is None or len(old) != len(atoms):
            return [change for change in all_changes if change not in self.ignored_changes]
        changes = []
        if not np.array_equal(old.positions, atoms.positions):
            changes.append("positions")
        if not np.array_equal(old.numbers, atoms.numbers):
            changes.append("numbers")
        if not np.array_equal(old.cell.array, atoms.cell.array):
            changes.append("cell")
        if not np.array_equal(old.pbc, atoms.pbc):
            changes.append("pbc")
        return changes

    # -- beyond ASE's properties --------------------------------------------------------------------------------------

    def evaluate(self, frames: Iterable[Atoms]) -> list[Results]:
        """Results of many structures at once, in order; see `asenequip.evaluate.Evaluator.evaluate`."""
        with self._lock:
            return self.evaluator.evaluate(frames)

    def outcomes(self, frames: Iterable[Atoms]) -> list[Outcome]:
        """As `evaluate`, but a structure that cannot be evaluated gives its error in place of results."""
        with self._lock:
            return self.evaluator.outcomes(frames)

    def descriptors(self, atoms: Atoms) -> np.ndarray:
        """Latent features of each atom's environment, (n, S (L+1)) float64."""
        with self._lock:
            return self.evaluator.descriptors(atoms)

    def uncertainty(self, atoms: Atoms) -> Uncertainty:
        """Calibrated standard deviations of energy, energies and forces, from the pass that gives the forces.

        Raises
        ------
        ValueError
            If the potential carries no fitted uncertainty.
        """
        if self.rigidity is None:
            raise ValueError(
                "This potential carries no uncertainty.\n"
                "Train with 'uncertainty:' in the settings, or add one with asenequip.uncertainty.add_uncertainty."
            )
        with self._lock:
            if self._last_layer is None or self.check_state(atoms):
                self.calculate(atoms)
            types = np.asarray(atom_types(atoms, self.rigidity.type_names))
            return self.rigidity.deviations(np.asarray(self._last_layer), types)

    def virials(self, atoms: Atoms) -> np.ndarray:
        """Strain derivative of each atom's energy, (n, 3, 3) float64, eV."""
        with self._lock:
            return self.evaluator.virials(atoms)

    def hessian(self, atoms: Atoms, rows: Sequence[int] | None = None) -> np.ndarray:
        """Second derivatives of the energy, (3m, 3n) float64, eV/Angstrom^2; m atoms' rows, all n by default."""
        with self._lock:
            return self.evaluator.hessian(atoms, rows)

    # -- copies -------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        if self.parameters["model"] is None:
            raise TypeError("A calculator of a potential without a file cannot be pickled. Save it with save_artifact.")
        return {"parameters": dict(self.parameters), "atoms": self.atoms, "results": dict(self.results)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        wanted = state["parameters"]
        path = Path(wanted["model"])
        if not path.is_file():
            raise FileNotFoundError(
                f"The calculator was made from '{path}', which is not there any more.\n"
                "Put the file back, or make a new AllegroCalculator from its new place."
            )
        if hashlib.sha256(path.read_bytes()).hexdigest() != wanted["sha256"]:
            raise ValueError(
                f"'{path}' is not the file this calculator was made from (its SHA-256 differs).\n"
                "Put the original back, or make a new AllegroCalculator."
            )
        options = {name: wanted.get(name) for name in ("device", "dtype", "skin", "compiled")}
        self.__init__(path, **options)  # type: ignore[misc]
        self.atoms, self.results = state["atoms"], state["results"]

    def __deepcopy__(self, memo: dict[int, Any]) -> AllegroCalculator:
        other = object.__new__(type(self))
        Calculator.__init__(other)
        mine = self.evaluator
        compiled = self.parameters["compiled"]
        twin = Evaluator(mine.potential, device=mine.device, dtype=mine.dtype, skin=mine.lists.skin, compiled=compiled)
        other._open(twin, self.parameters["device"], compiled)
        other.atoms = None if self.atoms is None else self.atoms.copy()
        other.results = {k: np.copy(v) if isinstance(v, np.ndarray) else v for k, v in self.results.items()}
        return other
