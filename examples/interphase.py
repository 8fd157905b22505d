"""The interphase of Li | Li6PS5Cl: potential, cell, dynamics, analyses, page; mechanics and Li diffusion in the bulk.

    python examples/interphase.py [OUTPUT] [--smoke]

Everything goes into the folder OUTPUT, or runs/interphase. Whatever is there already is gone on with: stop it with
Ctrl-C, start it again with the same command, or with more --steps.

--potential takes a potential that you have. Without it, one is trained for nine minutes on the interface frames that
the package ships, labelled by PBE (examples/make_interface_data.py, examples/gpaw_labels.py): few frames, enough to try
things out. How the potential of the worked study was made says the page on the interphase.

--second FILE runs the same study for another electrolyte against Li, such as Li3PS4 from a structure file. With --smoke
the same steps are done in a minute for Cu | Ni with the EMT potential of the package: they show that all works.

OUTPUT/record.json gathers the numbers of all parts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import as_file, files
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
    exchange,
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
TEMPERATURE = 400.0  # K; lithium melts at 454 K
TIMESTEP = 2.0  # fs
BULK_TEMPERATURES = (600.0, 800.0, 1000.0)  # K
EXCHANGE = (1, 3, 0.5)
"""Half of S and Cl on 4c and 4a of Li6PS5Cl have changed places."""
PARTS = ("mechanics", "interface", "second", "diffusion")
PUBLISHED = {
    "Li": "a = 3.510 A: M. R. Nadler and C. P. Kempter, Anal. Chem. 31, 2109 (1959); C11 13.42, C12 11.3, C44 8.8 GPa "
    "at room temperature: quoted by S. Narayan and L. Anand, doi 10.1016/j.eml.2018.08.006",
    "Li6PS5Cl": "a = 9.861 A: M. A. Kraft and co-workers, doi 10.1021/jacs.7b06327; bulk and shear modulus by density "
    "functionals 28.7 and 8.1, or 34.7 and 10.0 GPa: doi 10.1149/2.0061602jes, doi 10.1021/acs.jpcc.5c05116",
    "activation_energy_eV": "0.20 to 0.26 by other learned potentials: arXiv 2407.04126, doi "
    "10.1021/acs.chemmater.4c01152; 0.33 to 0.46 by impedance: doi 10.1002/anie.201814222, doi 10.1021/jacs.7b06327",
}


def make_potential(folder: Path) -> Path:
    """Train on the interface frames of the package, or go on with it."""
    place = folder / "potential"
    call = [sys.executable, "-c", "from asenequip.train.cli import main; main()"]
    with as_file(files("asenequip.data") / "li_argyrodite_pbe.extxyz.gz") as frames:
        if not place.exists():
            settings = ("--set", f"data.train={frames}", "--set", f"output={place}")
            subprocess.run([*call, str(HERE / "interface.yaml"), *settings], check=True)
        elif not (place / "model.asnq").exists():
            subprocess.run([*call, "resume", str(place)], check=True)
    return place / "model.asnq"


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


def essence(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Of a study's summary, what a table has room for."""
    told = summary["provenance"]
    populations, layers = summary["populations"], summary["layers"]
    found: dict[str, Any] = {name: told[name] for name in ("formula", "atoms", "frames", "time_ps", "temperature_K")}
    found |= {"potential": told["potential"], "warnings": summary["warnings"]}
    found["classes"] = {
        name: [populations["counts"][0][k], populations["counts"][-1][k]] for k, name in enumerate(populations["names"])
    }
    found["bonds"] = {
        name: {"first": bond["bonds"][0], "last": bond["bonds"][-1], "broken": bond["broken"], "formed": bond["formed"]}
        for name, bond in summary["bonds"].items()
    }
    if summary["thickness"]:
        found["thickness_A"] = {
            side: [summary["thickness"][side][0], summary["thickness"][side][-1]] for side in ("below", "above")
        }
    found["growth"] = {side: fits[0] for side, fits in summary["growth"].items() if fits}
    if layers:
        value, width = layers["isotropic"]["value"], layers["isotropic"]["half_width"]
        found["diffusion_A2_per_ps"] = {name: [v, w] for name, v, w in zip(layers["names"], value, width, strict=True)}
    found["phases"] = {phase["group"]: [phase["name"], phase["similarity"]] for phase in summary["phases"]}
    if summary["creep"]:
        found["creep_per_ps"] = summary["creep"]["strain_rate"]
    return found


def bulk_diffusion(folder: Path, potential: Path, steps: int) -> dict[str, Any]:
    """Diffusion of Li in bulk Li6PS5Cl at three temperatures, and the activation energy."""
    rng = np.random.default_rng(0)
    crystal = occupy(exchange(make_crystal("Li6PS5Cl").repeat(2), EXCHANGE[:2], EXCHANGE[2], rng), rng)
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
    table: dict[str, Any] = {"steps": steps, "atoms": len(crystal)}
    table["A2_per_ps"] = {f"{k:g}": [v.value, v.half_width()] for k, v in found.items()}
    usable = {kelvin: value for kelvin, value in found.items() if value.value > 0}
    if len(usable) > 1:
        fit = fit_arrhenius(list(usable), list(usable.values()))
        energy = fit.activation_energy
        table["activation_energy_eV"] = [energy.value, energy.half_width()]
        print(f"Activation energy of Li in Li6PS5Cl: {energy.value:.3f} +- {energy.half_width():.3f} eV (95 %)")
    return table


def mechanics(folder: Path, potential: Path) -> dict[str, Any]:
    """Lattice parameters and elastic constants of the two crystals, beside published ones."""
    from asenequip.properties import elastic_tensor
    from asenequip.relax import relax

    calculator = AllegroCalculator(potential, dtype="float64")
    path = folder / "part_mechanics.json"
    table: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
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
        write_json(path, table)
    return table


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """In the place of what is there."""
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
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is done; all unless named")
    parser.add_argument("--steps", type=int, default=5000, help="steps of 2 fs of the production")
    parser.add_argument("--bulk-steps", type=int, default=5000, help="the same for each bulk temperature")
    parser.add_argument("--second", type=Path, help="a structure file of another electrolyte against Li")
    options = parser.parse_args()
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    if options.smoke:
        smoke(folder)
        return
    potential = options.potential or make_potential(folder)
    lengths = {"production": options.steps, "heat": 1000, "anneal": 0, "interval": 20}

    def keep(name: str, start: Atoms) -> None:
        place, title = folder / f"li_{name.lower()}", f"Li | {name} | Li"
        summary = study(place, title, start, potential, Choices(bins=80), lengths, TEMPERATURE)
        write_json(folder / f"part_li_{name.lower()}.json", {"title": title, **essence(summary)})

    if "mechanics" in options.parts:
        mechanics(folder, potential)
    if "interface" in options.parts:
        electrolyte = Side("Li6PS5Cl", thickness=20.0, exchange=EXCHANGE)
        keep("Li6PS5Cl", build_interface(Side("Li", thickness=35.0), electrolyte, repeat=(2, 2)))
    if "second" in options.parts and options.second:
        other = Side(read(options.second), thickness=20.0)
        keep(options.second.stem, build_interface(Side("Li", thickness=21.0), other, max_misfit=0.06, max_area=250))
    if "diffusion" in options.parts:
        write_json(folder / "part_diffusion.json", bulk_diffusion(folder, potential, options.bulk_steps))
    parts = {path.stem.removeprefix("part_"): json.loads(path.read_text()) for path in sorted(folder.glob("part_*"))}
    write_json(folder / "record.json", {"published": PUBLISHED, **parts})


if __name__ == "__main__":
    main()
