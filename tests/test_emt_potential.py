"""The potential that the package carries, against the EMT that it was trained on."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.eos import EquationOfState

from asenequip import AllegroCalculator
from asenequip.artifact import load_artifact
from asenequip.testing import DOUBLE, SINGLE, check_calculator, check_names, emt_artifact

ELEMENTS = ("H", "C", "N", "O", "Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
METALS = ELEMENTS[4:]
PROCESSES = ("works_in_a_new_process", "works_with_joblib")


@pytest.fixture(scope="module")
def calc() -> AllegroCalculator:
    return AllegroCalculator(emt_artifact(), device="cpu", dtype="float64")


def test_it_is_small_and_says_where_it_comes_from() -> None:
    assert emt_artifact().stat().st_size < 500_000
    potential = load_artifact(emt_artifact())
    assert potential.spec.type_names == ELEMENTS
    assert potential.dtype == "float64"
    assert potential.provenance["labels"] == "ase.calculators.emt.EMT"


@pytest.mark.parametrize("symbol", ELEMENTS)
def test_an_isolated_atom_has_the_energy_of_emt(symbol: str, calc: AllegroCalculator) -> None:
    assert calc.get_potential_energy(Atoms(symbol)) == pytest.approx(
        EMT().get_potential_energy(Atoms(symbol)), abs=1e-12
    )


@pytest.mark.parametrize("symbol", METALS)
def test_lattice_constant_and_bulk_modulus_are_near_those_of_emt(symbol: str, calc: AllegroCalculator) -> None:
    found = []
    for potential in (calc, EMT()):
        volumes, energies = [], []
        for scale in np.linspace(0.97, 1.03, 7):
            atoms = bulk(symbol)
            atoms.set_cell(atoms.cell * scale, scale_atoms=True)
            volumes.append(atoms.get_volume())
            energies.append(potential.get_potential_energy(atoms))
        found.append(EquationOfState(volumes, energies).fit())
    (volume, energy, modulus), (emt_volume, emt_energy, emt_modulus) = found
    assert volume == pytest.approx(emt_volume, rel=0.02)
    assert energy == pytest.approx(emt_energy, abs=0.03)
    assert modulus == pytest.approx(emt_modulus, rel=0.25)


@pytest.mark.parametrize("name", [n for n in check_names() if n not in PROCESSES])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_the_kit(name: str, precision: str, calc: AllegroCalculator) -> None:
    if precision == "float32":
        calc = AllegroCalculator(emt_artifact(), device="cpu", dtype=precision)
    tolerances = DOUBLE if precision == "float64" else SINGLE
    check_calculator(calc, ["Cu", "O", "Au"], cutoff=5.6, tolerances=tolerances, only=[name])
