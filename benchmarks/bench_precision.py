"""Errors and times of each precision.

``python benchmarks/bench_precision.py [--device cuda]``: a trained potential (the packaged one of EMT) on displaced
crystals of its metals and their alloys, and untrained ones of l_max 1, 2, 3 on copper. Each precision is compared with
the exact network in float64 on the same structures: energies per atom, force components, and stress. Times are of 256
copper atoms through the evaluator, in turns; on a CPU processor time of one thread. Writes ``results/precision.json``
and from it the table of the documentation, ``docs/precision_table.inc`` (for a GPU ``results/precision_cuda.json``
alone); ``--table-only`` writes the table anew from the record.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

HERE = Path(__file__).parent
RECORD, TABLE = HERE / "results" / "precision.json", HERE.parent / "docs" / "precision_table.inc"
METALS = {"Al": 4.05, "Ni": 3.52, "Cu": 3.61, "Pd": 3.89, "Ag": 4.09, "Pt": 3.92, "Au": 4.08}
TRAINED = "trained (EMT of seven metals)"


def alloys(count: int = 30, seed: int = 0) -> list[Atoms]:
    """Crystals of 32 atoms of one metal or two, displaced by 0.1 Angstrom and strained."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        first, second = rng.choice(list(METALS), 2, replace=False)
        share = rng.choice([0.0, 0.25, 0.5])
        atoms = bulk(first, cubic=True, a=(1 - share) * METALS[first] + share * METALS[second]) * 2
        atoms.symbols[rng.random(len(atoms)) < share] = second
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.uniform(-0.02, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0.0, 0.1, atoms.positions.shape)
        made.append(atoms)
    return made


def copper(repeat: int, count: int) -> list[Atoms]:
    """Displaced copper."""
    made = []
    for seed in range(count):
        atoms = bulk("Cu", cubic=True) * repeat
        atoms.rattle(0.1, seed=seed)
        made.append(atoms)
    return made


def precisions(device: str) -> dict[str, tuple[str, bool | None]]:
    """By label, precision and whether compiled, of what runs on a device."""
    if device == "cuda":
        return {name: (name, None) for name in ("float64", "float32", "tf32", "bfloat16")}
    from asenequip.fused.engine import has_bfloat16

    found: dict[str, tuple[str, bool | None]] = {
        "float64, compiled": ("float64", True),
        "float32, network": ("float32", False),
        "float32, compiled (default)": ("float32", True),
    }
    if has_bfloat16():
        found["bfloat16, compiled"] = ("bfloat16", True)
    return found


def errors(potential: Any, frames: Sequence[Atoms], device: str) -> list[dict[str, Any]]:
    """A row for each precision."""
    from asenequip.evaluate import Evaluator

    exact = Evaluator(potential, device=device, dtype="float64", compiled=False, skin=0.0).evaluate(frames)
    rows = []
    for label, (dtype, compiled) in precisions(device).items():
        found = Evaluator(potential, device=device, dtype=dtype, compiled=compiled, skin=0.0).evaluate(frames)
        pairs = list(zip(found, exact, frames, strict=True))
        energies = np.array([(a["energy"] - b["energy"]) / len(atoms) for a, b, atoms in pairs])
        forces = np.concatenate([(a["forces"] - b["forces"]).ravel() for a, b, _ in pairs])
        stress = np.concatenate([a["stress"] - b["stress"] for a, b, _ in pairs])
        scale = np.concatenate([b["forces"].ravel() for b in exact])
        rows.append(
            {
                "precision": label,
                "energy_max_meV_per_atom": 1e3 * float(np.abs(energies).max()),
                "force_rms_meV_A": 1e3 * float(np.sqrt(np.square(forces).mean())),
                "force_max_meV_A": 1e3 * float(np.abs(forces).max()),
                "stress_max_GPa": 160.2176634 * float(np.abs(stress).max()),
                "force_scale_eV_A": float(np.sqrt(np.square(scale).mean())),
            }
        )
    return rows


def times(potential: Any, device: str, seconds: float) -> dict[str, float]:
    """Least time of an evaluation of 256 atoms, us per atom."""
    from asenequip.evaluate import Evaluator

    atoms = copper(4, 1)[0]
    contenders = {
        label: Evaluator(potential, device=device, dtype=dtype, compiled=compiled)
        for label, (dtype, compiled) in precisions(device).items()
    }
    clock = time.process_time if device == "cpu" else time.perf_counter
    best, rng = dict.fromkeys(contenders, np.inf), np.random.default_rng(0)
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        atoms.positions += rng.normal(0.0, 0.002, atoms.positions.shape)
        for label, evaluator in contenders.items():
            start = clock()
            evaluator.evaluate([atoms])
            best[label] = min(best[label], 1e6 * (clock() - start) / len(atoms))
    return best


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        "<!-- written by benchmarks/bench_precision.py from benchmarks/results/precision.json -->",
        "",
        "| potential | precision | energy, largest (meV/atom) | force, rms (meV/Å) | force, largest (meV/Å) "
        f"| stress, largest (GPa) | {'processor time' if record['device'] == 'cpu' else 'time'} (µs/atom) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in record["errors"].items():
        for row in rows:
            numbers = [row[key] for key in ("energy_max_meV_per_atom", "force_rms_meV_A", "force_max_meV_A")]
            spent = record["us_per_atom"].get(name, {}).get(row["precision"])
            cells = [*(f"{number:.1e}" for number in (*numbers, row["stress_max_GPa"]))]
            cells.append("" if spent is None else f"{spent:.0f}")
            lines.append(f"| {name} | {row['precision']} | " + " | ".join(cells) + " |")
        lines.append(f"| | *forces themselves, rms* | | {1e3 * rows[0]['force_scale_eV_A']:.0f} | | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--l-max", type=int, nargs="+", default=[1, 2, 3], help="of the untrained potentials")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for each potential")
    parser.add_argument("--output", type=Path, help="results/precision.json, or precision_cuda.json")
    parser.add_argument("--table-only", action="store_true")
    options = parser.parse_args()
    if options.output is None:
        options.output = RECORD if options.device == "cpu" else RECORD.with_name(f"precision_{options.device}.json")
    if not options.table_only:
        from bench_peer import hardware, threads

        threads(1)
        found = measure(options.device, options.seconds, options.l_max)
        record = {"machine": hardware(), "device": options.device, **found}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    text = table(json.loads(options.output.read_text()))
    print(text)
    if options.output == RECORD:
        TABLE.write_text(text)


def measure(device: str, seconds: float, l_maxima: Sequence[int]) -> dict[str, Any]:
    """Errors and times of all potentials."""
    from asenequip.artifact import load_artifact, save_artifact
    from asenequip.model.allegro import Allegro
    from asenequip.model.spec import AllegroSpec

    found: dict[str, Any] = {"errors": {}, "us_per_atom": {}}
    trained = load_artifact(str(files("asenequip.data") / "emt.asnq"))
    found["errors"][TRAINED] = errors(trained, alloys(), device)
    with tempfile.TemporaryDirectory() as folder:
        for l_max in l_maxima:
            name = f"untrained, l_max {l_max}, U 32, S 64"
            model = Allegro(AllegroSpec(("Cu",), 5.0, l_max=l_max, avg_num_neighbors=(43.0,)))
            potential = load_artifact(save_artifact(f"{folder}/l{l_max}.asnq", model))
            found["errors"][name] = errors(potential, copper(2, 10), device)
            found["us_per_atom"][name] = times(potential, device, seconds)
    return found


if __name__ == "__main__":
    main()
