"""Steps per second of the path that stays on a device, from 64 to a million atoms, with and without captured steps.

``python benchmarks/bench_device.py [--device cuda] [--dtype float32]`` evaluates copper (5 Angstrom, 43 neighbours,
l_max 2, U 32, S 64, untrained: the cost does not depend on the weights), atoms displaced from call to call so that
positions go over and the list is looked at, until a size does not fit. A row whose step is captured has at most 200,000
candidate edges. ``--device cpu`` runs the same code on CPU tensors, to see that it works. Writes
``results/device_DEVICE.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

SIZES = (64, 500, 4000, 32_000, 256_000, 1_000_000)


def copper(atoms: int) -> Atoms:
    """A displaced crystal of about as many atoms."""
    made = bulk("Cu", cubic=True) * max(1, round((atoms / 4) ** (1 / 3)))
    made.rattle(0.05, seed=0)
    return made


def measure(evaluator: Any, atoms: Atoms, seconds: float) -> dict[str, float]:
    """First and least time of an evaluation."""
    rng, begun = np.random.default_rng(0), time.perf_counter()
    evaluator.evaluate([atoms])
    first, best, calls = time.perf_counter() - begun, np.inf, 0
    while calls < 3 or time.perf_counter() - begun < seconds:
        atoms.positions += rng.normal(0.0, 0.002, atoms.positions.shape)
        start = time.perf_counter()
        evaluator.evaluate([atoms])
        best, calls = min(best, time.perf_counter() - start), calls + 1
    return {"first_seconds": first, "steps_per_second": 1 / best, "us_per_atom": 1e6 * best / len(atoms)}


def rows(potential: Path, device: str, dtype: str, sizes: list[int], seconds: float) -> list[dict[str, Any]]:
    """A row for each size and each way of making a step."""
    import torch

    from asenequip.evaluate import Evaluator
    from asenequip.memory import StructureTooLargeError
    from asenequip.resident import ResidentEngine

    found: list[dict[str, Any]] = []
    for size in sizes:
        for way, padded_edges in (("captured", 200_000), ("plain", 0)):
            evaluator = Evaluator(potential, device=device, dtype=dtype, compiled=False)
            engine = ResidentEngine(evaluator.model, 1.0, evaluator.max_edges, padded_edges)
            evaluator.resident = engine
            atoms = copper(size)
            try:
                row = measure(evaluator, atoms, seconds)
            except (StructureTooLargeError, torch.cuda.OutOfMemoryError) as error:
                print(f"{len(atoms):9d} {way:9s} does not fit: {str(error).splitlines()[0]}")
                return found
            if way == "captured" and not engine.captures:
                continue
            if device == "cuda":
                row["peak_GB"] = torch.cuda.max_memory_allocated() / 1e9
                torch.cuda.reset_peak_memory_stats()
            found.append({"atoms": len(atoms), "way": way, **row})
            print(f"{len(atoms):9d} {way:9s}{row['steps_per_second']:12.1f} steps/s{row['us_per_atom']:10.3f} us/atom")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "tf32", "bfloat16"])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    import torch
    from bench_peer import hardware

    from asenequip.artifact import save_artifact
    from asenequip.model.allegro import Allegro
    from asenequip.model.spec import AllegroSpec

    machine = hardware()
    if options.device == "cuda":
        if not torch.cuda.is_available():
            parser.error("torch finds no CUDA device here; --device cpu runs the same code on CPU tensors")
        machine["gpu"] = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as folder:
        potential = save_artifact(f"{folder}/cu.asnq", Allegro(AllegroSpec(("Cu",), 5.0, avg_num_neighbors=(43.0,))))
        found = rows(potential, options.device, options.dtype, options.sizes, options.seconds)
    output = options.output or Path(__file__).parent / "results" / f"device_{options.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": machine, "dtype": options.dtype, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
