"""One training step against nequip-allegro: ``python benchmarks/bench_training.py --l-max 2 3 --compiled --profile``.

Needs an environment with nequip-allegro and asenequip. Both take the same batch of rattled copper (two frames of 108
atoms, 43 neighbours within 5 Angstrom), the same weights (read from the reference's model) and the same loss on energy
per atom and forces; a step is the loss and its gradients with respect to all weights, one thread, float32. They take
turns; the minimum over the turns counts, wall and processor time. The losses are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

CUTOFF = 5.0
LOSS_AGREEMENT = 1e-3
"""Relative: float32 networks."""

Step = Callable[[], float]


def one_thread() -> None:
    """Start the script anew with one thread, before any library has started more."""
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})
    torch.set_num_threads(1)


def labelled_copper(seed: int) -> Atoms:
    atoms = bulk("Cu", cubic=True).repeat(3)
    atoms.positions += np.random.default_rng(seed).normal(0.0, 0.1, atoms.positions.shape)
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def reference_model(l_max: int, compile_mode: str) -> Any:
    from allegro.model import AllegroModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    return AllegroModel(
        seed=0,
        model_dtype="float32",
        compile_mode=compile_mode,
        type_names=["Cu"],
        r_max=CUTOFF,
        l_max=l_max,
        parity=True,
        num_layers=2,
        num_scalar_features=64,
        num_tensor_features=32,
        radial_chemical_embed={"_target_": "allegro.nn.TwoBodyBesselScalarEmbed"},
        scalar_embed_mlp_hidden_layers_width=64,
        allegro_mlp_hidden_layers_width=64,
        readout_mlp_hidden_layers_width=32,
        avg_num_neighbors=43.0,
        per_type_energy_scales={"Cu": 0.1},
        per_type_energy_shifts={"Cu": 0.0},
    )


def reference_step(model: Any, frames: list[Atoms]) -> Step:
    from nequip.data import AtomicDataDict, from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform

    mapper, neighbors = ChemicalSpeciesToAtomTypeMapper(model_type_names=["Cu"]), NeighborListTransform(r_max=CUTOFF)
    data = AtomicDataDict.batched_from_list([neighbors(mapper(from_ase(atoms))) for atoms in frames])
    forces = torch.from_numpy(np.concatenate([atoms.get_forces() for atoms in frames]))
    energies = torch.tensor([atoms.get_potential_energy() for atoms in frames], dtype=torch.float64)
    count = len(frames[0])
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()

    def step() -> float:
        out = model(dict(data))
        error = (out[AtomicDataDict.TOTAL_ENERGY_KEY].flatten() - energies) / count
        loss = (error**2).mean() + ((out[AtomicDataDict.FORCE_KEY] - forces) ** 2).mean()
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        return float(loss.detach())

    return step


def our_steps(reference: Any, frames: list[Atoms], compiled: bool) -> dict[str, Step]:
    from asenequip.convert.extract.main import extract
    from asenequip.convert.run import build
    from asenequip.train.config import Dataset, Loss
    from asenequip.train.data import collate, make_samples, take_labels
    from asenequip.train.loss import LossFunction
    from asenequip.train.step import compiled_step, eager_step

    model = build(*extract(reference, seed=0)).to(torch.float32)
    model.requires_grad_(True)
    for name in ("scales", "shifts"):
        getattr(model, name).requires_grad_(False)
    labelled = [take_labels(atoms, Dataset(path="x"), "x") for atoms in frames]
    samples = make_samples(labelled, ["Cu"], np.full((1, 1), CUTOFF))
    batch = collate(samples)
    loss = LossFunction(Loss(energy=1.0, forces=1.0, stress=0.0), ["Cu"])
    divisors, coefficients = loss.divisors(samples), loss.coefficients(1.0)
    steps = {"asenequip eager": eager_step(model, loss)}
    if compiled:
        steps["asenequip compiled"] = compiled_step(model, loss, [(batch, divisors)])

    def timed(step: Any) -> Step:
        return lambda: float(step(batch, divisors, coefficients).loss)

    return {name: timed(step) for name, step in steps.items()}


def print_profile(name: str, step: Step, rows: int = 10) -> None:
    """The operators that take most of the processor's time in one step, each without what it calls."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    found = sorted(profile.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in found)
    print(f"       profile of {name}: share of {total / 1e3:.0f} ms, calls")
    for row in found[:rows]:
        print(f"       {row.self_cpu_time_total / total:6.1%} {row.count:6d}  {row.key[:80]}")


def measure(steps: dict[str, Step], repeats: int) -> dict[str, dict[str, float]]:
    losses = {name: step() for name, step in steps.items()}
    first = next(iter(losses.values()))
    for name, value in losses.items():
        if abs(value - first) > LOSS_AGREEMENT * abs(first):
            raise SystemExit(f"{name} has the loss {value}, the first contender {first}: not the same model.")
    best = {name: {"wall": np.inf, "cpu": np.inf} for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            best[name] = {"wall": min(best[name]["wall"], wall), "cpu": min(best[name]["cpu"], cpu)}
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--l-max", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="also both packages' compiled steps (minutes each)")
    parser.add_argument("--profile", action="store_true", help="what the eager step spends its time on")
    parser.add_argument("--json", help="write the numbers to this new file")
    options = parser.parse_args()
    one_thread()
    frames = [labelled_copper(seed) for seed in (0, 1)]
    count = sum(map(len, frames))
    versions = {name: version(name) for name in ("asenequip", "nequip", "nequip-allegro", "torch")}
    print(f"{platform.processor() or platform.machine()}, one thread, {versions}")
    print(f"{'l_max':>5}  {'step':<28}{'wall ms/atom':>13}{'cpu ms/atom':>13}{'ratio wall':>12}{'ratio cpu':>11}")
    record = []
    for l_max in options.l_max:
        reference = reference_model(l_max, "eager")
        ours = our_steps(reference_model(l_max, "eager"), frames, options.compiled)  # reading takes it to float64
        steps = {"nequip-allegro eager": reference_step(reference, frames)}
        if options.compiled:
            steps["nequip-allegro compiled"] = reference_step(reference_model(l_max, "compile"), frames)
        best = measure({**steps, **ours}, options.repeats)
        fastest = {kind: min(best[name][kind] for name in steps) for kind in ("wall", "cpu")}
        for name, times in best.items():
            per_atom = {kind: 1e3 * value / count for kind, value in times.items()}
            ratio = {kind: fastest[kind] / value for kind, value in times.items()}
            print(
                f"{l_max:5d}  {name:<28}{per_atom['wall']:13.3f}{per_atom['cpu']:13.3f}"
                f"{ratio['wall']:12.2f}{ratio['cpu']:11.2f}",
                flush=True,
            )
            record.append({"l_max": l_max, "step": name, **times, "atoms": count})
        if options.profile:
            print_profile("asenequip eager", ours["asenequip eager"])
    if options.json:
        with open(options.json, "x") as stream:
            json.dump({"versions": versions, "rows": record}, stream, indent=1)


if __name__ == "__main__":
    main()
