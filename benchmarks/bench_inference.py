"""Energy and forces through the ASE calculators at several sizes and shapes, beside nequip-allegro's best mode.

``python benchmarks/bench_inference.py [--threads 1] [--models FOLDER]`` in an environment with nequip-allegro. The
same weights (made by the reference's own commands, then converted), float32, the same structures, slightly displaced
from call to call; contenders take turns and the least time of each counts. "floor" is the time that the scalar
networks' matrix products would take at the machine's measured rate of dense products, forward and back, without any of
the identities that make them smaller: what an evaluation edge by edge cannot go below.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from bench_peer import REFERENCE, Calls, copper, hardware, labelled, make_models, our_calls, reference_calls, threads

SHAPES: dict[str, dict[str, Any]] = {f"l{l}": {"l_max": l} for l in (1, 2, 3)}
SHAPES["spice-medium"] = {
    "l_max": 3,
    "num_tensor_features": 64,
    "scalar_embed_mlp_hidden_layers_depth": 2,
    "scalar_embed_mlp_hidden_layers_width": 256,
    "allegro_mlp_hidden_layers_depth": 2,
    "allegro_mlp_hidden_layers_width": 256,
    "readout_mlp_hidden_layers_width": 256,
}
SHAPES["electrolyte"] = {"l_max": 2}


def electrolyte() -> Atoms:
    """Li6PS5Cl, 416 atoms: a frame of the shipped data, doubled along each axis."""
    path = Path(__file__).parents[1] / "asenequip" / "data" / "li6ps5cl_gfn1.extxyz.gz"
    frame = read(path, index=0)
    return frame * (2, 2, 2)


def electrolyte_frames() -> list[Atoms]:
    path = Path(__file__).parents[1] / "asenequip" / "data" / "li6ps5cl_gfn1.extxyz.gz"
    return read(path, index=":4")


def structure(name: str, atoms: int) -> Atoms:
    if name == "electrolyte":
        return electrolyte()
    if atoms < 108:  # the cell of 32 atoms is smaller than twice the cutoff: images count
        return copper(100, repeat=2)
    return copper(100, repeat=round((atoms / 4) ** (1 / 3)))


def measure(calls: Calls, atoms: Atoms, seconds: float) -> tuple[dict[str, dict[str, float]], float]:
    """Least wall and processor seconds of each contender through ASE, and the largest difference of forces."""
    rng = np.random.default_rng(0)
    best: dict[str, dict[str, float]] = {}
    apart, start, turn = 0.0, time.perf_counter(), 0
    while turn < 4 or (time.perf_counter() - start < seconds and turn < 60):
        atoms.positions += rng.normal(0.0, 0.002, atoms.positions.shape)
        forces = []
        for (name, path), prepare in calls.items():
            if path != "ASE":
                continue
            run = prepare(atoms)
            wall, cpu = time.perf_counter(), time.process_time()
            forces.append(run())
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn > 0:
                old = best.get(name, {"wall": np.inf, "cpu": np.inf})
                best[name] = {"wall": min(old["wall"], wall), "cpu": min(old["cpu"], cpu)}
        apart = max(apart, *(float(np.abs(f - forces[0]).max()) for f in forces))
        turn += 1
    return best, apart


def product_rate(repeats: int = 30) -> float:
    """Multiply-adds per second of a core in dense float32 products as the network has them, (4096, 64) by (64, 64)."""
    a, b = torch.randn(4096, 64), torch.randn(64, 64)
    out = torch.empty(4096, 64)
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(20):
            torch.mm(a, b, out=out)
        best = min(best, (time.process_time() - start) / 20)
    return 4096 * 64 * 64 / best


def products_per_edge(potential: Path) -> int:
    """Multiply-adds of all scalar networks for one edge, forward."""
    from asenequip.artifact import load_artifact

    model = load_artifact(potential).model
    weights = [w for name, w in model.named_parameters() if w.dim() == 2 and ".weights." in name]
    return sum(w.numel() for w in weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", type=Path, help="folder that keeps the models from run to run")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--atoms", type=int, nargs="+", default=[32, 256, 2048], help="of the copper shapes")
    parser.add_argument("--seconds", type=float, default=20.0, help="about how long each row takes")
    parser.add_argument("--prepare-only", action="store_true")
    parser.add_argument("--output", type=Path, help="results/inference.json, or inference_2_threads.json and so on")
    options = parser.parse_args()
    if options.output is None:
        name = "inference" if options.threads == 1 else f"inference_{options.threads}_threads"
        options.output = Path(__file__).parent / "results" / f"{name}.json"
    threads(options.threads)
    warnings.filterwarnings("ignore")
    folder = options.models or Path(tempfile.mkdtemp(prefix="asenequip-bench-"))
    made = {}
    for name in options.shapes:
        frames = electrolyte_frames() if name == "electrolyte" else labelled(4)
        made[name] = make_models(folder / name, True, frames, **SHAPES[name])
    if options.prepare_only:
        return
    machine, rate = hardware(), product_rate()
    print(json.dumps(machine), f"\ndense products: {2e-9 * rate:.0f} GFLOP/s a core, {options.threads} thread(s)")
    print(
        f"{'shape':13s}{'atoms':>6s}  {'contender':36s}{'wall us/atom':>13s}{'cpu us/atom':>12s}{'times faster':>13s}"
    )
    rows: list[dict[str, Any]] = []
    for name, (checkpoint, package, potential) in made.items():
        calls = {**reference_calls(checkpoint, package), **our_calls(potential)}
        calls = {key: call for key, call in calls.items() if "eager, torch" not in key[0]}
        for wanted in [416] if name == "electrolyte" else options.atoms:
            atoms = structure(name, wanted)
            # the reference's eager mode is the slower one by far: at one size it shows that
            taking = {key: call for key, call in calls.items() if wanted <= 32 or key[0] != REFERENCE}
            best, apart = measure(taking, atoms, options.seconds)
            peer = {
                clock: min(t[clock] for c, t in best.items() if c.startswith("nequip")) for clock in ("wall", "cpu")
            }
            edges = _edges(potential, atoms)
            floor = 2 * products_per_edge(potential) * edges / (options.threads * rate)
            for contender, seconds in best.items():
                row = {
                    "shape": name,
                    "atoms": len(atoms),
                    "edges_per_atom": edges / len(atoms),
                    "contender": contender,
                    "wall_us_per_atom": 1e6 * seconds["wall"] / len(atoms),
                    "cpu_us_per_atom": 1e6 * seconds["cpu"] / len(atoms),
                    "times_faster_than_best_peer_mode_cpu": peer["cpu"] / seconds["cpu"],
                    "times_faster_than_best_peer_mode_wall": peer["wall"] / seconds["wall"],
                    "floor_us_per_atom": 1e6 * floor / len(atoms),
                    "largest_force_difference": apart,
                }
                rows.append(row)
                print(
                    f"{name:13s}{len(atoms):6d}  {contender:36s}{row['wall_us_per_atom']:13.1f}"
                    f"{row['cpu_us_per_atom']:12.1f}{row['times_faster_than_best_peer_mode_wall']:13.1f}",
                    flush=True,
                )
            print(f"{'':21s}forces agree to {apart:.1e} eV/A; floor {1e6 * floor / len(atoms):.1f} us/atom", flush=True)
    machine["load_after"] = os.getloadavg()[0]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine, "threads": options.threads, "gflops": 2e-9 * rate, "rows": rows}
    options.output.write_text(json.dumps(record, indent=1) + "\n")


def _edges(potential: Path, atoms: Atoms) -> int:
    from asenequip.artifact import load_artifact
    from asenequip.graph import graph_of

    spec = load_artifact(potential).spec
    return graph_of(atoms, spec.type_names, np.asarray(spec.cutoff_table())).num_edges


if __name__ == "__main__":
    main()
