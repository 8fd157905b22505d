"""Active learning, measured.

    python benchmarks/bench_active.py curve                  # Cu-Au-Ni by EMT: error against labels, three strategies
    python benchmarks/bench_active.py molecules              # the same for molecules by GFN1-xTB
    python benchmarks/bench_active.py pool --data FOLDER     # error against labels on published DFT frames

FOLDER holds the published sets lpscl, lips20 and mlearn_Li as extended XYZ. Results go to benchmarks/results/active_*.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, fcc100, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from learning import RESULTS, emt, force_rmse, frozen, keep, published, small

from asenequip import AllegroCalculator
from asenequip.active import select_frames
from asenequip.integrators import draw_velocities
from asenequip.train import fit
from asenequip.uncertainty import frame_deviation

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


Frames = tuple[list[Atoms], dict[str, list[Atoms]]]
"""Pool and tests."""


def kept_frames(name: str, folder: Path, make: Callable[[], Frames]) -> Frames:
    """Frames of a folder where an earlier call has kept them, or made now."""
    path = folder / f"frames_{name}.json"
    if not path.exists():
        pool, tests = make()
        folder.mkdir(parents=True, exist_ok=True)
        for part, frames in {"pool": pool, **tests}.items():
            write(folder / f"{name} {part}.extxyz", frames)
        path.write_text(json.dumps(list(tests)))
    parts = json.loads(path.read_text())
    return read(folder / f"{name} pool.extxyz", ":"), {p: read(folder / f"{name} {p}.extxyz", ":") for p in parts}


def choose(strategy: str, pool: list[Atoms], taken: list[int], count: int, calculator: AllegroCalculator, seed: int):
    """Further frames of the pool by a strategy."""
    rest = [k for k in range(len(pool)) if k not in taken]
    if strategy == "random":
        return np.random.default_rng([seed, len(taken)]).permutation(rest)[:count].tolist()
    options = {"method": "diverse"}
    if strategy == "active":
        options = {"method": "mixed", "uncertainty": lambda atoms: frame_deviation(calculator.evaluator, atoms)}
    known = [pool[k] for k in taken]
    found = select_frames([pool[k] for k in rest], count, calculator.descriptors, known=known, **options)
    return [rest[k] for k in found.indices]


def lengthen(run: dict, pool: list[Atoms], tests: dict[str, list[Atoms]], options: argparse.Namespace) -> None:
    """Choose frames by the last potential, train on all taken from its weights, and add a row of errors."""
    seed, size, began = run["seed"], options.sizes[len(run["rows"])], time.process_time()
    start = str(options.frames / run["models"][-1]) if run["models"] else None
    if start is None:
        run["taken"] = np.random.default_rng([seed, 99]).permutation(len(pool))[:size].tolist()
    else:
        last, more = AllegroCalculator(start, device="cpu"), size - len(run["taken"])
        run["taken"] += choose(run["strategy"], pool, run["taken"], more, last, seed)
    folder = options.frames / f"{run['strategy']} {seed} {size} {options.steps}"
    model = {"cutoff": options.cutoff, "species": sorted({s for atoms in pool for s in atoms.symbols})}
    settings = {**small(folder, seed, size, options.steps, options.batch, **model), "start": start}
    calculator = AllegroCalculator(fit([pool[k] for k in run["taken"]], settings).path, device="cpu")
    errors = {test: force_rmse(calculator, frames) for test, frames in tests.items()}
    row = {"labels": size, "atoms": sum(len(pool[k]) for k in run["taken"]), **errors}
    row[ALL] = float(np.exp(np.mean(np.log(list(errors.values())))))
    print(run["strategy"], seed, {k: round(v, 4) for k, v in row.items()}, flush=True)
    run["rows"].append({**row, "seconds": round(time.process_time() - began, 1)})
    run["models"].append(str(Path(calculator.parameters["model"]).relative_to(options.frames.resolve())))


STRATEGIES = ("active", "random", "farthest point")
ALL = "all, geometric mean"


def curves(options: argparse.Namespace) -> None:
    """Cu-Au-Ni."""
    for seed in options.seeds:
        pool, tests = kept_frames(str(seed), options.frames, partial(emt_frames, seed))
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
        run = begun(name, strategy, seed, options)
        while len(run["rows"]) < len(options.sizes):
            lengthen(run, pool, tests, options)
            others = [run for run in earlier(name, options) if (run["strategy"], run["seed"]) != (strategy, seed)]
            runs = [*others, run]
            found = {**account, **same_for_all(options), "runs": runs}
            keep(name, {**found, **summary(runs, options.sizes)})


def begun(name: str, strategy: str, seed: int, options: argparse.Namespace) -> dict:
    """What earlier calls have of a run, or its first labels and potential, which all strategies share."""
    same = [run for run in earlier(name, options) if run["seed"] == seed]
    for run in same:
        if run["strategy"] == strategy:
            return run
    new: dict = {"strategy": strategy, "seed": seed, "taken": [], "rows": [], "models": []}
    if same:
        new |= {"taken": same[0]["taken"][: options.sizes[0]], "rows": same[0]["rows"][:1]}
        new["models"] = same[0]["models"][:1]
    return new


def same_for_all(options: argparse.Namespace) -> dict[str, object]:
    """What runs must have in common to stand in one record."""
    return {name: getattr(options, name) for name in ("steps", "batch", "cutoff", "sizes")}


def earlier(name: str, options: argparse.Namespace) -> list[dict]:
    """Runs of an earlier call with the same sizes and steps, to be added to."""
    path = RESULTS / f"active_{name}.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    same = all(found.get(key) == value for key, value in same_for_all(options).items())
    return found["runs"] if same else []


def summary(runs: list[dict], sizes: list[int]) -> dict[str, object]:
    """Means over seeds, and the labels that each strategy needs for the error that random reaches with all of its."""
    runs = [run for run in runs if len(run["rows"]) == len(sizes)]
    table: dict[str, dict[str, list[float]]] = {}
    for test in [key for key in runs[0]["rows"][0] if key not in ("labels", "atoms", "seconds")] if runs else []:
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


def molecules(options: argparse.Namespace) -> None:
    """Ethanol, acetamide and acetic acid: one pool, three choices of the first labels and weights."""
    pool, tests = kept_frames("molecules", options.frames, lambda: molecule_frames(0))
    for seed in options.seeds:
        add_runs("molecules", pool, tests, seed, options, {"labels by": "GFN1-xTB", "pool": MOLECULES})
    draw(earlier("molecules", options), list(tests), "molecules")


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


def published_frames(folder: Path) -> tuple[list[Atoms], dict[str, list[Atoms]]]:
    """Pool and tests: Li6PS5Cl, sixteen Li-P-S systems and lithium; forces only; tests are later in time.

    Lithium comes with a test set of its own.
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
    return forces_only(pool), {name: forces_only(frames) for name, frames in tests.items()}


def pools(options: argparse.Namespace) -> None:
    """Published DFT frames."""
    pool, tests = published_frames(options.data)
    sizes = {"pool": len(pool), **{f"tests, {name}": len(frames) for name, frames in tests.items()}}
    for seed in options.seeds:
        add_runs("pool", pool, tests, seed, options, {"frames": sizes})
    draw(earlier("pool", options), [*tests, ALL], "pool")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curve", "molecules", "pool"))
    parser.add_argument("--data", type=Path, help="folder of the published sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="those of earlier calls are kept")
    parser.add_argument("--frames", type=Path, help="folder that keeps frames and potentials between calls")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--sizes", type=int, nargs="+", default=[15, 30, 60, 120])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--cutoff", type=float, default=4.5, help="Å")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.frames = options.frames or Path(tempfile.mkdtemp())
    {"curve": curves, "molecules": molecules, "pool": pools}[options.what](options)


if __name__ == "__main__":
    main()
