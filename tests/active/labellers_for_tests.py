"""Calculators that fail on command: by the number of atoms, and by marks left in a folder."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT


class Faulty(EMT):
    """EMT that notes every structure it labels, and fails where the first atom stands at a given x.

    x of the first atom, Angstrom: 1 crash of the process, 2 hang, 3 no convergence, 4 exception, 5 NaN; the first time
    only: 6 crash, 7 kill the process that has started this one.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        fault = round(float(atoms.positions[0, 0]))
        name = atoms.positions.tobytes().hex()[-24:]
        with open(self.folder / "calls.txt", "a") as stream:
            stream.write(f"{name}\n")
        if fault == 1 or (fault == 6 and not (self.folder / name).exists()):
            (self.folder / name).touch()
            os._exit(9)
        if fault == 7 and not (self.folder / name).exists():
            (self.folder / name).touch()
            os.kill(os.getppid(), signal.SIGKILL)
        if fault == 2:
            time.sleep(600)
        if fault == 3:
            raise RuntimeError("SCF did not converge in 100 iterations")
        if fault == 4:
            raise ValueError("no basis set")
        super().calculate(atoms, properties, system_changes)
        if fault == 5:
            self.results["energy"] = np.nan


def faulty(folder: str) -> Calculator:
    return Faulty(folder)


class Silent(Calculator):
    implemented_properties: ClassVar[list[str]] = ["energy"]  # type: ignore[misc]


def calls(folder: Path) -> list[str]:
    file = folder / "calls.txt"
    return file.read_text().split() if file.exists() else []
