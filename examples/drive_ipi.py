"""i-PI: a path integral of copper with 16 beads, whose energies and forces come from one evaluation a step.

    python examples/drive_ipi.py [--steps 20]

Needs ``pip install 'asenequip[ipi]'``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from ase.build import bulk
from ase.io import write

from asenequip.engines import ipi
from asenequip.testing.potential import emt_artifact

INPUT = """
<simulation verbosity='low'>
  <output prefix='run'>
    <properties stride='1' filename='out'>
      [ step, time{{picosecond}}, conserved{{electronvolt}}, temperature{{kelvin}}, kinetic_cv{{electronvolt}} ]
    </properties>
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed> 1 </seed></prng>
  <ffdirect name='allegro'>
    <pes> custom </pes>
    <pes_path> {driver} </pes_path>
    <batch_size> {beads} </batch_size>
    <parameters> {{ template: copper.extxyz, model: {model} }} </parameters>
  </ffdirect>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase' units='ase'> copper.extxyz </file>
      <velocities mode='thermal' units='kelvin'> 50 </velocities>
    </initialize>
    <forces><force forcefield='allegro'/></forces>
    <ensemble><temperature units='kelvin'> 50 </temperature></ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> 1.0 </timestep>
        <thermostat mode='pile_g'><tau units='femtosecond'> 25 </tau></thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "copper.extxyz", bulk("Cu", cubic=True).repeat(2))
        settings = {"steps": steps, "beads": 16, "driver": ipi.__file__, "model": emt_artifact()}
        (folder / "input.xml").write_text(INPUT.format(**settings))
        program = Path(sys.executable).with_name("i-pi")  # where the command is on the path: "i-pi"
        subprocess.run([sys.executable, str(program), "input.xml"], cwd=folder, check=True)
        print((folder / "run.out").read_text())


if __name__ == "__main__":
    main()
