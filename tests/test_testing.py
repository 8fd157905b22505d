"""The kit finds the faults it is there for: each faulty calculator below fails the check that names its fault."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from small_systems import small_atoms

from asenequip import AllegroCalculator
from asenequip.testing import (
    CalculatorCheckError,
    check_calculator,
    check_names,
    finite_difference_forces,
    finite_difference_stress,
    systems,
)

SYMBOLS, CUTOFF = ("Cu", "O"), 3.4


class Faulty(AllegroCalculator):
    """The real calculator with one thing done wrong."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self.spoil(atoms, self.results)

    def spoil(self, atoms: Atoms, results: dict[str, Any]) -> None:
        """Do the wrong thing."""


class NumpyEnergy(Faulty):
    def spoil(self, atoms, results):
        results["energy"] = np.float64(results["energy"])


class SingleForces(Faulty):
    def spoil(self, atoms, results):
        results["forces"] = results["forces"].astype(np.float32)


class ExtraKey(Faulty):
    def spoil(self, atoms, results):
        results["uncertainty"] = 0.0


class WrapsItsInput(Faulty):
    def spoil(self, atoms, results):
        if atoms.cell.rank == 3:
            atoms.wrap()


class ReusesItsBuffer(Faulty):
    def spoil(self, atoms, results):
        buffer = self.__dict__.setdefault("buffer", np.zeros((1000, 3)))
        buffer[: len(atoms)] = results["forces"]
        results["forces"] = buffer[: len(atoms)]


class StressUpsideDown(Faulty):
    def spoil(self, atoms, results):
        if "stress" in results:
            results["stress"] = -results["stress"]


class StressShuffled(Faulty):
    def spoil(self, atoms, results):
        if "stress" in results:
            results["stress"] = results["stress"][[0, 1, 2, 5, 4, 3]]


class SignedVolume(Faulty):
    def spoil(self, atoms, results):
        if "stress" in results:
            results["stress"] = results["stress"] * np.sign(np.linalg.det(np.asarray(atoms.cell)))


class StressWithoutVolume(Faulty):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, [p for p in properties if p != "stress"], system_changes)
        self.results.setdefault("stress", np.zeros(6))


class ForcesOffByAThousandth(Faulty):
    def spoil(self, atoms, results):
        results["forces"] = results["forces"] * 1.001


class PulledToTheOrigin(Faulty):
    def spoil(self, atoms, results):
        results["energy"] += 0.001 * float((atoms.positions**2).sum())


class GrowsFasterThanItsSize(Faulty):
    def spoil(self, atoms, results):
        results["energy"] += 1e-6 * len(atoms) ** 2


class PulledUp(Faulty):
    def spoil(self, atoms, results):
        results["forces"] = results["forces"] + [0, 0, 1e-6]


class KnowsItsHand(Faulty):
    def spoil(self, atoms, results):
        if len(atoms) > 3:
            a, b, c = atoms.positions[1:4] - atoms.positions[0]
            results["energy"] += 1e-6 * float(np.dot(a, np.cross(b, c)))


class CountsTheFirstAtomTwice(Faulty):
    def spoil(self, atoms, results):
        if len(atoms):
            results["energy"] += float(results["energies"][0])


class NotANumber(Faulty):
    def spoil(self, atoms, results):
        if len(atoms) == 1:
            results["forces"] = np.full((1, 3), np.nan)


class AcceptsNaN(AllegroCalculator):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        try:
            super().calculate(atoms, properties, system_changes)
        except Exception:  # noqa: BLE001
            self.atoms = atoms.copy()
            self.results = {"energy": float("nan"), "forces": np.zeros((len(atoms), 3))}


class Tolerant(AllegroCalculator):
    def check_state(self, atoms, tol=1e-10):
        from ase.calculators.calculator import compare_atoms

        return compare_atoms(self.atoms, atoms, tol=tol)


class TrustsTheDriver(AllegroCalculator):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if system_changes or not self.results:
            super().calculate(atoms, properties, system_changes)


class RemembersOneListForEver(AllegroCalculator):
    """Keeps its first neighbour count: a caricature of lists that are truncated and never grown again."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.least = min(self.__dict__.get("least", 10**9), self.evaluator.graph(atoms).num_edges)
        self.results["energy"] *= 1.0 + 1e-9 * self.least


class EvaluatesForEachProperty(AllegroCalculator):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {k: v for k, v in self.results.items() if k in properties}


class PathInParameters(AllegroCalculator):
    def todict(self, skip_default=True):
        return {"model": Path("model.asnq")}


class Unpicklable(AllegroCalculator):
    def __getstate__(self):
        raise TypeError("no")


class SharesItsCopy(AllegroCalculator):
    def __deepcopy__(self, memo):
        return self


class NoDefaults(AllegroCalculator):
    def calculate(self, atoms, properties, system_changes):
        super().calculate(atoms, properties, system_changes)


class NamelessRefusal(AllegroCalculator):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        try:
            super().calculate(atoms, properties, system_changes)
        except Exception:  # noqa: BLE001
            raise RuntimeError("failed") from None


class InheritsTheList(AllegroCalculator):
    implemented_properties = Calculator.implemented_properties


class EndsTooSoon(Faulty):
    """A force that jumps to zero just before the cutoff."""

    def spoil(self, atoms, results):
        if len(atoms) == 2:
            distance = np.linalg.norm(atoms.positions[1] - atoms.positions[0])
            if distance < CUTOFF:
                results["forces"] = results["forces"] + np.array([[0, 0, -1e-4], [0, 0, 1e-4]])


class FeelsFarAtoms(Faulty):
    def spoil(self, atoms, results):
        results["energies"] = results["energies"] + 1e-6 * len(atoms)


FAULTS: list[tuple[type[AllegroCalculator], str]] = [
    (NumpyEnergy, "results_have_types"),
    (SingleForces, "results_have_types"),
    (ExtraKey, "results_have_types"),
    (WrapsItsInput, "inputs_are_untouched"),
    (ReusesItsBuffer, "results_are_owned"),
    (StressUpsideDown, "stress_is_differences"),
    (StressShuffled, "stress_is_differences"),
    (SignedVolume, "other_lattice_vectors"),
    (StressWithoutVolume, "stress_needs_a_volume"),
    (ForcesOffByAThousandth, "forces_are_differences"),
    (PulledToTheOrigin, "translation"),
    (PulledToTheOrigin, "lattice_shifts"),
    (GrowsFasterThanItsSize, "extensive"),
    (PulledUp, "no_net_force_or_torque"),
    (PulledUp, "no_net_force_in_a_crystal"),
    (PulledUp, "isolated_atom"),
    (KnowsItsHand, "rotation"),
    (CountsTheFirstAtomTwice, "permutation"),
    (CountsTheFirstAtomTwice, "supercell"),
    (CountsTheFirstAtomTwice, "atomic_parts_add_up"),
    (NotANumber, "all_systems_are_finite"),
    (AcceptsNaN, "broken_geometry_is_refused"),
    (AcceptsNaN, "failures_leave_no_trace"),
    (AcceptsNaN, "unknown_element_is_named"),
    (NamelessRefusal, "unknown_element_is_named"),
    (Tolerant, "any_change_is_noticed"),
    (TrustsTheDriver, "system_changes_are_not_trusted"),
    (RemembersOneListForEver, "there_and_back"),
    (EvaluatesForEachProperty, "one_evaluation_gives_all"),
    (EvaluatesForEachProperty, "one_evaluation_per_relaxation_step"),
    (PathInParameters, "parameters_are_jsonable"),
    (Unpicklable, "pickle_comes_back"),
    (SharesItsCopy, "deepcopy_is_independent"),
    (NoDefaults, "calculate_has_defaults"),
    (InheritsTheList, "own_list_of_properties"),
    (EndsTooSoon, "smooth_at_the_cutoff"),
    (FeelsFarAtoms, "strictly_local"),
    (FeelsFarAtoms, "periodic_is_unrolled"),
]


@pytest.mark.parametrize(("fault", "check"), FAULTS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_the_fault_is_found(fault: type[AllegroCalculator], check: str, small_artifact: Path) -> None:
    calc = fault(small_artifact, device="cpu", dtype="float64")
    report = check_calculator(calc, SYMBOLS, cutoff=CUTOFF, only=[check], raise_failures=False)
    assert [o.name for o in report.failures] == [check], str(report)
    assert report.failures[0].message


def test_a_failure_raises_with_the_whole_report(small_artifact: Path) -> None:
    calc = StressUpsideDown(small_artifact, device="cpu", dtype="float64")
    with pytest.raises(CalculatorCheckError, match=r"FAIL stress_is_differences: .*\n +.*differs by"):
        check_calculator(calc, SYMBOLS, only=["stress_is_differences", "own_list_of_properties"])


def test_an_unknown_check_is_refused(small_artifact: Path) -> None:
    calc = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    with pytest.raises(ValueError, match="'skip' parameter of check_calculator"):
        check_calculator(calc, SYMBOLS, skip=["translations"])


def test_without_a_cutoff_the_checks_of_locality_are_skipped() -> None:
    report = check_calculator(EMT(), "Cu", only=["strictly_local", "smooth_at_the_cutoff"])
    assert {o.status for o in report.outcomes} == {"skipped"}


def test_a_foreign_calculator_is_judged_by_its_physics() -> None:
    # ASE's Lennard-Jones with its smooth cutoff obeys mechanics; that it shares no code with ours is the point
    calc = LennardJones(sigma=2.3, epsilon=0.2, rc=5.0, ro=4.0, smooth=True)
    names = ["translation", "rotation", "permutation", "supercell", "forces_are_differences", "stress_is_differences"]
    report = check_calculator(calc, "Cu", cutoff=5.0, only=[*names, "no_net_force_or_torque", "periodic_is_unrolled"])
    assert report.ok


def test_every_check_has_a_requirement_in_words() -> None:
    assert len(check_names()) == len(set(check_names())) >= 40


def test_all_pbc_meet_all_kinds_of_cells() -> None:
    named = systems(SYMBOLS, cutoff=CUTOFF)
    for kind in ("orthorhombic", "skewed", "rotated", "left-handed"):
        found = {tuple(a.pbc) for n, a in named.items() if n.startswith(f"{kind} ")}
        assert len(found) == 8
    assert np.linalg.det(np.asarray(named["left-handed TTT"].cell)) < 0


def test_systems_depend_on_the_seed_alone() -> None:
    first, again, other = (systems(SYMBOLS, seed=s)["cluster"].positions for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# -- finite differences ------------------------------------------------------------------------------------------------


class Quartic(Calculator):
    """E = sum over pairs of k (d^2 - 4)^2, eV: its force is -4 k (d^2 - 4) r, its virial follows."""

    implemented_properties = ["energy"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        d = self.atoms.positions[:, None] - self.atoms.positions[None]
        self.results["energy"] = float(0.5 * 0.1 * ((d**2).sum(-1) - 4)[~np.eye(len(d), dtype=bool)].__pow__(2).sum())


def test_finite_differences_reproduce_a_quartic() -> None:
    atoms = small_atoms()
    atoms.pbc = False
    atoms.calc = Quartic()
    d = atoms.positions[:, None] - atoms.positions[None]
    slope = 0.4 * ((d**2).sum(-1) - 4)
    np.fill_diagonal(slope, 0.0)
    forces = -(slope[..., None] * d).sum(1)
    virial = 0.5 * np.einsum("abi,abj->ij", slope[..., None] * d, d)
    stress = (virial / abs(np.linalg.det(atoms.cell.array))).flat[[0, 4, 8, 5, 2, 1]]
    assert np.abs(finite_difference_forces(atoms) - forces).max() < 1e-9 * np.abs(forces).max()
    assert np.abs(finite_difference_stress(atoms) - stress).max() < 1e-9 * np.abs(stress).max()


def test_finite_differences_leave_the_atoms_alone() -> None:
    atoms = small_atoms()
    atoms.calc = Quartic()
    before = atoms.copy()
    finite_difference_forces(atoms, indices=[1])
    finite_difference_stress(atoms)
    assert atoms == before


def test_a_stress_without_a_volume_is_refused() -> None:
    with pytest.raises(ValueError, match="three lattice vectors"):
        finite_difference_stress(Atoms("Cu"))
