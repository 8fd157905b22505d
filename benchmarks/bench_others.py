"""What a user would take instead: MACE and SevenNet at their published sizes, through ASE, beside asenequip.

``python benchmarks/bench_others.py --mace PYTHON --sevenn PYTHON [--rounds 2]``: each PYTHON is the interpreter of an
environment in which that package is installed, as their dependencies exclude one another; one that is left out is left
out of the table. Energy and forces of 32 and 256 copper atoms and of a 416-atom frame of Li6PS5Cl, float32, one thread,
atoms displaced from call to call. Each contender runs in a process of its own, in ``--rounds`` turns; the least
processor time counts. The cost does not depend on the weights: MACE's are random, at the sizes of MACE-MP-0
(arXiv:2401.00096); SevenNet's are those that its package holds. Each has the cutoff it was published with, so
neighbours are told too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io import read
from ase.neighborlist import neighbor_list

PINNED = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
MACE = {"MACE-MP-0 small": "128x0e", "MACE-MP-0 medium": "128x0e + 128x1o"}
SEVENNET = {"SevenNet-0": "7net-0", "SevenNet-l3i5": "7net-l3i5"}
LARGE = {"l_max": 3, "num_tensor_features": 64, "two_body_width": 256, "two_body_depth": 2}
LARGE |= {"latent_width": 256, "latent_depth": 2, "readout_width": 256}
OURS: dict[str, dict[str, Any]] = {
    "asenequip, l_max 2 U 32 S 64, 5 A": {"cutoff": 5.0},
    "asenequip, l_max 3 U 64 S 64, MLP 2x256, 5 A": {"cutoff": 5.0, **LARGE},
    "asenequip, l_max 3 U 64 S 64, MLP 2x256, 6 A": {"cutoff": 6.0, **LARGE},
}


def frames() -> dict[str, Atoms]:
    """The structures, displaced a little."""
    sample = Path(__file__).parents[1] / "asenequip" / "data" / "li6ps5cl_gfn1.extxyz.gz"
    named = {"32 Cu": bulk("Cu", cubic=True) * 2, "256 Cu": bulk("Cu", cubic=True) * 4}
    named["416 Li6PS5Cl"] = read(sample, index=0) * 2
    for atoms in named.values():
        atoms.calc = None
        atoms.positions += np.random.default_rng(0).normal(0.0, 0.05, atoms.positions.shape)
    return named


def make(contender: str, symbols: list[str]) -> tuple[Any, float, int]:
    """Calculator, cutoff in Angstrom, and number of weights."""
    import torch

    if contender in MACE:
        return _mace(MACE[contender], symbols)
    if contender in SEVENNET:
        from sevenn.calculator import SevenNetCalculator

        calculator = SevenNetCalculator(SEVENNET[contender], device="cpu")
        return calculator, float(calculator.cutoff), sum(w.numel() for w in calculator.model.parameters())
    from asenequip.artifact import save_artifact
    from asenequip.calculator import AllegroCalculator
    from asenequip.model.allegro import Allegro
    from asenequip.model.spec import AllegroSpec

    options = dict(OURS[contender])
    cutoff = options.pop("cutoff")
    neighbors = (43.0 * (cutoff / 5.0) ** 3,) * len(symbols)
    model = Allegro(AllegroSpec(tuple(symbols), cutoff, avg_num_neighbors=neighbors, **options))
    with tempfile.TemporaryDirectory() as folder:
        calculator = AllegroCalculator(save_artifact(f"{folder}/m.asnq", model), device="cpu", dtype="float32")
    torch.set_num_threads(1)
    return calculator, cutoff, sum(w.numel() for w in model.parameters())


def _mace(irreps: str, symbols: list[str]) -> tuple[Any, float, int]:
    import mace  # noqa: F401  first: it lets an old e3nn read its own constants
    import torch
    from ase.data import atomic_numbers
    from e3nn.o3 import Irreps
    from mace.calculators import MACECalculator
    from mace.modules import ScaleShiftMACE
    from mace.modules.blocks import RealAgnosticResidualInteractionBlock as Interaction

    torch.manual_seed(0)
    numbers = sorted(atomic_numbers[symbol] for symbol in symbols)
    model = ScaleShiftMACE(
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
        r_max=6.0,
        num_bessel=10,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=Interaction,
        interaction_cls_first=Interaction,
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=Irreps(irreps),
        MLP_irreps=Irreps("16x0e"),
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=60.0,
        atomic_numbers=numbers,
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
    )
    calculator = MACECalculator(models=[model.float()], device="cpu", default_dtype="float32")
    return calculator, 6.0, sum(w.numel() for w in model.parameters())


def one(contender: str, frame: str, seconds: float) -> dict[str, Any]:
    """Least time of a call that gives energy and forces, on the clock and of the processor, in this process."""
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    atoms = frames()[frame]
    calculator, cutoff, weights = make(contender, sorted(set(atoms.symbols)))
    atoms.calc = calculator
    rng = np.random.default_rng(1)
    best, best_cpu, begun, calls = np.inf, np.inf, time.perf_counter(), 0
    while calls < 3 or time.perf_counter() - begun < seconds:
        atoms.positions += rng.normal(0.0, 0.002, atoms.positions.shape)
        start, start_cpu = time.perf_counter(), time.process_time()
        atoms.get_potential_energy()
        atoms.get_forces()
        if calls > 0:
            best, best_cpu = min(best, time.perf_counter() - start), min(best_cpu, time.process_time() - start_cpu)
        calls += 1
    return {
        "contender": contender,
        "frame": frame,
        "ms_per_atom": 1e3 * best / len(atoms),
        "cpu_ms_per_atom": 1e3 * best_cpu / len(atoms),
        "cutoff": cutoff,
        "neighbours": len(neighbor_list("i", atoms, cutoff)) / len(atoms),
        "weights": weights,
        "calls": calls,
    }


def versions(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    text = "import importlib.metadata as m, json, sys; print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    done = subprocess.run([python, "-c", text, *packages], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def run(python: str, contender: str, frame: str, seconds: float) -> dict[str, Any]:
    command = [python, __file__, "--one", contender, frame, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **PINNED}, check=False)
    if done.returncode:
        raise RuntimeError(f"{contender} on {frame} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mace", help="Python interpreter with mace-torch")
    parser.add_argument("--sevenn", help="Python interpreter with sevenn")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="least time of each run")
    parser.add_argument("--frames", nargs="+", default=["32 Cu", "256 Cu", "416 Li6PS5Cl"])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "others.json")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one, options.seconds)))
        return
    contenders: dict[str, str] = dict.fromkeys(OURS, sys.executable)
    contenders |= {name: options.mace for name in MACE if options.mace}
    contenders |= {name: options.sevenn for name in SEVENNET if options.sevenn}
    from bench_peer import hardware

    machine = hardware()
    for python, packages in (
        (options.mace, ("mace-torch", "e3nn", "torch")),
        (options.sevenn, ("sevenn", "e3nn", "torch")),
    ):
        if python:
            machine[packages[0]] = versions(python, packages)
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in range(options.rounds):
        for frame in options.frames:
            for contender, python in contenders.items():
                row = run(python, contender, frame, options.seconds)
                known = best.get((frame, contender), row)
                best[frame, contender] = min(known, row, key=lambda r: r["cpu_ms_per_atom"])
                print(f"{frame}, {contender}: {row['cpu_ms_per_atom']:.4f} ms per atom", flush=True)
    print(f"{'frame':14s}{'contender':48s}{'weights':>9s}{'neighbours':>11s}{'ms per atom':>12s}")
    for (frame, contender), row in best.items():
        print(f"{frame:14s}{contender:48s}{row['weights']:9d}{row['neighbours']:11.1f}{row['cpu_ms_per_atom']:12.4f}")
    machine["load_after"] = os.getloadavg()[0]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine, "rows": list(best.values())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
