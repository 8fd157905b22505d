"""Neighbours to density peaks with BMTI: seconds beside DADApy's in the same run, accuracy, size.

    python benchmarks/bench_cluster.py speed      # 5,000 / 20,000 / 50,000 points x 2 / 6 / 20 dimensions
    python benchmarks/bench_cluster.py accuracy   # normal mixtures in 2 to 20 dimensions, rotated; the 6-d double well
    python benchmarks/bench_cluster.py large      # a million points in 6 dimensions; 3,000 points of 1,000 coordinates

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
from pathlib import Path

import numpy as np
import scipy
import sklearn
from scipy.special import logsumexp

from asenequip import __version__
from asenequip.cluster import BMTI, DensityPeaks, KStarNN, PAk
from asenequip.cluster.landscape import bmti_landscape, survey
from asenequip.cluster.peaks import density_peaks

HERE = Path(__file__).resolve().parent


def mixture(n: int, d: int, seed: int = 0, centres: int = 5, reach: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Points of normal distributions of unit width and their exact log density."""
    generator = np.random.default_rng(seed)
    middle = generator.normal(size=(centres, d)) * reach / np.sqrt(d)
    points = middle[generator.integers(centres, size=n)] + generator.normal(size=(n, d))
    squares = np.stack([((points - m) ** 2).sum(-1) for m in middle], axis=1)
    return points, logsumexp(-0.5 * squares, axis=1) - 0.5 * d * np.log(2 * np.pi) - np.log(centres)


class Clock:
    """Seconds of named steps."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self.last = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.steps[name] = round(now - self.last, 3)
        self.last = now

    def total(self) -> float:
        return round(sum(self.steps.values()), 3)


def own(points: np.ndarray, max_neighbours: int | None, max_edges: int | None, sharpen: bool) -> dict:
    clock = Clock()
    found = survey(points, max_neighbours=max_neighbours)
    clock("neighbours, dimension, k*")
    found, iterations = bmti_landscape(found, max_edges=max_edges, sharpen=sharpen)
    clock("BMTI")
    hood = found.hood()
    peaks = density_peaks(found.log_density, found.error, hood.neighbours, hood.k_star)
    clock("peaks")
    return {"steps": clock.steps, "total": clock.total(), "clusters": len(peaks.centres), "iterations": iterations}


def peer(points: np.ndarray, solver: str) -> dict | None:
    try:
        from dadapy import Data
    except ImportError:
        return None
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clock = Clock()
        data = Data(points, maxk=100, n_jobs=os.cpu_count())
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
    return {"steps": clock.steps, "total": clock.total(), "clusters": int(data.N_clusters)}


def speed(sizes: list[int], dimensions: list[int], default_solver: bool) -> list[dict]:
    rows = []
    for n in sizes:
        for d in dimensions:
            points, _ = mixture(n, d)
            row: dict = {"points": n, "dimensions": d}
            row["own"] = own(points, 100, 40, True)
            row["own, every edge, not sharpened"] = own(points, 100, None, False)
            row["dadapy, conjugate gradients"] = peer(points, "sp_cg")
            if default_solver and n <= 5000:
                row["dadapy, default solver"] = peer(points, "sp_direct")
            for name in [key for key in row if key.startswith("dadapy") and row[key]]:
                row[f"ratio to {name}"] = round(row[name]["total"] / row["own"]["total"], 2)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def kde(points: np.ndarray) -> np.ndarray:
    """Log density of a normal kernel of the best of ten widths, by the true likelihood of held-out points."""
    from sklearn.neighbors import KernelDensity

    best = None
    for width in np.geomspace(0.05, 1.0, 10) * points.std():
        model = KernelDensity(bandwidth=width, rtol=1e-3).fit(points[::2])
        score = model.score(points[1::2][:500])
        if best is None or score > best[0]:
            best = (score, width)
    return KernelDensity(bandwidth=best[1], rtol=1e-3).fit(points).score_samples(points)


def accuracy(n: int) -> list[dict]:
    sets = {f"mixture, {d} dimensions": mixture(n, d, d) for d in (2, 6, 9, 20)}
    plane, truth = sets["mixture, 2 dimensions"]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0]
    sets["mixture, 2 dimensions, rotated into 20"] = (plane @ turn[:2], truth)
    data = os.environ.get("ASENEQUIP_DATA", str(HERE.parent.parent / "shared/data"))
    well = Path(data) / "density"
    if well.exists():
        table = np.loadtxt(well / "6d_double_well_logdensities_and_grads.txt.gz")[:n, 0]
        sets["6-d double well"] = (np.loadtxt(well / "6d_double_well.txt.gz")[:n], table)
    rows = []
    for name, (points, exact) in sets.items():
        row: dict = {"set": name, "points": len(points)}
        options = {"max_neighbours": 400}
        estimates = {
            "KStarNN": KStarNN(**options),
            "PAk": PAk(**options),
            "BMTI": BMTI(**options),
            "BMTI, alpha 0.99": BMTI(alpha=0.99, **options),
            "BMTI, identity weights": BMTI(weights="identity", **options),
            "BMTI, not sharpened": BMTI(sharpen=False, **options),
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


def large(n: int) -> list[dict]:
    rows = []
    for points in (np.random.default_rng(0).normal(size=(3000, 1000)), mixture(n, 6)[0]):
        row = {"points": len(points), "coordinates": points.shape[1], "own": own(points, None, 40, True)}
        row["peak memory, GiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "accuracy", "large"])
    parser.add_argument("--points", type=int, nargs="+")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 6, 20])
    parser.add_argument("--default-solver", action="store_true", help="time DADApy's own choice of solver too")
    options = parser.parse_args()
    DensityPeaks(density=KStarNN()).fit(mixture(200, 2)[0])  # imports are not timed
    if options.what == "speed":
        rows = speed(options.points or [5000, 20_000, 50_000], options.dimensions, options.default_solver)
    elif options.what == "accuracy":
        rows = accuracy((options.points or [10_000])[0])
    else:
        rows = large((options.points or [1_000_000])[0])
    report = {
        "what": options.what,
        "versions": {
            "asenequip": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "hardware": {"processors": os.cpu_count(), "machine": platform.machine()},
        "rows": rows,
    }
    if "dadapy" in sys.modules:
        from importlib.metadata import version

        report["versions"]["dadapy"] = version("dadapy")
    target = HERE / "results" / f"cluster_{options.what}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    main()
