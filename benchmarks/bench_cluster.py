"""Neighbours to density peaks with BMTI: seconds beside DADApy's in the same run, accuracy, size.

    python benchmarks/bench_cluster.py speed      # 5,000 / 20,000 / 50,000 points x 2 / 6 / 20 dimensions, one thread
    python benchmarks/bench_cluster.py accuracy   # normal mixtures, also rotated into more coordinates; a double well
    python benchmarks/bench_cluster.py figures    # the figure sets of DADApy, with default settings
    python benchmarks/bench_cluster.py large      # a million points in 6 dimensions; 3,000 points of 1,000 coordinates
    python benchmarks/bench_cluster.py stream     # a million atoms labelled frame by frame with a fitted model
    python benchmarks/bench_cluster.py recall     # approximate neighbours against exact ones

Where DADApy is not installed (numpy < 2) its columns are left out. Results go to benchmarks/results/cluster_*.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from ase import Atoms
from ase.build import bulk
from scipy.special import logsumexp
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from asenequip import __version__
from asenequip.cluster import BMTI, DensityPeaks, EnvironmentClusters, KStarNN, PAk, nearest_neighbours
from asenequip.cluster.landscape import bmti_landscape, survey
from asenequip.cluster.peaks import density_peaks

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("ASENEQUIP_DATA", HERE.parent.parent / "shared/data"))


def mixture(n: int, d: int, seed: int = 0, centres: int = 5, reach: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Points of normal distributions of unit width and their exact log density."""
    generator = np.random.default_rng(seed)
    middle = generator.normal(size=(centres, d)) * reach / np.sqrt(d)
    points = middle[generator.integers(centres, size=n)] + generator.normal(size=(n, d))
    squares = np.stack([((points - m) ** 2).sum(-1) for m in middle], axis=1)
    return points, logsumexp(-0.5 * squares, axis=1) - 0.5 * d * np.log(2 * np.pi) - np.log(centres)


class Clock:
    """Seconds of named steps: of the processor, which other work on the machine does not lengthen, where there is one
    thread; else of the wall."""

    def __init__(self, threads: int = 1) -> None:
        self.steps: dict[str, float] = {}
        self.now = time.process_time if threads == 1 else time.perf_counter
        self.last = self.now()

    def __call__(self, name: str) -> None:
        now = self.now()
        self.steps[name] = round(now - self.last, 3)
        self.last = now

    def total(self) -> float:
        return round(sum(self.steps.values()), 3)


def own(points: np.ndarray, threads: int = 1, max_neighbours: int | None = None, **options: Any) -> dict:
    clock = Clock(threads)
    found = survey(points, max_neighbours=max_neighbours)
    clock("neighbours, dimension, k*")
    found, iterations = bmti_landscape(found, **options)
    clock("BMTI")
    hood = found.hood()
    peaks = density_peaks(found.log_density, found.error, hood.neighbours, hood.k_star)
    clock("peaks")
    return {
        "steps": clock.steps,
        "total": clock.total(),
        "clusters": len(peaks.centres),
        "iterations": iterations,
        "mean k*": round(float(hood.k_star.mean()), 1),
        "largest k*": int(hood.k_star.max()),
    }


def peer(points: np.ndarray, threads: int, solver: str) -> dict | None:
    try:
        from dadapy import Data
    except ImportError:
        return None
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clock = Clock(threads)
        data = Data(points, maxk=100, n_jobs=threads)
        data.compute_distances()
        data.compute_id_2NN()
        data.compute_kstar()
        clock("neighbours, dimension, k*")
        data.compute_density_kstarNN()
        error = data.log_den_err
        data.compute_density_BMTI(solver=solver)
        clock("BMTI")
        data.log_den_err = error
        data.compute_clustering_ADP()
        clock("peaks")
    return {
        "steps": clock.steps,
        "total": clock.total(),
        "clusters": int(data.N_clusters),
        "mean k*": round(float(data.kstar.mean()), 1),
        "largest k*": int(data.kstar.max()),
    }


def best(run: Callable[[], dict | None]) -> dict | None:
    """The faster of two runs."""
    found = [run(), run()]
    return min((one for one in found if one is not None), key=lambda one: one["total"], default=None)


def speed(sizes: list[int], dimensions: list[int], threads: int) -> list[dict]:
    """The best of two runs of each; the errors are those of the k* estimate, as DADApy's peaks need them.

    DADApy's own choice of solver factorises a matrix that fills with the number of points: timed at 5,000 only.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    rows = []
    for n in sizes:
        for d in dimensions:
            points, _ = mixture(n, d)
            contenders: dict[str, Callable[[], dict | None]] = {
                "own, as many neighbours as needed": lambda: own(points, threads),  # noqa: B023 (called in this round)
                "own, 100 neighbours": lambda: own(points, threads, 100),  # noqa: B023
                "own, 100 neighbours, all edges as DADApy": lambda: own(
                    points,  # noqa: B023
                    threads,
                    100,
                    sharpen=False,
                    max_edges=None,
                ),
                "dadapy, 100 neighbours, conjugate gradients": lambda: peer(points, threads, "sp_cg"),  # noqa: B023
            }
            if n <= 5000:
                contenders["dadapy, 100 neighbours, default solver"] = lambda: peer(points, threads, "sp_direct")  # noqa: B023
            row: dict = {"points": n, "dimensions": d}
            with threadpool_limits(threads):
                row.update((name, best(run)) for name, run in contenders.items())
            for name in [key for key in contenders if key.startswith("dadapy") and row[key]]:
                for mine in [key for key in contenders if key.startswith("own")]:
                    row[f"{name} / {mine}"] = round(row[name]["total"] / row[mine]["total"], 2)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def kde(points: np.ndarray) -> np.ndarray:
    """Log density of a normal kernel of the best of ten widths, by the true likelihood of held-out points."""
    from sklearn.neighbors import KernelDensity

    def score(width: float) -> float:
        return KernelDensity(bandwidth=width, rtol=1e-3).fit(points[::2]).score(points[1::2][:500])

    width = max(np.geomspace(0.05, 1.0, 10) * points.std(), key=score)
    return KernelDensity(bandwidth=width, rtol=1e-3).fit(points).score_samples(points)


def accuracy(n: int) -> list[dict]:
    sets = {f"mixture, {d} dimensions": mixture(n, d, d) for d in (2, 6, 9, 20)}
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0]
    for d in (2, 6, 9):
        points, truth = sets[f"mixture, {d} dimensions"]
        sets[f"mixture, {d} dimensions, rotated into 20"] = (points @ turn[:d], truth)
    well = DATA / "density"
    if well.exists():
        table = np.loadtxt(well / "6d_double_well_logdensities_and_grads.txt.gz")[:n, 0]
        sets["6-d double well"] = (np.loadtxt(well / "6d_double_well.txt.gz")[:n], table)
    rows = []
    for name, (points, exact) in sets.items():
        row: dict = {"set": name, "points": len(points)}
        estimates = {
            "KStarNN": KStarNN(),
            "PAk": PAk(),
            "BMTI": BMTI(),
            "BMTI, alpha 0.99": BMTI(alpha=0.99),
            "BMTI, not sharpened": BMTI(sharpen=False),
        }
        for label, estimator in estimates.items():
            estimator.fit(points)
            residual = estimator.log_density_ - exact
            residual = residual - residual.mean()
            row[label] = {
                "mean absolute error": round(float(np.abs(residual).mean()), 4),
                "pull": round(float((residual / estimator.log_density_error_).std()), 3),
            }
        residual = kde(points) - exact
        row["KDE"] = {"mean absolute error": round(float(np.abs(residual - residual.mean()).mean()), 4)}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def figures() -> list[dict]:
    """DADApy's figure sets of known clusters, every setting left at its default."""
    rows = []
    for name, truth in (("Fig1", "F1"), ("Fig2", "F2"), ("FigS2", "FS2")):
        points = np.loadtxt(DATA / f"density/{name}.dat.gz")
        expected = np.loadtxt(DATA / f"density/gt_{truth}.txt.gz").astype(int)
        core = expected >= 0
        row: dict = {"set": name, "points": len(points), "true clusters": len(np.unique(expected[core]))}
        for label, density in (("BMTI", BMTI()), ("PAk", PAk()), ("KStarNN", KStarNN())):
            start = time.perf_counter()
            fitted = DensityPeaks(density=density).fit(points)
            row[label] = {
                "clusters": fitted.n_clusters_,
                "adjusted Rand index": round(adjusted_rand_score(expected[core], fitted.labels_[core]), 4),
                "seconds": round(time.perf_counter() - start, 2),
            }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def memory() -> float:
    """Largest memory this process has held so far, GiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def large(n: int) -> list[dict]:
    rows = []
    for points in (np.random.default_rng(0).normal(size=(3000, 1000)), mixture(n, 6)[0]):
        row = {"points": len(points), "coordinates": points.shape[1], "own": own(points), "peak memory, GiB": memory()}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def stream(n: int) -> list[dict]:
    """Frames of a thousand copper atoms, shaken, a part of them molten; described by distances to near neighbours."""
    frames = [shaken(seed) for seed in range(8)]
    model = EnvironmentClusters(nearest_shells, sample=10_000).fit(frames)
    done, start, held = 0, time.perf_counter(), []
    for atoms in model.stream(shaken(seed) for seed in range(100, 100 + n // 1000)):
        done += len(atoms)
        if done % (n // 10) < len(atoms):
            held.append(memory())
    seconds = time.perf_counter() - start
    row = {
        "atoms": done,
        "clusters": model.n_clusters_,
        "atoms per second": round(done / seconds),
        "seconds": round(seconds, 1),
        "peak memory after each tenth, GiB": held,
    }
    print(json.dumps(row), flush=True)
    return [row]


def shaken(seed: int) -> Atoms:
    generator = np.random.default_rng(seed)
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (10, 5, 5)
    width = np.where(atoms.positions[:, 0] < 18.0, 0.08, 0.5)
    atoms.positions += generator.normal(size=(len(atoms), 3)) * width[:, None]
    return atoms


def nearest_shells(atoms: Atoms) -> np.ndarray:
    """Distances to the first 14 neighbours, periodic."""
    return nearest_neighbours(atoms.positions, 14, period=atoms.cell.lengths()).distances[:, 1:]


def recall(n: int) -> list[dict]:
    nearest_neighbours(mixture(2000, 6)[0], 50, method="approximate")  # PyNNDescent compiles itself at first use
    rows = []
    for d in (6, 20, 50):
        points, _ = mixture(n, d)
        row: dict = {"points": n, "dimensions": d}
        for method in ("auto", "approximate"):
            start = time.perf_counter()
            found = nearest_neighbours(points, 50, method=method)
            row[method] = {"seconds": round(time.perf_counter() - start, 2), "recall": round(found.recall, 4)}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "accuracy", "figures", "large", "stream", "recall"])
    parser.add_argument("--points", type=int, nargs="+")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 6, 20])
    parser.add_argument("--threads", type=int, default=1, help="of both, for speed")
    options = parser.parse_args()
    DensityPeaks(density=KStarNN()).fit(mixture(200, 2)[0])  # imports are not timed
    if options.what == "speed":
        rows = speed(options.points or [5000, 20_000, 50_000], options.dimensions, options.threads)
    elif options.what == "figures":
        rows = figures()
    else:
        run, usual = {
            "accuracy": (accuracy, 10_000),
            "large": (large, 1_000_000),
            "stream": (stream, 1_000_000),
            "recall": (recall, 20_000),
        }[options.what]
        rows = run((options.points or [usual])[0])
    report = {
        "what": options.what,
        "versions": {
            "asenequip": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "threads": options.threads,
        "hardware": {"processors": os.cpu_count(), "machine": platform.machine()},
        "rows": rows,
    }
    if "dadapy" in sys.modules:
        from importlib.metadata import version

        report["versions"]["dadapy"] = version("dadapy")
    suffix = "" if options.threads == 1 else f"_{options.threads}_threads"
    target = HERE / "results" / f"cluster_{options.what}{suffix}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    main()
