"""Five minutes: train an Allegro potential on quantum-chemistry frames of Li6PS5Cl, then run dynamics at 600 K with it.

    python examples/quickstart.py [OUTPUT] [--smoke]

The frames ship with the package: 52-atom cells of the solid electrolyte Li6PS5Cl at several temperatures and strains,
labelled by GFN1-xTB. Everything is written into a new run directory, OUTPUT or runs/quickstart. With
--smoke both parts are cut to seconds: they show that everything works, not how good it gets.
"""

from __future__ import annotations

import argparse
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read, write
from ase.md.langevin import Langevin

from asenequip.calculator import AllegroCalculator
from asenequip.train import fit

TEMPERATURE = 600.0  # K
TIMESTEP = 2.0  # fs
STEPS = 1000

SETTINGS: dict[str, Any] = {
    "data": {"split": {"method": "key", "key": "split"}},  # every frame says train, valid or test
    "model": {"cutoff": 5.0, "l_max": 2, "num_scalar_features": 32, "num_tensor_features": 16},
    # of 0.005, 0.01, 0.02 and 0.04 this learning rate has the lowest loss on the validation frames after 2500 steps
    "training": {"minutes": 4.0, "batch_size": 2, "learning_rate": 0.04, "valid_every": 2},
}


def load_frames() -> list[Atoms]:
    """The frames that the package ships."""
    with as_file(files("asenequip.data") / "li6ps5cl_gfn1.extxyz.gz") as path:
        return read(path, index=":")


def run_dynamics(potential: Path, atoms: Atoms, folder: Path, steps: int) -> float:
    """Langevin dynamics at 600 K; writes ``md_600K.extxyz`` and returns steps per second."""
    rng = np.random.default_rng(0)
    atoms.calc = AllegroCalculator(potential)
    spread = np.sqrt(TEMPERATURE * units.kB * atoms.get_masses())[:, None]
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * spread)
    dynamics = Langevin(
        atoms, TIMESTEP * units.fs, temperature_K=TEMPERATURE, friction=0.02 / units.fs, rng=rng, fixcm=False
    )
    kept = []
    dynamics.attach(lambda: kept.append(atoms.copy()), interval=10)
    dynamics.run(10)  # neighbour list and kernels are set up here
    start = time.perf_counter()
    dynamics.run(steps)
    rate = steps / (time.perf_counter() - start)
    write(folder / "md_600K.extxyz", kept)
    return rate


def main() -> None:
    """Train, then run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", default="runs/quickstart", help="new run directory")
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    options = parser.parse_args()
    settings = {**SETTINGS, "output": options.output}
    steps = STEPS
    if options.smoke:
        settings["training"] = {**SETTINGS["training"], "minutes": 0.2}
        steps = 20
    start = time.perf_counter()
    frames = load_frames()
    print(f"{len(frames)} frames of {len(frames[0])} atoms: {frames[0].get_chemical_formula()}")
    potential = fit(frames, settings, quiet=False)
    if potential.path is None:
        raise SystemExit("The potential was not written.")
    folder = potential.path.parent
    atoms = next(frame.copy() for frame in frames if frame.info["split"] == "test" and frame.info["strain"] == "iso+0")
    rate = run_dynamics(potential.path, atoms, folder, steps)
    simulated = steps * TIMESTEP / 1000
    print(f"Dynamics at {TEMPERATURE:.0f} K: {simulated:.1f} ps of {len(atoms)} atoms, {rate:.0f} steps per second,")
    print(f"mean temperature of the second half {second_half_temperature(atoms, folder):.0f} K")
    print(f"Trajectory: {folder / 'md_600K.extxyz'}")
    print(f"Everything in {time.perf_counter() - start:.0f} s")


def second_half_temperature(atoms: Atoms, folder: Path) -> float:
    """Mean kinetic temperature over the second half of the trajectory, K."""
    frames = read(folder / "md_600K.extxyz", index=":")
    return float(np.mean([frame.get_temperature() for frame in frames[len(frames) // 2 :]]))


if __name__ == "__main__":
    main()
