"""Starts for the campaign in campaign.yaml: rattled Cu-Au-Ni alloys of 16 atoms, without labels.

python examples/campaign_starts.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import write

CONSTANTS = {"Cu": 3.61, "Au": 4.08, "Ni": 3.52}


def alloy(rng: np.random.Generator) -> Atoms:
    """A random alloy at the mean lattice constant."""
    symbols = rng.choice(list(CONSTANTS), size=16, p=rng.dirichlet([1, 1, 1]))
    atoms = bulk("Cu", a=float(np.mean([CONSTANTS[s] for s in symbols])), cubic=True) * (2, 2, 1)
    atoms.symbols = symbols
    atoms.positions += 0.1 * rng.standard_normal(atoms.positions.shape)
    return atoms


def main() -> None:
    """Write starts.extxyz."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    path = folder / "starts.extxyz"
    if path.exists():
        raise SystemExit(f"'{path}' exists and is not overwritten.")
    rng = np.random.default_rng(0)
    write(path, [alloy(rng) for _ in range(20)])
    print(path)


if __name__ == "__main__":
    main()
