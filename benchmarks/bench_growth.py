"""Time and memory per atom on a CPU from 100 to 200,000 atoms, and what dynamics cost beside the model.

``python benchmarks/bench_growth.py [--threads 1] [--largest 200000]`` prints a table, writes ``results/growth.json``
and a figure. The potential is an untrained one (l_max 2, U 32, S 64, 5 Angstrom), copper with 43 neighbours: the cost
does not depend on the weights. Each size runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = (108, 500, 2048, 6912, 32000, 108000, 202612)


def one_size(potential: str, atoms_wanted: int, threads: int) -> dict[str, float]:
    """Seconds per atom of an evaluation with a kept list, with a new list, and of a step of ASE dynamics."""
    import torch
    from ase import units
    from ase.build import bulk
    from ase.md.verlet import VelocityVerlet

    from asenequip.calculator import AllegroCalculator

    torch.set_num_threads(threads)
    repeat = round((atoms_wanted / 4) ** (1 / 3))
    atoms = bulk("Cu", cubic=True).repeat(repeat)
    atoms.positions += np.random.default_rng(0).normal(0.0, 0.05, atoms.positions.shape)
    n = len(atoms)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    calculator = AllegroCalculator(potential, device="cpu")
    start = time.perf_counter()
    calculator.calculate(atoms)
    fresh = time.perf_counter() - start
    repeats = max(2, min(20, 20000 // len(atoms)))
    kept = min(_timed(lambda: calculator.calculate(atoms)) for _ in range(repeats))
    atoms.calc = calculator
    spread = np.sqrt(atoms.get_masses() * 300 * units.kB)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(1).normal(size=(n, 3)))
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.run(1)
    step = min(_timed(lambda: dynamics.run(1)) for _ in range(repeats))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "atoms": n,
        "evaluation_us_per_atom": 1e6 * kept / n,
        "first_evaluation_us_per_atom": 1e6 * fresh / n,
        "dynamics_step_us_per_atom": 1e6 * step / n,
        "memory_kB_per_atom": (peak - before) / n,
    }


def _timed(call) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def figure(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plot, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    atoms = [row["atoms"] for row in rows]
    for key, label in (("evaluation", "energy and forces"), ("dynamics_step", "step of ASE dynamics")):
        axes.loglog(atoms, [row[f"{key}_us_per_atom"] * row["atoms"] / 1e6 for row in rows], "o-", label=label)
    axes.set(xlabel="atoms", ylabel="seconds")
    axes.legend()
    plot.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "growth.json")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_size(options.one[0], int(options.one[1]), options.threads)))
        return
    from bench_peer import hardware

    from asenequip.artifact import save_artifact
    from asenequip.model.allegro import Allegro
    from asenequip.model.spec import AllegroSpec

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        potential = save_artifact(f"{folder}/cu.asnq", Allegro(AllegroSpec(("Cu",), 5.0, avg_num_neighbors=(43.0,))))
        print("   atoms   evaluation   with new list   dynamics step   (us per atom)   memory kB per atom")
        for size in (0, *SIZES):  # the first one only compiles
            if size > options.largest:
                break
            command = [
                sys.executable,
                __file__,
                "--threads",
                str(options.threads),
                "--one",
                str(potential),
                str(size or 108),
            ]
            row = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            if size:
                rows.append(row)
                print("{:8d} {:12.1f} {:15.1f} {:15.1f} {:36.2f}".format(*row.values()), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": hardware(), "threads": options.threads, "rows": rows}
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    figure(rows, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
