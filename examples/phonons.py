"""Phonons of copper two ways, its thermal expansion, and files for phonopy.

    python examples/phonons.py [OUTPUT]

The potential ships with the package (it was trained on labels of effective-medium theory). Force constants come from
finite differences of forces and from the exact Hessian; both agree to rounding once the differences are of high order.
"""

from __future__ import annotations

import argparse
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from ase.build import bulk

from asenequip import AllegroCalculator
from asenequip.files import new_folder
from asenequip.properties import phonons, quasiharmonic
from asenequip.relax import relax

SUPERCELL = 3
X_POINT = [0.5, 0.0, 0.5]


def main() -> None:
    """Relax, compare the two ways, expand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", default="runs/phonons", help="folder to write, new")
    output = Path(parser.parse_args().output)
    with as_file(files("asenequip.data") / "emt.asnq") as path:
        calculator = AllegroCalculator(path, dtype="float64")
    atoms = relax(bulk("Cu", a=3.6), calculator, cell="full", fmax=1e-5, keep_symmetry=True)[0].atoms

    exact = phonons(atoms, calculator, supercell=SUPERCELL, method="hessian")
    print(f"At X (THz), exact: {np.round(exact.frequencies(X_POINT)[0], 6)}")
    for order in (2, 4, 6):
        found = phonons(atoms, calculator, supercell=SUPERCELL, order=order)
        difference = np.abs(found.frequencies(X_POINT) - exact.frequencies(X_POINT)).max()
        print(f"Differences of order {order}: {found.evaluations} supercells, {difference:.1e} THz away")
    print(f"Acoustic sum rule: off by {exact.drift:.1e} eV/A^2 as calculated, {exact.enforced_drift:.1e} enforced")

    temperatures = np.arange(0.0, 420.0, 20.0)
    heated = quasiharmonic(
        atoms,
        calculator,
        supercell=2,
        method="hessian",
        mesh=10,
        temperatures=temperatures,
        strains=np.linspace(-0.03, 0.06, 7),
    )
    room = int(np.argmin(np.abs(heated.temperatures - 300.0)))
    print(f"Linear thermal expansion at 300 K: {heated.expansion[room] / 3 * 1e6:.1f} 10^-6/K")
    with new_folder(output) as folder:
        exact.write(folder, mesh=12)
        heated.write(folder)
    print(f"Written to {output}; go on with: phonopy-load {output / 'phonopy_params.yaml'} --mesh 20 20 20 -t")


if __name__ == "__main__":
    main()
