"""Active learning and uncertainty, measured.

    python benchmarks/bench_active.py curve                  # Cu-Au-Ni by EMT: error against labels, three strategies
    python benchmarks/bench_active.py rigidity --data FOLDER # last-layer uncertainty of a Li6PS5Cl potential; Li metal
    python benchmarks/bench_active.py pool --data FOLDER     # error against labels on published DFT frames
    python benchmarks/bench_active.py cost                   # a force call with and without uncertainty

FOLDER holds the published sets lpscl, lips20 and mlearn_Li as extended XYZ. Results go to benchmarks/results/active_*.
"""

from __future__ import annotations

import argparse
import json
import platform
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

from asenequip import AllegroCalculator, __version__
from asenequip.active import farthest_points, select
from asenequip.active.selection import describe_frames
from asenequip.integrators import draw_velocities
from asenequip.train import fit
from asenequip.uncertainty import add_uncertainty, calibration_error, rank_correlation
from asenequip.uncertainty.calibration import draw_reliability, reliability
from asenequip.uncertainty.features import force_jacobian

RESULTS = Path(__file__).resolve().parent / "results"


def conditions() -> dict[str, object]:
    """Versions and hardware."""
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "asenequip": __version__,
        "torch": torch.__version__,
        "processor": processor,
        "threads": torch.get_num_threads(),
    }


def keep(name: str, values: dict[str, object]) -> None:
    """Write results as JSON and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"active_{name}.json"
    path.write_text(json.dumps({**values, "conditions": conditions()}, indent=1) + "\n")
    print(f"wrote {path}")


# -- Cu-Au-Ni by EMT --------------------------------------------------------------------------------------------------


def emt(atoms: Atoms) -> Atoms:
    """A copy with EMT's labels."""
    labelled = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    labelled.calc = EMT()
    results = {"energy": labelled.get_potential_energy(), "forces": labelled.get_forces()}
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled


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


def small(folder: Path, seed: int, frames: int, steps: int, **model: object) -> dict[str, object]:
    """Settings of a potential that trains in seconds, with the same number of steps whatever the number of frames."""
    batch = 4
    epochs = max(1, round(steps * batch / (0.8 * frames)))
    sizes = {"num_scalar_features": 16, "num_tensor_features": 8, "two_body_width": 32, "latent_width": 32}
    return {
        "data": {"split": {"valid": 0.2, "test": 0, "seed": seed}},
        "model": {"cutoff": 4.5, "l_max": 1, "readout_width": 32, **sizes, **model},
        "loss": {"stress": 0.0},
        "training": {"epochs": epochs, "batch_size": batch, "valid_every": max(1, epochs // 10)},
        "uncertainty": {"directions": 2},
        "output": str(folder / "run"),
        "seed": seed,
        "threads": 1,
        "device": "cpu",
    }


def force_rmse(calculator: AllegroCalculator, frames: list[Atoms]) -> float:
    """Over all components, eV/Angstrom."""
    errors = [atoms.calc.results["forces"] - calculator.get_property("forces", atoms) for atoms in frames]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


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


def published(folder: Path, name: str, pattern: str = "*") -> list[Atoms]:
    """Frames of a set, files in order."""
    frames: list[Atoms] = []
    for path in sorted((folder / name).glob(pattern)):
        if ".xyz" in path.name or ".extxyz" in path.name:
            frames += read(path, ":")
    return frames


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


# -- the last layer ---------------------------------------------------------------------------------------------------


def rigidity(options: argparse.Namespace) -> None:
    """A potential trained on Li6PS5Cl at 600 K: its uncertainty there, at 1200 K, and on lithium metal."""
    files = sorted((options.data / "lpscl").glob("*"))
    cold = next(read(path, ":") for path in files if "600" in path.name)
    hot = next(read(path, ":") for path in files if "1200" in path.name)
    metal = [atoms for atoms in published(options.data, "mlearn_Li") if np.abs(atoms.get_forces()).max() > 0.01]
    train, calibration, same = cold[:40:2], cold[50:66:2], cold[66::2]
    path, seconds = trained_on(train, calibration, options)
    calculator = AllegroCalculator(path, device="cpu")
    tests = {HOME: same, "Li6PS5Cl, 1200 K": hot[40::6], "Li metal": metal[::4]}
    measured = {kind: examine(calculator, frames) for kind, frames in tests.items()}
    rows = {kind: {k: v for k, v in found.items() if not k.startswith("_")} for kind, found in measured.items()}
    rows[HOME] |= {"rank correlation, atoms, posterior of the forces": posterior(calculator, same[::3])}
    alarms = false_alarms(measured)
    picture = draw_reliability(
        reliability(measured[HOME]["_errors"], measured[HOME]["_deviations"]), f"{HOME}: force components"
    )
    RESULTS.mkdir(exist_ok=True)
    picture.savefig(RESULTS / "active_reliability.png", dpi=130)
    keep("rigidity", {"fit, seconds": round(seconds, 1), "tests": rows, "guard": alarms})
    print(json.dumps({"tests": rows, "guard": alarms}, indent=1))


HOME = "Li6PS5Cl, 600 K"


def trained_on(train: list[Atoms], calibration: list[Atoms], options: argparse.Namespace) -> tuple[Path, float]:
    """A potential with uncertainty, and the processor seconds of fitting the latter; kept between calls."""
    folder = options.frames / "rigidity"
    settings = small(folder, 0, len(train), options.steps, cutoff=5.0, l_max=2)
    settings["training"] = {**settings["training"], "batch_size": 1, "epochs": max(1, options.steps // len(train))}
    source = folder / "run" / "model.asnq"
    if not source.exists():
        fit(train, settings)
    target = Path(tempfile.mkdtemp()) / "model.asnq"
    began = time.process_time()
    add_uncertainty(source, target, train, calibration, device="cpu", directions=2)
    return target, time.process_time() - began


def posterior(calculator: AllegroCalculator, frames: list[Atoms]) -> float:
    """Rank correlation of the atoms' force errors with the last-layer posterior of the forces themselves."""
    errors, deviations = [], []
    for atoms in frames:
        jacobian = force_jacobian(calculator.evaluator.model, calculator.evaluator.graph(atoms))
        deviations.append(np.linalg.norm(jacobian @ calculator.rigidity.root, axis=(1, 2)))
        errors.append(np.linalg.norm(atoms.get_forces() - calculator.get_property("forces", atoms), axis=1))
    return round(rank_correlation(np.concatenate(errors), np.concatenate(deviations)), 3)


def examine(calculator: AllegroCalculator, frames: list[Atoms]) -> dict[str, object]:
    """Errors beside deviations, per atom and per frame."""
    errors, deviations, largest = [], [], []
    for atoms in frames:
        labels = atoms.get_forces()
        error = labels - calculator.get_property("forces", atoms)
        found = calculator.uncertainty(atoms)
        errors.append(error)
        deviations.append(found.forces)
        relative = np.sqrt((error**2).mean() / (labels**2).mean())
        largest.append((np.linalg.norm(error, axis=1).max(), found.max_force, relative))
    every, stated = np.concatenate(errors), np.concatenate(deviations)
    norms, frame = np.linalg.norm(every, axis=1), np.array(largest)
    bound = calculator.rigidity.force_bound(0.9)
    return {
        "frames": len(frames),
        "force rmse in units of the forces' rms, median": round(float(np.median(frame[:, 2])), 3),
        "force rmse, eV/A": round(float(np.sqrt((every**2).mean())), 4),
        "mean deviation, eV/A": round(float(stated.mean()), 4),
        "rank correlation, atoms": round(rank_correlation(norms, stated), 3),
        "rank correlation, largest of a frame": round(rank_correlation(frame[:, 0], frame[:, 1]), 3),
        "expected calibration error": round(calibration_error(every, np.repeat(stated, 3)), 4),
        "coverage of the 90 % bound": round(float((norms <= bound * stated).mean()), 3),
        "_errors": every,
        "_deviations": np.repeat(stated, 3),
        "_frames": frame,
    }


def false_alarms(measured: dict[str, dict]) -> dict[str, object]:
    """A guard at the largest deviation that occurs on frames like the training's: what it says elsewhere.

    A frame counts as wrong where its force rmse, in units of its forces' rms, is over the largest of the frames like
    the training's; by that, not by absolute errors, soft forces that are all wrong are wrong.
    """
    home = measured[HOME]["_frames"]
    limit, fair = float(home[:, 1].max()), float(home[:, 2].max())
    found: dict[str, object] = {"limit, eV/A": round(limit, 4), "fair relative error": round(fair, 4)}
    for kind, values in measured.items():
        wrong, alarm = values["_frames"][:, 2] > fair, values["_frames"][:, 1] > limit
        found[kind] = {
            "frames": len(wrong),
            "wrong": int(wrong.sum()),
            "alarms": int(alarm.sum()),
            "false alarms": int((alarm & ~wrong).sum()),
            "misses": int((wrong & ~alarm).sum()),
        }
    return found


def cost(options: argparse.Namespace) -> None:
    """A force call with and without uncertainty, alternating in one process; the best of many of each."""
    from asenequip.artifact import save_artifact
    from asenequip.model.allegro import Allegro
    from asenequip.model.spec import AllegroSpec

    rows = []
    torch.set_num_threads(1)
    for scalars, channels, l_max in ((16, 8, 1), (32, 16, 2), (64, 32, 2)):
        spec = AllegroSpec(
            ("Cu",),
            5.0,
            l_max=l_max,
            num_scalar_features=scalars,
            num_tensor_features=channels,
            avg_num_neighbors=(42.0,),
        )
        with tempfile.TemporaryDirectory() as name:
            atoms = bulk("Cu", cubic=True) * (3, 3, 3)
            frames = []
            for k in range(6):
                moved = atoms * (1, 1, 1)
                moved.rattle(0.1, seed=k)
                frames.append(emt(moved))
            source = save_artifact(Path(name) / "plain.asnq", Allegro(spec, seed=0).to(torch.float32))
            target = add_uncertainty(source, Path(name) / "model.asnq", frames[:3], frames[3:], directions=1)
            plain, unsure = (AllegroCalculator(path, device="cpu") for path in (source, target))
            times: dict[str, list[float]] = {"forces": [], "forces and uncertainty": []}
            for k in range(options.repeat):
                frames[0].positions[0, 0] += 1e-3 * (-1) ** k
                for label, calculator in (("forces", plain), ("forces and uncertainty", unsure)):
                    began = time.perf_counter()
                    calculator.calculate(frames[0], ["forces"])
                    if calculator is unsure:
                        calculator.uncertainty(frames[0])
                    times[label].append(time.perf_counter() - began)
            best = {label: min(values) for label, values in times.items()}
        ratio = best["forces and uncertainty"] / best["forces"]
        size = f"l_max {l_max}, {scalars} scalars, {channels} channels, readout of 32"
        engine = "fused" if plain.evaluator.engine is not None else "eager"
        rows.append({"network": size, "atoms": len(atoms), "form": engine, "ratio": round(ratio, 3)})
        rows[-1] |= {f"{label}, ms": round(1e3 * value, 3) for label, value in best.items()}
        print(rows[-1], flush=True)
    keep("cost", {"rows": rows})


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curve", "rigidity", "pool", "cost"))
    parser.add_argument("--data", type=Path, help="folder of the published sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="those of earlier calls are kept")
    parser.add_argument("--frames", type=Path, help="folder that keeps frames and potentials between calls")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--sizes", type=int, nargs="+", default=[15, 30, 60, 120])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.frames = options.frames or Path(tempfile.mkdtemp())
    {"curve": curves, "rigidity": rigidity, "pool": pools, "cost": cost}[options.what](options)


if __name__ == "__main__":
    main()
