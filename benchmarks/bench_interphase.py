"""What potential and labels of the worked study of an interphase are worth; fills benchmarks/results/interphase.json.

    python benchmarks/bench_interphase.py study runs/study/record.json
    python benchmarks/bench_interphase.py contacts runs/study/li_li6ps5cl/production.traj
    python benchmarks/bench_interphase.py potential judge.extxyz "first round=runs/one=learnt_one.extxyz" ...
    python benchmarks/bench_interphase.py labels "P2S5, 28 atoms=given.extxyz=labelled.extxyz" ...
    python benchmarks/bench_interphase.py grids /usr/bin/python3
    python benchmarks/bench_interphase.py binding

``study`` takes over the numbers of examples/interphase.py. ``contacts`` looks for chlorine atoms that come too close to
each other in a trajectory. ``potential`` gives the errors of each round of training (its name, run directory, and the
labelled frames that it learnt, where it did) on those of the frames held back for judging that no round learnt, by
their kind, and the errors on the test frames of each run. ``labels`` compares two labellers on the same structures.
``grids`` asks the labels' own method for elastic constants of lithium on grids of several densities; its argument is
what starts a Python that has GPAW. ``binding`` asks GFN1-xTB (tblite) for the energy of lithium over its lattice
parameter.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import Trajectory, read
from ase.neighborlist import neighbor_list

from asenequip import AllegroCalculator
from asenequip.files import replace_file

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "interphase.json"
KINDS = {"interfaces": ("interface-", "hot-"), "mixtures": ("mix-",), "crystals": ("",)}
"""How ``atoms.info["origin"]`` begins (examples/make_interface_data.py), in the order in which it is looked at."""
GPA = 1 / units.GPa
DENSITIES = {4: 2.0, 6: 3.2, 12: 6.4}
"""Points along each axis of 2 atoms of lithium: points per 1/Angstrom. The labels of 16 atoms are like 4 or 6."""
CONTACT = 3.0
"""Angstrom: two chloride ions of a crystal are 3.6 Angstrom apart."""


def rms(values: np.ndarray, digits: int) -> float:
    return round(float(np.sqrt(np.mean(np.square(values)))), digits)


def by_kind(frames: list[Atoms]) -> dict[str, list[Atoms]]:
    """Frames by what they are of; kinds without a frame are left out."""
    sorted_out: dict[str, list[Atoms]] = {}
    for atoms in frames:
        name = next(name for name, starts in KINDS.items() if atoms.info["origin"].startswith(starts))
        sorted_out.setdefault(name, []).append(atoms)
    return {name: sorted_out[name] for name in KINDS if name in sorted_out}


def potential(judge: list[Atoms], rounds: list[list[str]]) -> dict[str, Any]:
    """Errors of each round, given as [name, run directory] or [name, run directory, learnt frames]."""
    learnt = [read(files[0], ":") if files else [] for _, _, *files in rounds]
    known = {atoms.info["origin"] for frames in learnt for atoms in frames if "origin" in atoms.info}
    unseen = by_kind([atoms for atoms in judge if atoms.info["origin"] not in known])
    if not unseen:
        raise SystemExit("No frame is left that no round has learnt. Give those held back, or label some more.")
    kinds = {
        kind: {"frames": len(frames), "forces_rms_eV_per_A": rms(np.concatenate([a.get_forces() for a in frames]), 3)}
        for kind, frames in unseen.items()
    }
    rows = []
    for (name, run, *_), frames in zip(rounds, learnt, strict=True):
        calculator = AllegroCalculator(Path(run) / "model.asnq")
        errors = json.loads((Path(run) / "summary.json").read_text())["test"]
        row: dict[str, Any] = {"name": name, "learnt_frames": len(frames)}
        row["unseen"] = {kind: judged(calculator, frames) for kind, frames in unseen.items()}
        for key, quantity, digits in (("forces_mae_eV_per_A", "forces_mae", 4), ("energy_mae_eV", "energy_mae", 5)):
            sets = {k.split("@")[1]: round(v, digits) for k, v in errors.items() if k.startswith(f"{quantity}@")}
            row[f"test_{key}"] = sets
        rows.append(row)
    return {"kinds": kinds, "rounds": rows}


def judged(calculator: AllegroCalculator, frames: list[Atoms]) -> dict[str, float]:
    """Errors of forces and of stress, roots of the mean squares."""
    found = calculator.evaluate(frames)
    forces = [result["forces"] - atoms.get_forces() for result, atoms in zip(found, frames, strict=True)]
    stress = [result["stress"] - atoms.get_stress() for result, atoms in zip(found, frames, strict=True)]
    return {
        "forces_rmse_eV_per_A": rms(np.concatenate(forces), 3),
        "stress_rmse_GPa": rms(np.concatenate(stress) * GPA, 2),
    }


def contacts(path: Path) -> dict[str, float]:
    """The closest pair of chlorine atoms of a trajectory, and how many of them are within `CONTACT` at most."""
    closest, most = np.inf, 0
    for atoms in Trajectory(path):
        chlorine = atoms[atoms.symbols == "Cl"]
        i, distances = neighbor_list("id", chlorine, CONTACT + 1)
        closest = min(closest, distances.min(initial=np.inf))
        most = max(most, len(np.unique(i[distances < CONTACT])))
    return {"closest_A": round(float(closest), 3), f"atoms_within_{CONTACT:g}_A": most, "atoms": len(chlorine)}


def labels(pairs: list[list[str]]) -> list[dict[str, Any]]:
    """Forces of two labellers on the same structures, given as [name, first file, second file]."""
    rows = []
    for name, *files in pairs:
        one, other = (np.concatenate([a.get_forces() for a in read(file, ":")]).ravel() for file in files)
        slope = round(float(one @ other / (one @ one)), 4)
        rows.append({"frame": name, "difference": rms(other - one, 4), "forces_rms": rms(one, 4), "slope": slope})
    return rows


def grids(command: str) -> list[dict[str, float]]:
    """C11 and C12 of bcc lithium (2 atoms) by PBE, from the stresses at strains of 1 percent."""
    sys.path.append(str(ROOT / "examples"))
    make = importlib.import_module("gpaw_labels").make
    rows = []
    for points, density in DENSITIES.items():
        stresses = []
        for strain in (-0.01, 0.01):
            atoms = bulk("Li", "bcc", a=3.44, cubic=True)
            atoms.set_cell(atoms.cell.array * [[1 + strain], [1], [1]], scale_atoms=True)
            with tempfile.TemporaryDirectory() as folder:
                atoms.calc = make(command, kpoint_density=density)
                atoms.calc.directory = folder
                stresses.append(atoms.get_stress() * GPA)
        change = (stresses[1] - stresses[0]) / 0.02
        rows.append({"points": points, "C11_GPa": round(change[0], 1), "C12_GPa": round(change[1:3].mean(), 1)})
    return rows


def binding() -> list[dict[str, float]]:
    """Energy of 54 atoms of bcc lithium by GFN1-xTB, over the lattice parameter."""
    from tblite.ase import TBLite

    rows = []
    for edge in (3.27, 3.39, 3.51, 3.63, 3.75, 3.87, 3.99):
        atoms = bulk("Li", "bcc", a=edge, cubic=True).repeat(3)
        atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
        rows.append({"a_A": edge, "energy_eV_per_atom": round(float(atoms.get_potential_energy()) / len(atoms), 4)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="what", required=True)
    verbs.add_parser("study").add_argument("record", type=Path)
    verbs.add_parser("contacts").add_argument("trajectory", type=Path)
    verb = verbs.add_parser("potential")
    verb.add_argument("judge", type=Path)
    verb.add_argument("rounds", nargs="+", help="NAME=RUN or NAME=RUN=LEARNT_FRAMES")
    verbs.add_parser("labels").add_argument("pairs", nargs="+", help="NAME=FRAMES=OTHER_FRAMES")
    verbs.add_parser("grids").add_argument("command")
    verbs.add_parser("binding")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    if options.what == "study":
        record |= json.loads(options.record.read_text())
    elif options.what == "contacts":
        record["chlorine_contacts"] = contacts(options.trajectory)
    elif options.what == "potential":
        rounds = [text.split("=") for text in options.rounds]
        record["potential"] = potential(read(options.judge, ":"), rounds)
    elif options.what == "binding":
        record.setdefault("level", {})["lithium_by_xtb"] = binding()
    elif options.what == "grids":
        record.setdefault("level", {})["lithium_by_grid"] = grids(options.command)
    else:
        key = "forces_rms_difference_from_given_labels_eV_per_A"
        record.setdefault("level", {})[key] = labels([text.split("=") for text in options.pairs])
    replace_file(RECORD, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
