"""Labels by GPAW: a density functional, plane waves, projector-augmented waves. GPAW may be in another Python.

    PYTHONPATH=examples asenequip label frames.extxyz -o labelled.extxyz -c gpaw_labels:make \
        --options '{"command": "/usr/bin/python3"}'

Two halves: `make` gives asenequip a calculator, which runs this file by the command (a Python that has GPAW, or
"mpirun -n 8 gpaw python"); run in that way, the file needs GPAW and its ASE alone, answers one structure, and ends. Any
other code is attached in the same manner. Further options are those of `make`.

The energy is the free energy of the smeared electrons, the one whose derivatives the forces are.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes

QUESTION, ANSWER, LOG = "question.json", "answer.json", "gpaw.txt"


class Gpaw(Calculator):
    """Runs GPAW by a command in its own folder, once per structure.

    Parameters
    ----------
    command : str
        What starts a Python that has GPAW.
    settings : dict
        See `make`.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 (ASE's way to say it)

    def __init__(self, command: str, settings: dict[str, Any]) -> None:
        super().__init__()
        self.command, self.settings = command, settings

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), changes: Sequence[str] = all_changes
    ) -> None:
        """Energy (eV), forces (n_atoms, 3) (eV/Angstrom), stress (6,) (eV/Angstrom^3)."""
        super().calculate(atoms, properties, changes)
        folder = Path(self.directory)
        folder.mkdir(parents=True, exist_ok=True)
        geometry = {"numbers": self.atoms.numbers, "positions": self.atoms.positions, "cell": self.atoms.cell.array}
        question = {**self.settings, **{name: value.tolist() for name, value in geometry.items()}}
        (folder / QUESTION).write_text(json.dumps(question))
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        call = [*shlex.split(self.command), str(Path(__file__).resolve())]
        run = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            raise CalculationFailed(f"GPAW: {(run.stderr.strip() or 'no message').splitlines()[-1]}")
        self.results = {name: np.asarray(value) for name, value in json.loads((folder / ANSWER).read_text()).items()}


def make(
    command: str = "python3",
    *,
    functional: str = "PBE",
    cutoff: float = 300.0,
    kpoint_density: float = 2.2,
    smearing: float = 0.1,
) -> Gpaw:
    """A calculator for `asenequip label`.

    Parameters
    ----------
    command : str
        What starts a Python that has GPAW.
    functional : str
        GPAW's name of it.
    cutoff : float
        Of the plane waves, eV.
    kpoint_density : float
        Points per 1/Angstrom of the reciprocal lattice with its factor of 2 pi; a grid of Monkhorst and Pack.
    smearing : float
        Width of the Fermi-Dirac distribution, eV.
    """
    settings = {"functional": functional, "cutoff": cutoff, "kpoint_density": kpoint_density, "smearing": smearing}
    return Gpaw(command, settings)


def answer() -> None:
    """Compute the structure that lies in this folder; runs in the Python that has GPAW."""
    from ase.parallel import world
    from gpaw import GPAW, PW, FermiDirac
    from gpaw.mixer import Mixer

    question = json.loads(Path(QUESTION).read_text())
    atoms = Atoms(question["numbers"], positions=question["positions"], cell=question["cell"], pbc=True)
    atoms.calc = GPAW(
        mode=PW(question["cutoff"]),
        xc=question["functional"],
        kpts={"density": question["kpoint_density"]},
        occupations=FermiDirac(question["smearing"]),
        mixer=Mixer(0.1, 5, 50.0),
        convergence={"density": 3e-4},
        maxiter=120,
        txt=LOG,
    )
    found = {
        "energy": float(atoms.get_potential_energy(force_consistent=True)),
        "forces": atoms.get_forces().tolist(),
        "stress": atoms.get_stress().tolist(),
    }
    if world.rank == 0:
        Path(ANSWER).write_text(json.dumps(found))


if __name__ == "__main__":
    answer()
