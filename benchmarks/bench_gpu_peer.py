"""ASE calculators on a GPU beside nequip-allegro's: ``python benchmarks/bench_gpu_peer.py`` where that is installed.

The same weights, made by the reference's own commands (nequip-train for one epoch) and converted; float32, displaced
copper, contenders in turns, the least wall time of each. The reference runs as compiled by AOTInductor: plain, with its
Triton kernel, and with cuEquivariance's; ours as the network, and as its compiled graph. What cannot be made here is
recorded with its reason. Writes ``results/gpu_peer.json`` after every contender; ``--models`` names a folder that holds
the models of an earlier run, or of another machine; ``--device cpu`` runs the same code.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from bench_peer import copper, hardware, labelled, make_models

from asenequip.compiling import CompilationError

MODIFIERS: dict[str, tuple[str, ...]] = {
    "nequip-allegro AOTInductor": (),
    "nequip-allegro AOTInductor, Triton": ("enable_TritonContracter",),
    "nequip-allegro AOTInductor, cuEquivariance": ("enable_CuEquivarianceContracter",),
}


def reference(package: Path, device: str) -> Any:
    """A calculator of the reference from what its own command has compiled."""
    from nequip.integrations.ase import NequIPCalculator

    return NequIPCalculator.from_compiled_model(str(package), device=device, chemical_species_to_atom_type_map=True)


def ours(potential: Path, device: str, compiled: bool) -> Any:
    """Our calculator, with the network or its compiled graph."""
    import torch

    from asenequip.calculator import AllegroCalculator
    from asenequip.compiledgraph import compiled_graph
    from asenequip.evaluate import Evaluator
    from asenequip.resident import ResidentEngine

    calculator = AllegroCalculator(potential, device=device)
    evaluator = Evaluator(potential, device=device, compiled=False)
    graph = compiled_graph(evaluator.potential, "float32", torch.device(device))[0] if compiled else None
    evaluator.slopes = graph
    evaluator.resident = ResidentEngine(evaluator.model, 1.0, evaluator.max_edges, slopes=graph)
    calculator.evaluator = evaluator
    return calculator


def pairs(checkpoint: Path, potential: Path, device: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Ours, then each mode of the reference beside our faster form, as it is compiled; or why it cannot be."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "peer"))
    from peer_training import compile_model

    with ThreadPoolExecutor() as pool:
        packages = {name: pool.submit(compile_model, checkpoint, device, words) for name, words in MODIFIERS.items()}
        mine = {"asenequip, network": ours(potential, device, False)}
        try:
            mine["asenequip, compiled graph"] = ours(potential, device, True)
        except CompilationError as failure:
            yield "asenequip, compiled graph", str(failure)
        yield "asenequip", mine
        faster = list(mine)[-1]
        for name, package in packages.items():
            try:
                calculator = reference(package.result(), device)
                calculator.get_potential_energy(copper(0, repeat=2))
            except Exception as failure:  # noqa: BLE001  whatever a compiler says is the result
                yield name, f"{type(failure).__name__}: {failure}"[-600:]
            else:
                yield name, {faster: mine[faster], name: calculator}


def measure(made: dict[str, Any], atoms: Any, seconds: float) -> list[dict[str, Any]]:
    """Least wall time of energy and forces, in turns."""
    rng, begun, turns = np.random.default_rng(0), time.perf_counter(), 0
    best, apart = dict.fromkeys(made, np.inf), dict.fromkeys(made, 0.0)
    while turns < 5 or time.perf_counter() - begun < seconds:
        atoms.positions += rng.normal(0.0, 0.002, atoms.positions.shape)
        first: np.ndarray | None = None
        for name, calculator in made.items():
            mine = atoms.copy()
            mine.calc = calculator
            start = time.perf_counter()
            mine.get_potential_energy()
            forces = mine.get_forces()
            if turns > 1:
                best[name] = min(best[name], time.perf_counter() - start)
            first = forces if first is None else first
            apart[name] = max(apart[name], float(np.abs(forces - first).max()))
        turns += 1
    return [
        {"atoms": len(atoms), "contender": name, "ms_per_step": 1e3 * best[name], "force_difference": apart[name]}
        for name in made
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--l-max", type=int, nargs="+", default=[2])
    parser.add_argument("--atoms", type=int, nargs="+", default=[32, 500, 4000, 32_000])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each size")
    parser.add_argument("--models", type=Path, help="folder that keeps the models from run to run")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "gpu_peer.json")
    options = parser.parse_args()
    folder = options.models or Path(tempfile.mkdtemp(prefix="asenequip-bench-"))
    record: dict[str, Any] = {"machine": hardware(), "device": options.device, "failed": {}, "rows": []}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for l_max in options.l_max:
        checkpoint, _, potential = make_models(folder / f"l{l_max}", False, labelled(4), l_max=l_max)
        for name, found in pairs(checkpoint, potential, options.device):
            if isinstance(found, str):
                record["failed"][f"l_max {l_max}, {name}"] = found
                found = {}
            for size in options.atoms if found else ():
                atoms = copper(100, repeat=max(2, round((size / 4) ** (1 / 3))))
                rows = [{"l_max": l_max, **row} for row in measure(found, atoms, options.seconds)]
                record["rows"] += rows
                print(*rows, sep="\n", flush=True)
            options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
