"""Active learning, measured.

    python benchmarks/bench_active.py curve                  # Cu-Au-Ni by EMT: error against labels, three strategies
    python benchmarks/bench_active.py pool --data FOLDER     # error against labels on published DFT frames

FOLDER holds the published sets lpscl, lips20 and mlearn_Li as extended XYZ. Results go to benchmarks/results/active_*.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, fcc100, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from learning import RESULTS, emt, force_rmse, keep, published, small

from asenequip import AllegroCalculator
from asenequip.active import farthest_points, select
from asenequip.active.selection import describe_frames
from asenequip.integrators import draw_velocities
from asenequip.train import fit

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
        found.append(emt(atoms))
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


def kept_frames(seed: int, folder: Path) -> tuple[list[Atoms], dict[str, list[Atoms]]]:
    """`emt_frames`, from a folder where an earlier call has kept them."""
    path = folder / f"frames_{seed}.json"
    if not path.exists():
        pool, tests = emt_frames(seed)
        folder.mkdir(parents=True, exist_ok=True)
        for name, frames in {"pool": pool, **tests}.items():
            write(folder / f"{seed} {name}.extxyz", frames)
        path.write_text(json.dumps(list(tests)))
    names = json.loads(path.read_text())
    return read(folder / f"{seed} pool.extxyz", ":"), {n: read(folder / f"{seed} {n}.extxyz", ":") for n in names}


def choose(strategy: str, pool: list[Atoms], taken: list[int], count: int, calculator: AllegroCalculator, seed: int):
    """Further frames of the pool by a strategy."""
    rest = [k for k in range(len(pool)) if k not in taken]
    if strategy == "random":
        return np.random.default_rng([seed, len(taken)]).permutation(rest)[:count].tolist()
    species = sorted({int(z) for atoms in pool for z in atoms.numbers})
    points = describe_frames(pool, calculator.descriptors, species)
    points = points / np.where(points.std(axis=0) > 0, points.std(axis=0), 1.0)
    if strategy == "farthest point":
        return [rest[k] for k in farthest_points(points[rest], count, points[taken])]
    doubt = np.array([calculator.uncertainty(pool[k]).max_force for k in rest])
    found = select(points[rest], count, method="mixed", uncertainties=doubt, known=points[taken])
    return [rest[k] for k in found.indices]


def lengthen(run: dict, pool: list[Atoms], tests: dict[str, list[Atoms]], options: argparse.Namespace) -> None:
    """Train on all frames taken, from the last weights; add a row of errors; choose further frames."""
    seed, size = run["seed"], options.sizes[len(run["rows"])]
    if not run["taken"]:
        run["taken"] = np.random.default_rng([seed, 99]).permutation(len(pool))[:size].tolist()
    began = time.process_time()
    folder = options.frames / f"{run['strategy']} {seed} {size} {options.steps}"
    start = str(options.frames / run["model"]) if "model" in run else None
    settings = {**small(folder, seed, size, options.steps), "start": start}
    calculator = AllegroCalculator(fit([pool[k] for k in run["taken"]], settings).path, device="cpu")
    row = {"labels": size, **{test: force_rmse(calculator, frames) for test, frames in tests.items()}}
    print(run["strategy"], seed, {k: round(v, 4) for k, v in row.items()}, flush=True)
    run["rows"].append({**row, "seconds": round(time.process_time() - began, 1)})
    run["model"] = str(Path(calculator.parameters["model"]).relative_to(options.frames.resolve()))
    if len(run["rows"]) < len(options.sizes):
        more = options.sizes[len(run["rows"])] - size
        run["taken"] += choose(run["strategy"], pool, run["taken"], more, calculator, seed)


STRATEGIES = ("active", "random", "farthest point")


def curves(options: argparse.Namespace) -> None:
    """Cu-Au-Ni."""
    for seed in options.seeds:
        pool, tests = kept_frames(seed, options.frames)
        add_runs("curve", pool, tests, seed, options, {"labels by": "ase.calculators.emt.EMT"})
    draw(earlier("curve", options), ["1200 K", "compressed by 6 % a side, 1200 K"], "curve")


def add_runs(
    name: str,
    pool: list[Atoms],
    tests: dict[str, list[Atoms]],
    seed: int,
    options: argparse.Namespace,
    account: dict[str, object],
) -> None:
    """Learning curves of one seed that are not in the results yet, each written when it is there."""
    for strategy in options.strategies:
        mine = [run for run in earlier(name, options) if (run["strategy"], run["seed"]) == (strategy, seed)]
        run = mine[0] if mine else {"strategy": strategy, "seed": seed, "taken": [], "rows": []}
        while len(run["rows"]) < len(options.sizes):
            lengthen(run, pool, tests, options)
            others = [run for run in earlier(name, options) if (run["strategy"], run["seed"]) != (strategy, seed)]
            runs = [*others, run]
            found = {**account, "steps": options.steps, "sizes": options.sizes, "runs": runs}
            keep(name, {**found, **summary(runs, list(tests), options.sizes)})


def earlier(name: str, options: argparse.Namespace) -> list[dict]:
    """Runs of an earlier call with the same sizes and steps, to be added to."""
    path = RESULTS / f"active_{name}.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    same = found["steps"] == options.steps and found["sizes"] == options.sizes
    return found["runs"] if same else []


def summary(runs: list[dict], tests: list[str], sizes: list[int]) -> dict[str, object]:
    """Means over seeds, and the labels that each strategy needs for the error that random reaches with all of its."""
    runs = [run for run in runs if len(run["rows"]) == len(sizes)]
    table: dict[str, dict[str, list[float]]] = {}
    for test in tests:
        table[test] = {}
        for strategy in STRATEGIES:
            rows = [[row[test] for row in run["rows"]] for run in runs if run["strategy"] == strategy]
            if rows:
                table[test][strategy] = np.exp(np.mean(np.log(rows), axis=0)).round(5).tolist()
    needed = {}
    for test, means in table.items():
        if "random" in means:
            level = means["random"][-1]
            needed[test] = {s: labels_for(level, sizes, values) for s, values in means.items()}
    return {"mean force rmse, eV/A": table, "labels for random's last error": needed}


def labels_for(level: float, sizes: list[int], errors: list[float]) -> float | None:
    """Labels at which an error is reached first, interpolated in the logarithms; None if it is not."""
    for k, error in enumerate(errors):
        if error <= level:
            if k == 0:
                return float(sizes[0])
            part = np.log(errors[k - 1] / level) / np.log(errors[k - 1] / error)
            return float(np.round(sizes[k - 1] * (sizes[k] / sizes[k - 1]) ** part, 1))
    return None


def draw(runs: list[dict], tests: list[str], name: str) -> None:
    """Learning curves, one panel per test, every seed thin and the mean thick."""
    from matplotlib.figure import Figure

    runs = [run for run in runs if len(run["rows"]) == max(len(other["rows"]) for other in runs)]
    figure = Figure(figsize=(4.6 * len(tests), 3.8), layout="constrained")
    for axes, test in zip(np.atleast_1d(figure.subplots(1, len(tests))), tests, strict=True):
        for k, strategy in enumerate(STRATEGIES):
            rows = [run["rows"] for run in runs if run["strategy"] == strategy]
            if not rows:
                continue
            sizes = [row["labels"] for row in rows[0]]
            values = np.array([[1e3 * row[test] for row in one] for one in rows])
            axes.loglog(sizes, values.T, color=f"C{k}", lw=0.6, alpha=0.6)
            axes.loglog(sizes, np.exp(np.log(values).mean(axis=0)), color=f"C{k}", lw=2, marker="o", label=strategy)
        axes.set(xlabel="labels", ylabel="force rmse, meV/Å", title=test)
        axes.set_xticks(sizes, map(str, sizes))
        axes.set_xticks([], minor=True)
        axes.legend()
    figure.savefig(RESULTS / f"active_{name}.png", dpi=130)


# -- published DFT frames ---------------------------------------------------------------------------------------------


def forces_only(frames: list[Atoms]) -> list[Atoms]:
    """Copies with forces alone, so that different zeros of energy do not matter."""
    found = []
    for atoms in frames:
        bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        bare.calc = SinglePointCalculator(bare, forces=atoms.get_forces())
        found.append(bare)
    return found


def pools(options: argparse.Namespace) -> None:
    """Li6PS5Cl, Li-P-S polymorphs and lithium as one pool, every fourth frame a test; forces only."""
    every = {
        "Li6PS5Cl": published(options.data, "lpscl")[::4],
        "Li-P-S": [a for a in published(options.data, "lips20")[::2] if len(a) <= 64],
        "Li": published(options.data, "mlearn_Li"),
    }
    tests = {name: forces_only(frames[3::4][:12]) for name, frames in every.items()}
    pool = forces_only([atoms for frames in every.values() for k, atoms in enumerate(frames) if k % 4 != 3])
    for seed in options.seeds:
        add_runs("pool", pool, tests, seed, options, {"pool": {kind: len(frames) for kind, frames in every.items()}})
    draw(earlier("pool", options), list(tests), "pool")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curve", "pool"))
    parser.add_argument("--data", type=Path, help="folder of the published sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="those of earlier calls are kept")
    parser.add_argument("--frames", type=Path, help="folder that keeps frames and potentials between calls")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--sizes", type=int, nargs="+", default=[15, 30, 60, 120])
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.frames = options.frames or Path(tempfile.mkdtemp())
    {"curve": curves, "pool": pools}[options.what](options)


if __name__ == "__main__":
    main()
