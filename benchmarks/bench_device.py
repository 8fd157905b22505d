"""Steps per second of the path that stays on a device, from 64 to a million atoms, in each way of making a step.

``python benchmarks/bench_device.py [--device cuda] [--dtype float32]`` evaluates copper (5 Angstrom, 43 neighbours,
l_max 2, U 32, S 64, untrained: the cost does not depend on the weights), atoms displaced from call to call so that
positions go over and the list is looked at, until a size does not fit. The network runs operation by operation or as
its compiled graph; a row whose step is captured has at most 200,000 candidate edges. Largest differences from the
network's forces are recorded. ``--device cpu`` runs the same code on CPU tensors, to see that it works. Writes
``results/device_DEVICE.json``, after every row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
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


def forms(potential: Path, device: str, dtype: str) -> dict[str, Any]:
    """What runs the network, by name: nothing but itself, and its compiled graph, or why there is none."""
    import torch

    from asenequip.artifact import load_artifact
    from asenequip.compiledgraph import compiled_graph
    from asenequip.compiling import CompilationError

    begun = time.perf_counter()
    try:
        graph = compiled_graph(load_artifact(potential), dtype, torch.device(device))[0]
    except CompilationError as error:
        return {"network": None, "failure": str(error).splitlines()[0]}
    return {"network": None, "compiled graph": graph, "compile_seconds": time.perf_counter() - begun}


def rows(potential: Path, device: str, dtype: str, sizes: list[int], seconds: float) -> Iterator[dict[str, Any]]:
    """First what compiling gave, then a row for each size, form and way of making a step."""
    import torch

    from asenequip.evaluate import Evaluator
    from asenequip.memory import StructureTooLargeError
    from asenequip.resident import ResidentEngine

    found = forms(potential, device, dtype)
    yield {name: value for name, value in found.items() if name in ("failure", "compile_seconds")}
    evaluator = Evaluator(potential, device=device, dtype=dtype, compiled=False)
    for size in sizes:
        forces: np.ndarray | None = None
        for form in ("network", "compiled graph"):
            for way, padded_edges in (("captured", 200_000), ("plain", 0)):
                if form not in found:
                    continue
                evaluator.slopes, atoms = found[form], copper(size)
                engine = ResidentEngine(evaluator.model, 1.0, evaluator.max_edges, padded_edges, found[form])
                evaluator.resident = engine
                try:
                    mine = evaluator.evaluate([atoms])[0]["forces"]
                    row = measure(evaluator, atoms, seconds)
                except (StructureTooLargeError, torch.cuda.OutOfMemoryError) as error:
                    yield {"atoms": len(atoms), "form": form, "way": way, "failure": str(error).splitlines()[0]}
                    return
                if way == "captured" and not engine.captures:
                    continue
                forces = mine if forces is None else forces
                row["largest_force_difference"] = float(np.abs(mine - forces).max())
                if device == "cuda":
                    row["peak_GB"] = torch.cuda.max_memory_allocated() / 1e9
                    torch.cuda.reset_peak_memory_stats()
                yield {"atoms": len(atoms), "form": form, "way": way, **row}


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
    output = options.output or Path(__file__).parent / "results" / f"device_{options.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"machine": machine, "dtype": options.dtype, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        potential = save_artifact(f"{folder}/cu.asnq", Allegro(AllegroSpec(("Cu",), 5.0, avg_num_neighbors=(43.0,))))
        for row in rows(potential, options.device, options.dtype, options.sizes, options.seconds):
            record["rows"].append(row)
            print(
                {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()},
                flush=True,
            )
            output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
