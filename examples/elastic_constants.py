"""Lattice constants, elastic constants and equations of state of seven metals.

    python examples/elastic_constants.py [Cu Ag ...]

The potential ships with the package; it was trained on labels of effective-medium theory, whose own numbers stand in
the second line of each metal.
"""

from __future__ import annotations

import argparse
from importlib.resources import as_file, files

from ase.build import bulk
from ase.calculators.calculator import BaseCalculator
from ase.calculators.emt import EMT

from asenequip import AllegroCalculator
from asenequip.properties import elastic_tensor, equation_of_state
from asenequip.relax import relax

METALS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")


def line(name: str, metal: str, calculator: BaseCalculator) -> str:
    """One line of the table."""
    atoms = relax(bulk(metal), calculator, cell="full", fmax=1e-4, keep_symmetry=True)[0].atoms
    found = elastic_tensor(atoms, calculator)
    state = equation_of_state(atoms, calculator, span=0.03)
    edge = 2**0.5 * atoms.cell.lengths()[0]
    numbers = (found.tensor[0, 0], found.tensor[0, 1], found.tensor[3, 3], found.moduli.shear, state.bulk_modulus)
    return f"{metal:2} {name:9} {edge:8.4f}" + "".join(f"{number:9.1f}" for number in numbers)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metals", nargs="*", default=METALS, help=", ".join(METALS))
    metals = parser.parse_args().metals
    with as_file(files("asenequip.data") / "emt.asnq") as path:
        calculator = AllegroCalculator(path, dtype="float64")
    print("             edge (A)  C11 (GPa)   C12      C44      G        B")
    for metal in metals:
        print(line("potential", metal, calculator))
        print(line("EMT", metal, EMT()))


if __name__ == "__main__":
    main()
