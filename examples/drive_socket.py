"""ASE's sockets: a relaxation in this process, the Allegro potential in another.

    python examples/drive_socket.py

``asenequip ipi`` is the other process. With ``--host`` and ``--port`` it may run on another machine; any program that
speaks i-PI's protocol can take ASE's place here.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from ase.build import bulk
from ase.calculators.socketio import SocketIOCalculator
from ase.io import write
from ase.optimize import BFGS

from asenequip.testing.potential import emt_artifact


def main() -> None:
    atoms = bulk("Pt", cubic=True)
    atoms.rattle(0.1, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.extxyz"
        write(start, atoms)
        words = ["ipi", str(start), "--model", str(emt_artifact()), "--unix", "platinum"]
        client = [sys.executable, "-m", "asenequip", *words]  # where the command is on the path: ["asenequip", *words]
        with subprocess.Popen(client), SocketIOCalculator(unixsocket="platinum") as calculator:
            atoms.calc = calculator
            BFGS(atoms).run(fmax=0.02)


if __name__ == "__main__":
    main()
