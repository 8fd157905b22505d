"""Surface energies and the vacancy of silver and gold.

    python examples/surfaces_and_vacancies.py [Ag Au ...]

Slabs and supercells of one metal relax together. The potential ships with the package.
"""

from __future__ import annotations

import argparse
from importlib.resources import as_file, files

from ase.build import bulk

from asenequip import AllegroCalculator
from asenequip.properties import surface_energies, vacancy_energies
from asenequip.relax import relax

SURFACES = [(1, 1, 1), (1, 0, 0), (1, 1, 0)]


def main() -> None:
    """Print a line for each metal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metals", nargs="*", default=["Ag", "Au"])
    metals = parser.parse_args().metals
    with as_file(files("asenequip.data") / "emt.asnq") as path:
        calculator = AllegroCalculator(path, dtype="float64")
    for metal in metals:
        atoms = relax(bulk(metal, cubic=True), calculator, cell="full", fmax=1e-4, keep_symmetry=True)[0].atoms
        surfaces = surface_energies(atoms, calculator, SURFACES, thickness=10.0)
        energies = ", ".join(f"({''.join(map(str, s.miller))}) {s.joule_per_m2:.3f}" for s in surfaces)
        vacancy = vacancy_energies(atoms, calculator, supercell=2)[0]
        print(
            f"{metal}: surfaces (J/m^2) {energies}; vacancy {vacancy.energy:.3f} eV, unrelaxed {vacancy.unrelaxed:.3f}"
        )


if __name__ == "__main__":
    main()
