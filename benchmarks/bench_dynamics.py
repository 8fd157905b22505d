"""What ASE dynamics cost beside the model, how memory goes over a long run, and what compiling costs.

``python benchmarks/bench_dynamics.py [--steps 100000] [--threads 1]`` prints tables, writes ``results/dynamics.json``:

* 256 copper atoms (5 Angstrom, 43 neighbours, l_max 2, U 32, S 64): processor time of a step of velocity Verlet,
  Langevin and Nose-Hoover NPT dynamics, by ASE alone and by ``asenequip.md.run_md`` with its guards, table and
  trajectory; and the part of it that is not spent inside the compiled function ("beside the model");
* resident memory over ``--steps`` steps of 32 copper atoms with the packaged potential of EMT;
* from a Python process's start to the first energy and forces: with an empty cache (cold), and again (warm); the time
  on the clock, and processor time, its own and the compiler's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk

PARTS = ("first", "steps", "memory")
SETTINGS: dict[str, dict[str, Any]] = {
    "nve": {"ensemble": "nve"},
    "nvt, Langevin": {"ensemble": "nvt"},
    "npt, isotropic": {"ensemble": "npt"},
    "npt, full": {"ensemble": "npt", "cell": "full"},
}


def start(repeat: int, temperature: float = 300.0) -> Atoms:
    atoms = bulk("Cu", cubic=True) * repeat
    spread = np.sqrt(atoms.get_masses() * temperature * units.kB)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    return atoms


class Stopwatch:
    """Adds up the processor time spent inside an engine's function."""

    def __init__(self, engine: Any) -> None:
        self.seconds, self.calls = 0.0, 0
        self._run = engine._run
        engine._run = self

    def __call__(self, arguments: Any) -> int:
        begun = time.process_time()
        found = self._run(arguments)
        self.seconds += time.process_time() - begun
        self.calls += 1
        return found


def beside_the_model(potential: Path, steps: int) -> list[dict[str, Any]]:
    """A row for each ensemble and driver; the driver's start and end are left out."""
    from asenequip.calculator import AllegroCalculator
    from asenequip.integrators import Settings, make_integrator
    from asenequip.md import run_md

    calculator = AllegroCalculator(potential, device="cpu")
    watch = Stopwatch(calculator.evaluator.engine)
    rows = []
    for name, options in SETTINGS.items():
        atoms = start(4)
        atoms.calc = calculator
        integrator = make_integrator(atoms, Settings(**options), np.random.default_rng(0))
        integrator.run(5)
        watch.seconds, begun = 0.0, time.process_time()
        integrator.run(steps)
        rows.append(_row(name, "ASE", time.process_time() - begun, watch.seconds, steps))
        marks: dict[int, tuple[float, float]] = {}

        def look(numbers: Mapping[str, float], marks: dict[int, tuple[float, float]] = marks) -> None:
            marks[int(numbers["step"])] = time.process_time(), watch.seconds

        with tempfile.TemporaryDirectory() as folder:
            files_ = {"trajectory": f"{folder}/run.traj", "log": f"{folder}/run.csv"}
            run_md(start(4), calculator, steps=steps + 10, interval=10, watch=look, **files_, **options)
        (begun, model), (ended, total) = marks[10], marks[max(marks)]
        rows.append(_row(name, "run_md", ended - begun, total - model, max(marks) - 10))
    return rows


def _row(name: str, driver: str, seconds: float, model: float, steps: int) -> dict[str, Any]:
    return {
        "ensemble": name,
        "driver": driver,
        "ms_per_step": 1e3 * seconds / steps,
        "model_ms_per_step": 1e3 * model / steps,
        "fraction_beside_the_model": 1 - model / seconds,
    }


def resident_kilobytes() -> int:
    """Resident memory of this process now (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def memory(steps: int, marks: int = 20) -> list[tuple[int, int]]:
    """(step, resident kB) along a run of 32 atoms."""
    from asenequip.calculator import AllegroCalculator
    from asenequip.md import run_md

    calculator = AllegroCalculator(str(files("asenequip.data") / "emt.asnq"), device="cpu", dtype="float32")
    seen: list[tuple[int, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        run_md(
            start(2, 600.0),
            calculator,
            steps=steps,
            timestep=5.0,
            temperature=600.0,
            interval=max(1, steps // marks),
            trajectory=f"{folder}/run.traj",
            log=f"{folder}/run.csv",
            watch=lambda numbers: seen.append((int(numbers["step"]), resident_kilobytes())),
        )
    return seen


def first_forces(potential: Path) -> dict[str, dict[str, float]]:
    """Seconds from the start of a process to its first energy and forces: cold, warm, and of importing torch alone."""
    text = (
        "import sys; from ase.build import bulk; from asenequip import AllegroCalculator\n"
        "atoms = bulk('Cu', cubic=True) * 2; atoms.calc = AllegroCalculator(sys.argv[1], device='cpu')\n"
        "atoms.get_forces()"
    )
    with tempfile.TemporaryDirectory() as cache:
        cold = _process(text, potential, cache)
        warm = min((_process(text, potential, cache) for _ in range(3)), key=lambda found: found["processor"])
        return {"cold": cold, "warm": warm, "torch alone": _process("import torch", potential, cache)}


def _process(text: str, potential: Path, cache: str) -> dict[str, float]:
    """Seconds on the clock and of processors that a Python process takes, its children included."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "ASENEQUIP_CACHE": cache}
    subprocess.run([sys.executable, "-c", text, str(potential)], check=True, env=environment)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"clock": wall, "processor": spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100_000, help="of the run whose memory is watched")
    parser.add_argument("--timed-steps", type=int, default=300)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="the rest is kept as it was recorded")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "dynamics.json")
    options = parser.parse_args()
    from bench_peer import hardware, threads

    threads(options.threads)
    from asenequip.artifact import save_artifact
    from asenequip.model.allegro import Allegro
    from asenequip.model.spec import AllegroSpec

    known = json.loads(options.output.read_text()) if options.output.is_file() else {}
    record: dict[str, Any] = {**known, "machine": hardware(), "threads": options.threads}
    with tempfile.TemporaryDirectory() as folder:
        potential = save_artifact(f"{folder}/cu.asnq", Allegro(AllegroSpec(("Cu",), 5.0, avg_num_neighbors=(43.0,))))
        if "first" in options.only:
            record["first_forces_seconds"] = first_forces(potential)
            print("seconds from a process's start to its first forces:", record["first_forces_seconds"], flush=True)
        if "steps" in options.only:
            record["steps"] = beside_the_model(potential, options.timed_steps)
            show_steps(record["steps"])
    if "memory" in options.only:
        record["resident_kB"] = memory(options.steps)
        for step, size in record["resident_kB"]:
            print(f"step {step:8d}: {size} kB resident")
    record["machine"]["load_after"] = os.getloadavg()[0]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=1) + "\n")


def show_steps(rows: list[dict[str, Any]]) -> None:
    print(f"{'ensemble':16s}{'driver':8s}{'ms per step':>12s}{'in the model':>14s}{'beside it':>11s}")
    for row in rows:
        numbers = f"{row['ms_per_step']:12.3f}{row['model_ms_per_step']:14.3f}{row['fraction_beside_the_model']:11.1%}"
        print(f"{row['ensemble']:16s}{row['driver']:8s}{numbers}", flush=True)


if __name__ == "__main__":
    main()
