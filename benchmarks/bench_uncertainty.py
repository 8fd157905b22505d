"""Last-layer uncertainty, measured.

    python benchmarks/bench_uncertainty.py rigidity --data FOLDER  # of a Li6PS5Cl potential, there and on Li metal
    python benchmarks/bench_uncertainty.py phases --data FOLDER --frames KEPT  # of potentials of twenty phases
    python benchmarks/bench_uncertainty.py cost                    # a force call with and without uncertainty

FOLDER holds the published sets lpscl, lips20 and mlearn_Li as extended XYZ, KEPT the potentials that "bench_active.py
pool" has kept. Results go to benchmarks/results/active_*.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read
from bench_active import VALID
from learning import RESULTS, emt, keep, published, small
from pools import published_frames

from asenequip import AllegroCalculator
from asenequip.train import fit
from asenequip.uncertainty import add_uncertainty, calibration_error, frame_deviation, rank_correlation
from asenequip.uncertainty.calibration import draw_reliability, reliability
from asenequip.uncertainty.features import force_jacobian

HOME = "Li6PS5Cl, 600 K"


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


def phases(options: argparse.Namespace) -> None:
    """How frames are ranked by error, with potentials of random frames of Li6PS5Cl, Li-P-S and lithium.

    The frames are those of the pool that were not taken when the potential of the second size was trained. "Compounds":
    without lithium metal, whose small errors any measure finds.
    """
    pool, _, _ = published_frames(options.data)
    record = json.loads((RESULTS / "active_pool.json").read_text())
    rows: list[dict[str, object]] = []
    for run in record["runs"]:
        if run["strategy"] == "random":
            calculator = AllegroCalculator(options.frames / run["models"][1], device="cpu")
            size = record["sizes"][1]
            valid = round(VALID * size)
            known = {*run["taken"][: size - valid], *run["fresh"][:valid]}
            rest = [pool[k] for k in range(0, len(pool), 5) if k not in known]
            rows += [{"seed": run["seed"], **row} for row in rank_frames(calculator, rest)]
    print(json.dumps(rows, indent=1))
    keep("phases", {"rank correlation with a frame's force rmse": rows})


def rank_frames(calculator: AllegroCalculator, frames: list[Atoms]) -> list[dict[str, object]]:
    """Correlations of the frames' force rmse with their deviations."""
    errors, posterior, largest = [], [], []
    for atoms in frames:
        errors.append(float(np.sqrt(np.mean((atoms.get_forces() - calculator.get_property("forces", atoms)) ** 2))))
        posterior.append(frame_deviation(calculator.evaluator, atoms))
        largest.append(calculator.uncertainty(atoms).max_force)
    compounds = np.array([set(atoms.symbols) != {"Li"} for atoms in frames])
    measures = {"deviation of the frame's forces": posterior, "largest deviation of an atom": largest}
    found = []
    for kind, mine in (("all", np.ones(len(frames), bool)), ("compounds", compounds)):
        row = {n: round(rank_correlation(np.array(errors)[mine], np.array(v)[mine]), 3) for n, v in measures.items()}
        found.append({"frames": kind, "count": int(mine.sum()), **row})
    return found


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
    parser.add_argument("what", choices=("rigidity", "phases", "cost"))
    parser.add_argument("--data", type=Path, help="folder of the published sets")
    parser.add_argument("--frames", type=Path, help="folder that keeps potentials between calls")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.frames = options.frames or Path(tempfile.mkdtemp())
    {"rigidity": rigidity, "phases": phases, "cost": cost}[options.what](options)


if __name__ == "__main__":
    main()
