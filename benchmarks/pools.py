"""Pools of labelled frames, with tests apart from them, for the benchmarks of active learning and uncertainty."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk, fcc100, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from learning import emt, frozen, published

from asenequip.integrators import draw_velocities


def kept_frames(
    name: str, folder: Path, make: Callable[[], tuple[list[Atoms], dict[str, list[Atoms]]]]
) -> tuple[list[Atoms], dict[str, list[Atoms]]]:
    """Pool and tests from a folder where an earlier call has kept them, or made now."""
    path = folder / f"frames_{name}.json"
    if not path.exists():
        pool, tests = make()
        folder.mkdir(parents=True, exist_ok=True)
        for part, frames in {"pool": pool, **tests}.items():
            write(folder / f"{name} {part}.extxyz", frames)
        path.write_text(json.dumps(list(tests)))
    parts = json.loads(path.read_text())
    return read(folder / f"{name} pool.extxyz", ":"), {p: read(folder / f"{name} {p}.extxyz", ":") for p in parts}


# -- Cu-Au-Ni by EMT --------------------------------------------------------------------------------------------------


def alloy(rng: np.random.Generator, squeeze: float = 1.0) -> Atoms:
    """A random Cu-Au-Ni alloy of 16 atoms at the mean lattice constant, compressed by a factor."""
    shares = rng.dirichlet([1, 1, 1])
    symbols = rng.choice(["Cu", "Au", "Ni"], size=16, p=shares)
    a = float(np.mean([{"Cu": 3.61, "Au": 4.08, "Ni": 3.52}[s] for s in symbols]))
    atoms = bulk("Cu", "fcc", a=a * squeeze, cubic=True) * (2, 2, 1)
    atoms.symbols = symbols
    return atoms


def trajectory(atoms: Atoms, temperature: float, frames: int, rng: np.random.Generator) -> list[Atoms]:
    """Frames of EMT dynamics, 40 fs apart, after 100 fs."""
    atoms.calc = EMT()
    draw_velocities(atoms, 2 * temperature, rng)
    moves = Langevin(atoms, 4 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng, fixcm=False)
    moves.run(25)
    found = []
    for _ in range(frames):
        moves.run(10)
        found.append(frozen(atoms))
    return found


def slabs(rng: np.random.Generator, count: int) -> list[Atoms]:
    """Rattled (111) and (100) slabs of random alloys."""
    found = []
    for k in range(count):
        slab = (fcc111, fcc100)[k % 2]("Cu", (2, 2, 4), a=3.75, vacuum=6.0)
        slab.symbols = rng.choice(["Cu", "Au", "Ni"], size=len(slab))
        slab.positions += 0.08 * rng.standard_normal(slab.positions.shape)
        slab.pbc = True
        found.append(emt(slab))
    return found


ALLOYS = {"300 K": 400, "1200 K": 50, "compressed by 6 % a side, 300 K": 50, "slabs": 30}
"""Frames of each part of the pool of `emt_frames`."""


def emt_frames(seed: int) -> tuple[list[Atoms], dict[str, list[Atoms]]]:
    """Pool and tests: the pool is as a user's is, mostly dynamics at room temperature, with some of everything else."""
    rng = np.random.default_rng(seed)

    def many(systems: int, frames: int, temperature: float, squeeze: float) -> list[Atoms]:
        return [f for _ in range(systems) for f in trajectory(alloy(rng, squeeze), temperature, frames, rng)]

    pool = many(20, 20, 300.0, 1.0) + many(5, 10, 1200.0, 1.0) + many(5, 10, 300.0, 0.94) + slabs(rng, 30)
    tests = {
        "1200 K": many(12, 4, 1200.0, 1.0),
        "compressed by 6 % a side, 1200 K": many(12, 4, 1200.0, 0.94),
        "300 K": many(8, 4, 300.0, 1.0),
    }
    return pool, tests


# -- molecules by GFN1-xTB --------------------------------------------------------------------------------------------

MOLECULES = {"CH3CH2OH": 240, "CH3CONH2": 60, "CH3COOH": 60}
"""Frames of each in the pool: ethanol, acetamide, acetic acid, as named in ASE's G2 set."""


def molecule_frames(seed: int) -> tuple[list[Atoms], dict[str, list[Atoms]]]:
    """Pool of dynamics at 300 K; tests at 300 K and 1200 K, from other runs; a frame each 20 fs after 100 fs."""
    from tblite.ase import TBLite

    rng = np.random.default_rng(seed)

    def run(temperature: float, frames: dict[str, int]) -> list[Atoms]:
        found = []
        for name, count in frames.items():
            atoms = molecule(name)
            atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
            draw_velocities(atoms, 2 * temperature, rng)
            timing = {"timestep": 0.5 * units.fs, "friction": 0.01 / units.fs}
            moves = Langevin(atoms, temperature_K=temperature, rng=rng, fixcm=False, **timing)
            moves.run(200)
            for _ in range(count):
                moves.run(40)
                found.append(frozen(atoms))
        return found

    return run(300.0, MOLECULES), {f"{t:g} K": run(t, dict.fromkeys(MOLECULES, 20)) for t in (300.0, 1200.0)}


# -- published DFT frames ---------------------------------------------------------------------------------------------


def forces_only(frames: list[Atoms]) -> list[Atoms]:
    """Copies with forces alone, so that different zeros of energy do not matter."""
    found = []
    for atoms in frames:
        bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        bare.calc = SinglePointCalculator(bare, forces=atoms.get_forces())
        found.append(bare)
    return found


def split_by_time(frames: list[Atoms], every: int, of_test: int) -> tuple[list[Atoms], list[Atoms]]:
    """Of the first four fifths of a trajectory each so-manieth frame, and of the rest."""
    early = round(0.8 * len(frames))
    return frames[:early:every], frames[early::of_test]


def published_frames(folder: Path) -> tuple[list[Atoms], dict[str, list[Atoms]], dict[str, int]]:
    """Pool, tests and sizes of the pool's parts: Li6PS5Cl, sixteen Li-P-S systems and lithium, with forces only.

    Tests are later in time; lithium comes with a test set of its own.
    """
    by_system: dict[str, list[Atoms]] = {}
    for atoms in published(folder, "lips20"):
        by_system.setdefault(atoms.info["system"], []).append(atoms)
    argyrodite = [published(folder, "lpscl", pattern) for pattern in ("*600K*", "*1200K*")]
    parts = {
        "Li6PS5Cl": [split_by_time(frames, 4, 4) for frames in argyrodite],
        "Li-P-S": [split_by_time(frames, 2, 3) for frames in by_system.values()],
        "Li": [(published(folder, "mlearn_Li", "training*"), published(folder, "mlearn_Li", "test*"))],
    }
    pool = [atoms for pairs in parts.values() for early, _ in pairs for atoms in early]
    tests = {name: [atoms for _, late in pairs for atoms in late] for name, pairs in parts.items()}
    sizes = {name: sum(len(early) for early, _ in pairs) for name, pairs in parts.items()}
    return forces_only(pool), {name: forces_only(frames) for name, frames in tests.items()}, sizes
