"""asenequip against nequip-allegro, the same weights, one thread: ``python benchmarks/bench_peer.py``.

Needs an environment with nequip-allegro and asenequip. For each l_max a model is made by the reference's own commands
(nequip-train for one epoch, nequip-compile for its AOTInductor mode) and converted. All contenders then take turns on
the same structures, slightly displaced from call to call as in dynamics; the minimum over the turns counts. Each row
is one way to get energy and forces: of the bare model (edges given), or through the ASE calculator (edges found too).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from machine import processor

Run = Callable[[], np.ndarray]
Prepare = Callable[[Atoms], Run]
"""Takes a structure, untimed, and gives the call to be timed, which returns the forces (n, 3)."""
Calls = dict[tuple[str, str], Prepare]
"""By contender and path ("bare" or "ASE")."""
REFERENCE = "nequip-allegro eager"


def threads(number: int) -> None:
    """Start the script anew with so many threads of torch, before any library has started more.

    Where there are several, one that waits for another gives up its core: on a machine that does other work too,
    waiting in a loop takes longer than the work.
    """
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(number)) | {"OPENBLAS_NUM_THREADS": "1"}
    if number > 1:
        wanted["OMP_WAIT_POLICY"] = "passive"
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
    torch.set_num_threads(number)


def copper(seed: int, repeat: int = 3) -> Atoms:
    """Rattled fcc copper, 108 atoms by default: 43 neighbours on average within 5 Angstrom."""
    atoms = bulk("Cu", cubic=True).repeat(repeat)
    atoms.positions += np.random.default_rng(seed).normal(0.0, 0.05, atoms.positions.shape)
    return atoms


def labelled(count: int) -> list[Atoms]:
    """Small structures to train on: what the models learn is of no consequence here."""
    out = [copper(seed, repeat=2) for seed in range(count)]
    for atoms in out:
        atoms.calc = EMT()
        atoms.get_stress()
    return out


def make_models(folder: Path, compiled: bool, frames: list[Atoms], **shape: Any) -> tuple[Path, Path | None, Path]:
    """Checkpoint, AOTInductor model and converted potential; kept in ``folder`` from run to run."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "peer"))
    from peer_training import compile_model, train

    from asenequip.convert import convert

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "run" / "best.ckpt"
    if not checkpoint.is_file():
        options = {
            "model_dtype": "float32",
            "r_max": 5.0,
            "num_layers": 2,
            "num_scalar_features": 64,
            "num_tensor_features": 32,
            "radial_chemical_embed": {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed"},
            **shape,
        }
        train(folder, frames, epochs=1, **options)
    package: Path | None = checkpoint.with_name("compiled.nequip.pt2")
    if package is not None and not package.is_file():
        package = compile_model(checkpoint) if compiled else None
    potential = folder / "model.asnq"
    if not potential.is_file():
        convert(checkpoint, potential, trust_pickle=True)
    return checkpoint, package, potential


def reference_calls(checkpoint: Path, package: Path | None) -> Calls:
    """The reference's modes."""
    from nequip.integrations.ase import NequIPCalculator

    eager = NequIPCalculator._from_saved_model(str(checkpoint), chemical_species_to_atom_type_map=True)
    calculators = {REFERENCE: eager}
    if package is not None:
        calculators["nequip-allegro AOTInductor"] = NequIPCalculator.from_compiled_model(
            str(package), device="cpu", chemical_species_to_atom_type_map=True
        )
    calls: Calls = {}
    for name, calculator in calculators.items():
        calls[name, "ASE"] = through_ase(calculator)
        calls[name, "bare"] = reference_model(calculator)
    return calls


def through_ase(calculator: Any, backend: str = "auto") -> Prepare:
    from asenequip.kernels.ops import use_backend

    def prepare(atoms: Atoms) -> Run:
        mine = atoms.copy()
        mine.calc = calculator

        def run() -> np.ndarray:
            with use_backend(backend):  # type: ignore[arg-type]
                mine.get_potential_energy()
                return mine.get_forces()

        return run

    return prepare


def reference_model(calculator: Any) -> Prepare:
    def prepare(atoms: Atoms) -> Run:
        data = calculator.atoms_to_data(atoms)
        return lambda: calculator.call_model(dict(data))["forces"].detach().numpy()

    return prepare


def our_model(model: Any, backend: str) -> Prepare:
    from asenequip.graph import graph_of
    from asenequip.kernels.ops import use_backend
    from asenequip.model.derivatives import evaluate_derivatives

    cutoffs = np.asarray(model.spec.cutoff_table())

    def prepare(atoms: Atoms) -> Run:
        graph = graph_of(atoms, model.spec.type_names, cutoffs)

        def run() -> np.ndarray:
            with use_backend(backend):  # type: ignore[arg-type]
                return evaluate_derivatives(model, graph).forces.detach().numpy()

        return run

    return prepare


def our_calls(potential: Path) -> Calls:
    """Ours: the eager network with plain torch operations or with kernels, and what the calculator does by default."""
    from asenequip.artifact import load_artifact
    from asenequip.calculator import AllegroCalculator
    from asenequip.evaluate import Evaluator

    model = load_artifact(potential, dtype="float32").model
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
    calls: Calls = {}
    for name, backend in (("torch operations", "plain"), ("kernels", "auto")):
        calculator = AllegroCalculator(potential, **options)
        calculator.evaluator = Evaluator(potential, compiled=False, **options)
        calls[f"asenequip eager, {name}", "ASE"] = through_ase(calculator, backend)
        calls[f"asenequip eager, {name}", "bare"] = our_model(model, backend)
    default = AllegroCalculator(potential, **options)
    engine = "eager" if default.evaluator.engine is None else "fused"
    calls[f"asenequip default ({engine})", "ASE"] = through_ase(default)
    return calls


def measure(calls: Calls, repeats: int) -> tuple[dict[tuple[str, str], dict[str, float]], float]:
    """Least wall and processor time of each contender, seconds, and the largest difference of forces, eV/Angstrom."""
    atoms = copper(100)
    rng = np.random.default_rng(0)
    best = {key: {"wall": np.inf, "cpu": np.inf} for key in calls}
    apart = 0.0
    for turn in range(repeats + 2):  # two turns to warm up
        atoms.positions += rng.normal(0.0, 0.002, atoms.positions.shape)
        forces = []
        for key, prepare in calls.items():
            run = prepare(atoms)
            wall, cpu = time.perf_counter(), time.process_time()
            forces.append(run())
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn >= 2:
                best[key] = {"wall": min(best[key]["wall"], wall), "cpu": min(best[key]["cpu"], cpu)}
        apart = max(apart, *(float(np.abs(f - forces[0]).max()) for f in forces))
    return best, apart


def hardware() -> dict[str, Any]:
    """Machine and library versions."""
    packages = ("asenequip", "nequip", "nequip-allegro", "torch", "e3nn", "ase", "numpy", "vesin", "matscipy")
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "openmp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": versions,
    }


def table(l_max: int, best: dict[tuple[str, str], dict[str, float]], num_atoms: int) -> list[dict[str, Any]]:
    """Print the rows of one l_max and return them; ratios are to the reference's eager mode on the same path."""
    rows = []
    for (name, path), seconds in sorted(best.items(), key=lambda item: (item[0][1], -item[1]["cpu"])):
        row: dict[str, Any] = {"l_max": l_max, "contender": name, "path": path}
        for clock in ("wall", "cpu"):
            row[f"{clock}_ms_per_atom"] = 1e3 * seconds[clock] / num_atoms
            row[f"{clock}_ratio"] = best[REFERENCE, path][clock] / seconds[clock]
        rows.append(row)
        print(
            f"{l_max:5d}  {path:5s} {name:36s}{row['wall_ms_per_atom']:10.3f}{row['wall_ratio']:8.1f}"
            f"{row['cpu_ms_per_atom']:12.3f}{row['cpu_ratio']:8.1f}",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--l-max", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--no-aotinductor", action="store_true", help="leave out the reference's compiled mode")
    parser.add_argument("--models", type=Path, help="folder that keeps the models from run to run")
    parser.add_argument("--prepare-only", action="store_true", help="make the models and stop")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "peer.json")
    options = parser.parse_args()
    threads(1)
    warnings.filterwarnings("ignore")
    models = options.models or Path(tempfile.mkdtemp(prefix="asenequip-bench-"))
    made = {l: make_models(models / f"l{l}", not options.no_aotinductor, labelled(4), l_max=l) for l in options.l_max}
    if options.prepare_only:
        return
    machine = hardware()
    print(json.dumps(machine))
    print("108 Cu, 5 Angstrom, L 2, U 32, S 64, float32, one thread, energy and forces; least of the turns")
    print("l_max  path  contender                           wall ms/atom  ratio cpu ms/atom   ratio")
    rows: list[dict[str, Any]] = []
    differences = {}
    for l_max, (checkpoint, package, potential) in made.items():
        calls = {**reference_calls(checkpoint, package), **our_calls(potential)}
        best, differences[l_max] = measure(calls, options.repeats)
        rows += table(l_max, best, len(copper(0)))
    print("largest difference of forces among all contenders, eV/A:", {l: f"{d:.1e}" for l, d in differences.items()})
    machine["load_after"] = os.getloadavg()[0]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine, "repeats": options.repeats, "force_differences": differences, "rows": rows}
    options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
