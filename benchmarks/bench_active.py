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
from functools import partial
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import write
from learning import RESULTS, force_rmse, keep, small
from pools import ALLOYS, MOLECULES, emt_frames, kept_frames, molecule_frames, published_frames

from asenequip import AllegroCalculator
from asenequip.active import select_frames
from asenequip.train import fit
from asenequip.uncertainty import frame_deviation

VALID = 0.2
"""Share of the labels that are drawn at random and choose the epoch, as the fresh frames of a campaign do."""


def choose(strategy: str, pool: list[Atoms], run: dict, count: int, calculator: AllegroCalculator) -> list[int]:
    """Further frames of the pool to train on, by a strategy."""
    rest = [k for k in range(len(pool)) if k not in {*run["taken"], *run["fresh"]}]
    if strategy == "random":
        return np.random.default_rng([run["seed"], len(run["taken"])]).permutation(rest)[:count].tolist()
    options = {"method": "diverse"}
    if strategy == "active":
        options = {"method": "mixed", "uncertainty": lambda atoms: frame_deviation(calculator.evaluator, atoms)}
    known = [pool[k] for k in run["taken"]]
    found = select_frames([pool[k] for k in rest], count, calculator.descriptors, known=known, **options)
    return [rest[k] for k in found.indices]


def take_labels(run: dict, pool: list[Atoms], size: int, options: argparse.Namespace) -> None:
    """Bring a run to a number of labels: fresh ones at random, then others by its strategy."""
    valid = round(VALID * size)
    rest = [k for k in range(len(pool)) if k not in {*run["taken"], *run["fresh"]}]
    order = np.random.default_rng([run["seed"], 99, size]).permutation(rest).tolist()
    more = valid - len(run["fresh"])
    run["fresh"] += order[:more]
    count = size - valid - len(run["taken"])
    if run["models"]:
        last = AllegroCalculator(options.frames / run["models"][-1], device="cpu")
        run["taken"] += choose(run["strategy"], pool, run, count, last)
    else:
        run["taken"] += order[more : more + count]


def lengthen(run: dict, pool: list[Atoms], tests: dict[str, list[Atoms]], options: argparse.Namespace) -> None:
    """Choose frames by the last potential, train on all taken from its weights, and add a row of errors."""
    seed, size, began = run["seed"], options.sizes[len(run["rows"])], time.process_time()
    start = str(options.frames / run["models"][-1]) if run["models"] else None
    take_labels(run, pool, size, options)
    folder = options.frames / f"{record_name(options)} {run['strategy']} {seed} {size} {options.steps}"
    folder.mkdir(parents=True, exist_ok=True)
    model = {"cutoff": options.cutoff, "species": sorted({s for atoms in pool for s in atoms.symbols})}
    settings = {**small(folder, seed, size, options.steps, options.batch, **model), "start": start}
    settings["data"] = {"split": {"valid": 0, "test": 0}}
    for role, chosen in (("train", run["taken"]), ("valid", run["fresh"])):
        write(folder / f"{role}.extxyz", [pool[k] for k in chosen])
        settings["data"][role] = str(folder / f"{role}.extxyz")
    if "energy" not in pool[0].calc.results:
        settings["loss"] = {"energy": 0.0, "stress": 0.0}
    settings["loss"] = {**settings["loss"], "kind": options.loss}
    calculator = AllegroCalculator(fit(None, settings).path, device="cpu")
    errors = {test: force_rmse(calculator, frames) for test, frames in tests.items()}
    row = {"labels": size, "atoms": sum(len(pool[k]) for k in run["taken"] + run["fresh"]), **errors}
    row[ALL] = float(np.exp(np.mean(np.log(list(errors.values())))))
    print(run["strategy"], seed, {k: round(v, 4) for k, v in row.items()}, flush=True)
    run["rows"].append({**row, "seconds": round(time.process_time() - began, 1)})
    run["models"].append(str(Path(calculator.parameters["model"]).relative_to(options.frames.resolve())))


STRATEGIES = ("active", "random", "farthest point")
ALL = "all, geometric mean"
NO_ERRORS = ("labels", "atoms", "seconds")
"""Of a row, what is no error."""


def curves(options: argparse.Namespace) -> None:
    """Cu-Au-Ni."""
    for seed in options.seeds:
        pool, tests = kept_frames(str(seed), options.frames, partial(emt_frames, seed))
        add_runs(pool, tests, seed, options)
    write_record(options, {"labels by": "ase.calculators.emt.EMT", "pool": ALLOYS})
    draw(options, ["1200 K", "compressed by 6 % a side, 1200 K"])


def add_runs(pool: list[Atoms], tests: dict[str, list[Atoms]], seed: int, options: argparse.Namespace) -> None:
    """Learning curves of one seed that are not in the record yet, each row written when it is there."""
    for strategy in options.strategies:
        run = begun(strategy, seed, options)
        while len(run["rows"]) < len(options.sizes):
            lengthen(run, pool, tests, options)
            others = [run for run in earlier(options) if (run["strategy"], run["seed"]) != (strategy, seed)]
            keep(record_name(options), {**same_for_all(options), "runs": [*others, run]})


def record_name(options: argparse.Namespace) -> str:
    """Of the record of these runs; each loss has one of its own."""
    return options.what if options.loss == "mse" else f"{options.what}_{options.loss}"


def write_record(options: argparse.Namespace, account: dict[str, object]) -> None:
    """Runs with what was learned from, under "pool" the sizes of its parts in order, and with what follows."""
    runs = earlier(options)
    found = {**account, **same_for_all(options), **summary(runs, options.sizes, account["pool"])}
    keep(record_name(options), {**found, "runs": runs})


def begun(strategy: str, seed: int, options: argparse.Namespace) -> dict:
    """What earlier calls have of a run, or its first labels and potential, which all strategies share."""
    same = [run for run in earlier(options) if run["seed"] == seed]
    for run in same:
        if run["strategy"] == strategy:
            return run
    new: dict = {"strategy": strategy, "seed": seed, "taken": [], "fresh": [], "rows": [], "models": []}
    if same and (options.frames / same[0]["models"][0]).exists():
        valid = round(VALID * options.sizes[0])
        new |= {"taken": same[0]["taken"][: options.sizes[0] - valid], "fresh": same[0]["fresh"][:valid]}
        new |= {"rows": same[0]["rows"][:1], "models": same[0]["models"][:1]}
    return new


def same_for_all(options: argparse.Namespace) -> dict[str, object]:
    """What runs must have in common to stand in one record."""
    shared = {name: getattr(options, name) for name in ("steps", "batch", "cutoff", "sizes")}
    return {**shared, "share of random labels that choose the epoch": VALID}


def earlier(options: argparse.Namespace) -> list[dict]:
    """Runs of earlier calls, to be added to.

    Raises
    ------
    SystemExit
        If they have other settings.
    """
    path = RESULTS / f"active_{record_name(options)}.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    other = {key: found.get(key) for key, value in same_for_all(options).items() if found.get(key) != value}
    if other:
        raise SystemExit(f"The runs in '{path}' have other settings, {other}.\nGive the same, or remove that file.")
    return found["runs"]


def drop_runs(options: argparse.Namespace) -> None:
    """Take the runs that are to be made again, by strategy and seed, out of the record."""
    runs = earlier(options)
    kept = [run for run in runs if run["strategy"] not in options.again or run["seed"] not in options.seeds]
    if len(kept) < len(runs):
        path = RESULTS / f"active_{record_name(options)}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "runs": kept}, indent=1) + "\n")


def summary(runs: list[dict], sizes: list[int], parts: dict[str, int]) -> dict[str, object]:
    """Means over the seeds that all strategies have.

    Of errors and of the labels trained on from each part of the pool; and the labels that each strategy needs for the
    least error that random reaches.
    """
    done = {s: {r["seed"]: r for r in runs if r["strategy"] == s and len(r["rows"]) == len(sizes)} for s in STRATEGIES}
    done = {strategy: found for strategy, found in done.items() if found}
    seeds = sorted(set.intersection(*map(set, done.values()))) if done else []
    if not seeds:
        return {}
    table: dict[str, dict[str, list[float]]] = {}
    needed, taken = {}, {}
    for test in [key for key in done[next(iter(done))][seeds[0]]["rows"][0] if key not in NO_ERRORS]:
        table[test] = {}
        for strategy, found in done.items():
            rows = [[row[test] for row in found[seed]["rows"]] for seed in seeds]
            table[test][strategy] = np.exp(np.mean(np.log(rows), axis=0)).round(5).tolist()
        if "random" in done:
            level = min(table[test]["random"])
            needed[test] = {s: labels_for(level, sizes, values) for s, values in table[test].items()}
    for strategy, found in done.items():
        chosen = np.concatenate([found[seed]["taken"] for seed in seeds])
        counts = np.histogram(chosen, np.cumsum([0, *parts.values()]))[0] / len(seeds)
        taken[strategy] = dict(zip(parts, counts.round(1).tolist(), strict=True))
    return {
        "seeds": seeds,
        "mean force rmse, eV/A": table,
        "labels for random's least error": needed,
        "mean labels trained on, of each part of the pool": taken,
    }


def labels_for(level: float, sizes: list[int], errors: list[float]) -> float | None:
    """Labels at which an error is reached first, interpolated in the logarithms; None if it is not."""
    for k, error in enumerate(errors):
        if error <= level:
            if k == 0:
                return float(sizes[0])
            part = np.log(errors[k - 1] / level) / np.log(errors[k - 1] / error)
            return float(np.round(sizes[k - 1] * (sizes[k] / sizes[k - 1]) ** part, 1))
    return None


def draw(options: argparse.Namespace, tests: list[str]) -> None:
    """Learning curves, one panel per test, every seed thin and the mean thick."""
    from matplotlib.figure import Figure

    runs = [run for run in earlier(options) if len(run["rows"]) == len(options.sizes)]
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
    figure.savefig(RESULTS / f"active_{record_name(options)}.png", dpi=130)


def molecules(options: argparse.Namespace) -> None:
    """Ethanol, acetamide and acetic acid: one pool, three choices of the first labels and weights."""
    pool, tests = kept_frames("molecules", options.frames, lambda: molecule_frames(0))
    for seed in options.seeds:
        add_runs(pool, tests, seed, options)
    write_record(options, {"labels by": "GFN1-xTB", "pool": MOLECULES})
    draw(options, list(tests))


def pools(options: argparse.Namespace) -> None:
    """Published DFT frames."""
    pool, tests, sizes = published_frames(options.data)
    for seed in options.seeds:
        add_runs(pool, tests, seed, options)
    account = {"pool": sizes, "tests": {name: len(frames) for name, frames in tests.items()}}
    write_record(options, account)
    draw(options, [*tests, ALL])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curve", "molecules", "pool"))
    parser.add_argument("--data", type=Path, help="folder of the published sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="those of earlier calls are kept")
    parser.add_argument("--frames", type=Path, help="folder that keeps frames and potentials between calls")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--again", nargs="+", choices=STRATEGIES, default=(), help="make runs of these again")
    parser.add_argument("--sizes", type=int, nargs="+", default=[15, 30, 60, 120])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--cutoff", type=float, default=4.5, help="Å")
    parser.add_argument("--loss", choices=("mse", "huber"), default="mse", help="form of the penalty in training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.frames = options.frames or Path(tempfile.mkdtemp())
    drop_runs(options)
    {"curve": curves, "molecules": molecules, "pool": pools}[options.what](options)


if __name__ == "__main__":
    main()
