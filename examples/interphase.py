"""The interphase of Li | Li6PS5Cl: potential, cell, dynamics, analyses, page; mechanics and Li diffusion in the bulk.

    python examples/interphase.py [OUTPUT] [--smoke]

Everything goes into the folder OUTPUT, or runs/interphase. Whatever is there already is gone on with: stop it with
Ctrl-C, start it again with the same command, or with more --steps.

Without --potential, frames of small interface cells are labelled by GFN1-xTB (tblite, pip install 'asenequip[labels]'),
and a potential is trained on them together with those that the package ships, twice: the second time with frames that
the first potential ran into. That takes about an hour on one core; --potential takes a potential that you have.

--second FILE runs the same study for another electrolyte against Li, such as Li3PS4 from a structure file. With --smoke
the same steps are done in a minute for Cu | Ni with the EMT potential of the package: they show that all works.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from asenequip import AllegroCalculator
from asenequip.files import replace_file
from asenequip.interface import (
    Choices,
    Diffusion,
    Estimate,
    Side,
    analyse,
    build_interface,
    fit_arrhenius,
    make_crystal,
    occupy,
    run_stages,
    stream,
    summarise,
    usual_stages,
    write_report,
    write_tables,
)

HERE = Path(__file__).resolve().parent
TEMPERATURE = 600.0  # K
TIMESTEP = 2.0  # fs
BULK_TEMPERATURES = (600.0, 800.0, 1000.0)  # K
PUBLISHED = {
    "Li": "a = 3.51 A; C11 14.8, C12 12.5, C44 10.8 GPa at 78 K: T. Slotwinski and J. Trivisonno, J. Phys. Chem. "
    "Solids 30, 1276 (1969)",
    "Li6PS5Cl": "a = 9.86 A: M. A. Kraft and co-workers, J. Am. Chem. Soc. 139, 10909 (2017); bulk modulus 28.7, shear "
    "modulus 8.1 GPa: Z. Deng and co-workers, J. Electrochem. Soc. 163, A67 (2016)",
}


def make_potential(folder: Path) -> Path:
    """Label, train, heat, label, train; each step is left out where its result is there."""
    database, script = folder / "frames.db", str(HERE / "make_interface_data.py")

    def call(*words: str | Path) -> None:
        subprocess.run([sys.executable, *(str(word) for word in words)], check=True)

    before: list[tuple[str | Path, ...]] = [("rattle", database)]
    for name in ("first", "second"):
        potential, frames = folder / name / "model.asnq", folder / f"{name}.extxyz.gz"
        if not potential.exists():
            for words in before:
                call(script, *words)
            if not frames.exists():
                call(script, "gather", database, frames)
            train = ("-c", "from asenequip.train.cli import main; main()")
            if (folder / name).exists():
                call(*train, "resume", folder / name)
            else:
                settings = ("--set", f"data.train={frames}", "--set", f"output={folder / name}")
                call(*train, HERE / "interface.yaml", *settings)
        before = [("heat", database, potential)]
    return folder / "second" / "model.asnq"


def study(
    folder: Path, title: str, start: Atoms, potential: Path, choices: Choices, lengths: Mapping[str, int], kelvin: float
) -> dict[str, Any]:
    """One interface: run its stages, analyse the production, write tables and page; the page is made anew each time."""
    calculator = AllegroCalculator(potential)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "start.extxyz").exists():
        write(folder / "start.extxyz", start)
    stages = usual_stages(kelvin, timestep=TIMESTEP, **lengths)
    run_stages(start, calculator, stages, folder, watch=tell)
    found = analyse(folder / "production.traj", choices=choices)
    provenance = {
        "potential": {"file": potential.name, "sha256": calculator.parameters["sha256"]},
        "stages": {stage.name: {"steps": stage.steps, "temperature": stage.temperature} for stage in stages},
    }
    summary = summarise(found, provenance)
    results = folder / f"results_{lengths['production']}"
    if not results.exists():
        write_tables(summary, results)
        write_report(summary, results / "report.html", title)
    print(f"{title}: {len(start)} atoms, {summary['provenance']['time_ps'][1]:.3g} ps, {results / 'report.html'}")
    for warning in summary["warnings"]:
        print(f"  Note: {warning}")
    return summary


def tell(stage: str, row: Mapping[str, float]) -> None:
    """A line for each tenth of a stage."""
    if row["steps"] and row["step"] % max(1, row["steps"] // 10) == 0:
        print(f"  {stage}: {row['step']:.0f}/{row['steps']:.0f}  {row['temperature_K']:.0f} K", flush=True)


def bulk_diffusion(folder: Path, potential: Path, steps: int) -> None:
    """Diffusion of Li in bulk Li6PS5Cl at three temperatures, and the activation energy."""
    crystal = occupy(make_crystal("Li6PS5Cl").repeat(2), np.random.default_rng(0))
    found: dict[float, Estimate] = {}
    for kelvin in BULK_TEMPERATURES:
        place = folder / f"bulk_{kelvin:.0f}K"
        stages = usual_stages(kelvin, production=steps, timestep=TIMESTEP, heat=500, anneal=0, interval=25)
        run_stages(crystal, AllegroCalculator(potential), stages, place, watch=tell)
        analysis = Diffusion(max(4, steps // 25 // 24))
        for snapshot in stream(place / "production.traj", reference=["P", "S", "Cl"]):
            analysis.add(snapshot)
        result = analysis.result()
        found[kelvin] = result.isotropic[result.names.index("Li")]
        print(f"  {kelvin:.0f} K: D = {found[kelvin].value:.3g} +- {found[kelvin].half_width():.2g} A^2/ps")
    table: dict[str, Any] = {f"{k:g}": [v.value, v.half_width()] for k, v in found.items()}
    usable = {kelvin: value for kelvin, value in found.items() if value.value > 0}
    if len(usable) > 1:
        fit = fit_arrhenius(list(usable), list(usable.values()))
        energy = fit.activation_energy
        table["activation_energy_eV"] = [energy.value, energy.half_width()]
        print(f"Activation energy of Li in Li6PS5Cl: {energy.value:.3f} +- {energy.half_width():.3f} eV (95 %)")
    replace_file(folder / "bulk_diffusion.json", (json.dumps(table, indent=1) + "\n").encode())


def mechanics(folder: Path, potential: Path) -> None:
    """Lattice parameters and elastic constants of the two crystals, beside published ones."""
    from asenequip.properties import elastic_tensor
    from asenequip.relax import relax

    calculator = AllegroCalculator(potential, dtype="float64")
    path = folder / "mechanics.json"
    table: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"published": PUBLISHED}
    for name in ("Li", "Li6PS5Cl"):
        if name in table:
            continue
        start = occupy(make_crystal(name), np.random.default_rng(0))
        start = Atoms(start.symbols, positions=start.positions, cell=start.cell, pbc=True)
        atoms = relax([start], calculator, fmax=0.005, steps=1000, cell="full")[0].atoms
        found = elastic_tensor(atoms, calculator, fmax=0.005)
        entry: dict[str, Any] = {
            "lattice_parameter_A": (atoms.get_volume()) ** (1 / 3),
            "tensor_GPa": found.tensor.round(3).tolist(),
            "stable": found.stable,
        }
        if found.stable:
            entry |= {"bulk_GPa": found.moduli.bulk, "shear_GPa": found.moduli.shear}
        table[name] = entry
        print(f"{name}: a = {entry['lattice_parameter_A']:.3f} A, C11 = {found.tensor[0, 0]:.1f}, ", end="")
        print(f"C12 = {found.tensor[0, 1]:.1f}, C44 = {found.tensor[3, 3]:.1f} GPa (published: {PUBLISHED[name]})")
        replace_file(path, (json.dumps(table, indent=1) + "\n").encode())


def smoke(folder: Path) -> None:
    """Cu | Ni with the EMT potential of the package."""
    start = build_interface(Side("Cu", thickness=14.0), Side("Ni", thickness=14.0), max_area=60, repeat=(3, 3))
    choices = Choices(references=("Cu", "Ni"), carriers={"Cu": 1.0}, structure_every=5, layer=3.0)
    lengths = {"production": 400, "heat": 50, "anneal": 50, "interval": 4}
    potential = Path(str(files("asenequip.data") / "emt.asnq"))
    study(folder / "cu_ni", "Cu | Ni | Cu", start, potential, choices, lengths, TEMPERATURE)


def main() -> None:
    """Do all that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", default="runs/interphase", type=Path, help="folder, new or gone on with")
    parser.add_argument("--smoke", action="store_true", help="a minute, Cu | Ni, the EMT potential of the package")
    parser.add_argument("--potential", type=Path, help="a potential for Li, P, S and Cl instead of training one")
    parser.add_argument("--steps", type=int, default=5000, help="steps of 2 fs of the production")
    parser.add_argument("--bulk-steps", type=int, default=5000, help="the same for each bulk temperature; 0 for none")
    parser.add_argument("--second", type=Path, help="a structure file of another electrolyte against Li")
    options = parser.parse_args()
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    if options.smoke:
        smoke(folder)
        return
    potential = options.potential or make_potential(folder)
    lengths = {"production": options.steps, "heat": 500, "anneal": 0, "interval": 20}
    start = build_interface(
        Side("Li", thickness=35.0), Side("Li6PS5Cl", thickness=20.0, exchange=(1, 3, 0.5)), repeat=(2, 2)
    )
    choices = Choices(bins=80)
    study(folder / "li_argyrodite", "Li | Li6PS5Cl | Li", start, potential, choices, lengths, TEMPERATURE)
    if options.second:
        other = Side(read(options.second), thickness=20.0)
        start = build_interface(Side("Li", thickness=21.0), other, max_misfit=0.06, max_area=250)
        title = f"Li | {options.second.stem} | Li"
        study(folder / f"li_{options.second.stem}", title, start, potential, choices, lengths, TEMPERATURE)
    if options.bulk_steps:
        bulk_diffusion(folder, potential, options.bulk_steps)
    mechanics(folder, potential)


if __name__ == "__main__":
    main()
