"""One training step against nequip-allegro: ``python benchmarks/bench_training.py --l-max 2 --compiled``.

Needs an environment with nequip-allegro and asenequip. Both take the same batch of rattled copper (two frames of 108
atoms, 43 neighbours within 5 Angstrom), the same weights (read from the reference's model) and the same loss on energy
per atom and forces; a step is the loss and its gradients with respect to all weights, one thread, float32. They take
turns; the minimum over the turns counts, wall and processor time. The losses are compared before anything is timed.
Then the eager step is profiled. The record keeps what it has of other l_max, where the versions are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from bench_peer import hardware, threads

CUTOFF = 5.0
SHAPE = {"num_layers": 2, "num_scalar_features": 64, "num_tensor_features": 32}
REFERENCE, OURS = "nequip-allegro", "asenequip"
MODES = {"eager": " eager", "compile": " compiled"}
LOSS_AGREEMENT = 1e-3
"""Relative: float32 networks."""
PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::matmul"),
    "kernels of the tensor track": ("asenequip", "_Differentiable"),
}
"""Parts of a step's time, by how the names of their operators begin."""
REST = "elementwise and the rest"

Step = Callable[[], float]


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
        **SHAPE,
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


def our_step(reference: Any, frames: list[Atoms], compiled: bool) -> Step:
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
    step = compiled_step(model, loss, [(batch, divisors)]) if compiled else eager_step(model, loss)
    return lambda: float(step(batch, divisors, coefficients).loss)


def contenders(l_max: int, frames: list[Atoms], compiled: bool) -> dict[str, Callable[[], Step]]:
    """What makes each step; ours reads a reference model of its own, because reading takes it to float64."""
    made = {}
    for mode in ("eager", "compile") if compiled else ("eager",):
        made[REFERENCE + MODES[mode]] = lambda m=mode: reference_step(reference_model(l_max, m), frames)
        made[OURS + MODES[mode]] = lambda m=mode: our_step(reference_model(l_max, "eager"), frames, m == "compile")
    return made


def profile(step: Step, rows: int = 10) -> dict[str, Any]:
    """Where the processor's time of one step goes: shares of the parts, and of the operators that take most."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        step()
    operators = sorted(found.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in operators)
    parts = dict.fromkeys([*PARTS, REST], 0.0)
    for row in operators:
        part = next((name for name, starts in PARTS.items() if row.key.startswith(starts)), REST)
        parts[part] += row.self_cpu_time_total / total
    most = [
        {"operator": row.key[:80], "calls": row.count, "share": row.self_cpu_time_total / total}
        for row in operators[:rows]
    ]
    return {"parts": parts, "operators": most}


def measure(makers: dict[str, Callable[[], Step]], repeats: int) -> tuple[dict[str, Step], dict[str, dict[str, float]]]:
    """Each step, and its least wall and processor seconds."""
    steps = {name: make() for name, make in makers.items()}
    losses = {name: step() for name, step in steps.items()}
    best = {name: {"wall": np.inf, "cpu": np.inf} for name in steps}
    first = next(iter(losses.values()))
    for name, value in losses.items():
        if abs(value - first) > LOSS_AGREEMENT * abs(first):
            raise SystemExit(f"{name} has the loss {value}, the first contender {first}: not the same model.")
    for _ in range(repeats):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            best[name] |= {"wall": min(best[name]["wall"], wall), "cpu": min(best[name]["cpu"], cpu)}
    return steps, best


def compare(l_max: int, frames: list[Atoms], compiled: bool, repeats: int) -> dict[str, Any]:
    """Rows of all contenders for one l_max, printed too, and the profile of our eager step."""
    steps, best = measure(contenders(l_max, frames, compiled), repeats)
    rows = []
    for name, seconds in best.items():
        row: dict[str, Any] = {"contender": name}
        for clock in ("wall", "cpu"):
            peer = min(found[clock] for contender, found in best.items() if contender.startswith(REFERENCE))
            row[f"{clock}_ms_per_atom"] = 1e3 * seconds[clock] / sum(map(len, frames))
            row[f"times_faster_than_best_peer_mode_{clock}"] = peer / seconds[clock]
        rows.append(row)
        print(
            f"{l_max:5d}  {name:<28}{row['wall_ms_per_atom']:13.3f}{row['cpu_ms_per_atom']:13.3f}"
            f"{row['times_faster_than_best_peer_mode_wall']:12.2f}{row['times_faster_than_best_peer_mode_cpu']:11.2f}",
            flush=True,
        )
    found = profile(steps[OURS + MODES["eager"]])
    print(
        "       our eager step:", ", ".join(f"{part} {share:.0%}" for part, share in found["parts"].items()), flush=True
    )
    return {"rows": rows, "profile": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--l-max", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="also both packages' compiled steps (minutes each)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "training.json")
    options = parser.parse_args()
    threads(1)
    frames = [labelled_copper(seed) for seed in (0, 1)]
    machine = hardware()
    known = json.loads(options.output.read_text()) if options.output.is_file() else {}
    same = known.get("machine", {}).get("versions") == machine["versions"]
    record: dict[str, Any] = {"threads": 1, "shape": SHAPE, "l_max": known["l_max"] if same else {}}
    print(json.dumps(machine))
    print(f"{'l_max':>5}  {'step':<28}{'wall ms/atom':>13}{'cpu ms/atom':>13}{'ratio wall':>12}{'ratio cpu':>11}")
    for l_max in options.l_max:
        found = compare(l_max, frames, options.compiled, options.repeats)
        found["command"] = " ".join(["python benchmarks/bench_training.py", *sys.argv[1:]])
        record["l_max"] = dict(sorted({**record["l_max"], str(l_max): found}.items()))
        record["machine"] = {**machine, "load_after": os.getloadavg()[0]}
        options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
