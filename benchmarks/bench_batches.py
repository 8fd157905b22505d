"""Ten thousand small structures: evaluated together, beside one by one through the calculator; and relaxed.

``python benchmarks/bench_batches.py [--structures 10000] [--threads 1]`` prints a table and writes
``results/batches.json``. The structures are displaced copper, nickel and copper-nickel crystals of 8 to 48 atoms with
strained cells; the potential is an untrained one (l_max 2, U 32, S 64, 5 Angstrom), whose cost is that of a trained
one. One by one is measured on every tenth structure, in turns with the batches. For relaxation the potential is the
packaged one of EMT, which has minima; beside it each structure goes through ASE's own optimiser and the calculator.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import tracemalloc
from importlib.resources import files
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.optimize import LBFGS

SHAPES = (
    (2, 1, 1),
    (3, 1, 1),
    (2, 2, 1),
    (5, 1, 1),
    (3, 2, 1),
    (7, 1, 1),
    (2, 2, 2),
    (3, 3, 1),
    (5, 2, 1),
    (11, 1, 1),
    (3, 2, 2),
)
"""Repeats of the cubic cell of four atoms: 8 to 48 atoms."""


class Clocks:
    """Seconds spent inside its ``with`` blocks: on the clock, and of processors."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self.wall += time.perf_counter() - self._start[0]
        self.processor += time.process_time() - self._start[1]


def rates(many: int, together: Clocks, few: int, alone: Clocks) -> dict[str, float]:
    """Structures per second and per second of processor time, and what going together brings in the latter."""
    return {
        "together_per_second": many / together.wall,
        "one_by_one_per_second": few / alone.wall,
        "together_per_processor_second": many / together.processor,
        "one_by_one_per_processor_second": few / alone.processor,
        "times_faster": many / together.processor * alone.processor / few,
    }


def structures(count: int, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        atoms = bulk("Cu", cubic=True) * SHAPES[rng.integers(len(SHAPES))]
        atoms.numbers[rng.random(len(atoms)) < rng.choice([0.0, 0.5, 1.0])] = 28
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        made.append(atoms)
    return made


def evaluate(frames: list[Atoms], potential: Path, parts: int = 10) -> dict[str, float]:
    """Structures per second, together and one by one in turns, and the most memory that Python and NumPy took."""
    from asenequip.calculator import AllegroCalculator

    calculator = AllegroCalculator(potential, device="cpu")
    calculator.evaluate(frames[:50])
    together, alone = Clocks(), Clocks()
    counted, apart = 0, 0.0
    for part in range(parts):
        mine = frames[part * len(frames) // parts : (part + 1) * len(frames) // parts]
        with together:
            found = calculator.evaluate(mine)
        forces = []
        with alone:
            for atoms in mine[::10]:
                copy = atoms.copy()
                copy.calc = calculator
                copy.get_potential_energy()
                forces.append(copy.get_forces())
        counted += len(forces)
        apart = max(apart, *(float(np.abs(f - r["forces"]).max()) for f, r in zip(forces, found[::10], strict=True)))
    tracemalloc.start()
    calculator.evaluate(frames)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    atoms = sum(map(len, frames))
    return {
        "structures": len(frames),
        "atoms": atoms,
        **rates(len(frames), together, counted, alone),
        "together_us_per_atom": 1e6 * together.processor / atoms,
        "largest_force_difference": apart,
        "peak_bytes_per_structure": peak / len(frames),
    }


def relaxation(frames: list[Atoms], cell: str, fmax: float = 0.05, steps: int = 200) -> dict[str, float]:
    """Relaxations per second, together and one by one with ASE's optimiser, the packaged potential of EMT."""
    import warnings

    from ase.filters import FrechetCellFilter

    from asenequip.calculator import AllegroCalculator
    from asenequip.relax import relax

    calculator = AllegroCalculator(str(files("asenequip.data") / "emt.asnq"), device="cpu", dtype="float32")
    warnings.filterwarnings("ignore", "logm result may be inaccurate", RuntimeWarning)
    relax(frames[:5], calculator, fmax=fmax, steps=2, cell=cell)
    together, alone = Clocks(), Clocks()
    with together:
        done = relax(frames, calculator, fmax=fmax, steps=steps, cell=cell)
    taken, some = 0, frames[::10]
    with alone:
        for atoms in some:
            copy = atoms.copy()
            copy.calc = calculator
            optimizer = LBFGS(copy if cell == "fixed" else FrechetCellFilter(copy), logfile=None)
            optimizer.run(fmax=fmax, steps=steps)
            taken += optimizer.nsteps
    same = sum(entry.steps for entry in done[::10])
    return {
        "structures": len(frames),
        "converged": sum(entry.converged for entry in done),
        "steps_per_structure": sum(entry.steps for entry in done) / len(frames),
        "steps_of_every_tenth": same,
        "steps_of_every_tenth_one_by_one": taken,
        **rates(len(frames), together, len(some), alone),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=10_000)
    parser.add_argument("--relaxations", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="results/batches.json, or batches_2_threads.json and so on")
    options = parser.parse_args()
    if options.output is None:
        name = "batches" if options.threads == 1 else f"batches_{options.threads}_threads"
        options.output = Path(__file__).parent / "results" / f"{name}.json"
    from bench_peer import hardware, threads

    threads(options.threads)
    from asenequip.artifact import save_artifact
    from asenequip.model.allegro import Allegro
    from asenequip.model.spec import AllegroSpec

    machine = hardware()
    frames = structures(options.structures)
    with tempfile.TemporaryDirectory() as folder:
        model = Allegro(AllegroSpec(("Cu", "Ni"), 5.0, avg_num_neighbors=(43.0, 43.0)))
        rows = {"evaluate": evaluate(frames, save_artifact(f"{folder}/model.asnq", model))}
    print(json.dumps(rows["evaluate"], indent=1), flush=True)
    for cell in ("fixed", "full"):
        rows[f"relax, cell {cell}"] = relaxation(frames[: options.relaxations], cell)
        print(cell, json.dumps(rows[f"relax, cell {cell}"], indent=1), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    machine["load_after"] = os.getloadavg()[0]
    options.output.write_text(
        json.dumps({"machine": machine, "threads": options.threads, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
