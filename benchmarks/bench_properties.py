"""Phonons, elasticity and equations of state of trained potentials beside DFT, experiment, and one another.

``python benchmarks/bench_properties.py [--data FOLDER] [--potentials FOLDER] [--only si]`` prints tables and writes
``results/properties.json``. Potentials of silicon, lithium and rock salt are trained first (examples/mlearn_si.yaml,
mlearn_li.yaml, nacl.yaml) unless FOLDER holds si.asnq, li.asnq and nacl.asnq. DFT references are computed here from the
force sets and labels of the data; experiments are cited where they stand.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import read

from asenequip import AllegroCalculator
from asenequip.properties import (
    elastic_tensor,
    equation_of_state,
    phonons,
    surface_energies,
    vacancy_energies,
)
from asenequip.properties.force_constants import displaced_supercells, to_ase
from asenequip.properties.phonons import make_phonopy
from asenequip.relax import relax

HERE = Path(__file__).parent
SETTINGS = {"si": "mlearn_si", "li": "mlearn_li", "nacl": "nacl"}
FCC = {"Gamma": (0.0, 0.0, 0.0), "X": (0.0, 0.0, 1.0), "L": (0.5, 0.5, 0.5)}
BCC = {"N": (0.0, 0.5, 0.5), "H": (0.0, 0.0, 1.0), "P": (0.5, 0.5, 0.5)}
"""Special points along the axes of the cubic cell, in units of 2 pi over its edge."""
HALL = "experiment, 298 K: J. J. Hall, Phys. Rev. 161, 756 (1967)"
NARAYAN = "experiment, room temperature, quoted by S. Narayan and L. Anand, doi 10.1016/j.eml.2018.08.006"
DISTANCE = 0.005
"""Displacement where finite differences are compared with the exact force constants, Angstrom."""
DATA_STRESS = "DFT stresses of the same strained cells"
DATA_ENERGY = "DFT energies of the same sheared cells"
FORCE_SET = "DFT force set of the phonopy examples"

Row = dict[str, Any]


def row(system: str, quantity: str, unit: str, found: float, reference: float | None, source: str) -> Row:
    """One line of the table, printed."""
    beside = "" if reference is None else f"{reference:12.4f}"
    print(f"{system:4} {quantity:34} {found:12.4f} {beside:>12} {unit:8} {source}", flush=True)
    return {
        "system": system,
        "quantity": quantity,
        "unit": unit,
        "found": float(found),
        "reference": None if reference is None else float(reference),
        "source": source,
    }


# -- potentials -------------------------------------------------------------------------------------------------------


def train_missing(folder: Path, data: Path, minutes: float, names: Sequence[str]) -> None:
    """Train the potentials that the folder lacks."""
    from asenequip.train import fit, load_config

    files = {
        "si": ("mlearn_Si/training.extxyz.gz", "mlearn_Si/test.extxyz.gz"),
        "li": ("mlearn_Li/training.extxyz.gz", "mlearn_Li/test.extxyz.gz"),
        "nacl": ("phonopy_NaCl-rd/displaced_supercells.extxyz.gz", None),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (train, test) in files.items():
        if name not in names or (folder / f"{name}.asnq").exists():
            continue
        overrides = [f"data.train={data / train}", f"training.minutes={minutes}", f"output={folder / 'runs' / name}"]
        overrides += [f"data.test={data / test}"] if test else []
        frames = _without_shear_stress(data / train) if name == "li" else None
        config = load_config(HERE.parent / "examples" / f"{SETTINGS[name]}.yaml", overrides)
        shutil.copy(str(fit(frames, config, quiet=False).path), folder / f"{name}.asnq")


def _without_shear_stress(path: Path) -> list[Atoms]:
    """Frames without the stress of strained two-atom cells of lithium.

    Their shear stresses jump by 0.2 GPa as soon as there is a shear, whatever its size, against their own energies; a
    potential that learns them has a C44 of 2 GPa instead of the 11 GPa of the energies.
    """
    frames = read(path, ":")
    for atoms in frames:
        if atoms.info["group"] == "Elastic":
            del atoms.calc.results["stress"]
    return frames


def relaxed(atoms: Atoms, calculator: AllegroCalculator) -> Atoms:
    entry = relax(atoms, calculator, cell="full", fmax=1e-5, keep_symmetry=True)[0]
    if not entry.converged:
        raise SystemExit(f"{atoms.get_chemical_formula()} has not converged: {entry.max_force} eV/A, {entry.error}")
    return entry.atoms


# -- what is compared -------------------------------------------------------------------------------------------------


def frequencies(phonopy: Any, points: dict[str, tuple[float, ...]], edge: float) -> np.ndarray:
    """Frequencies at special points of a cubic lattice with its axes along x, y, z, THz."""
    phonopy.run_qpoints(np.array(list(points.values())) / edge @ np.asarray(phonopy.primitive.cell).T)
    return np.array(phonopy.qpoints.frequencies)


def load_force_set(path: Path) -> Any:
    """A phonopy object of a DFT force set, with force constants, without long-range terms."""
    import phonopy

    found = phonopy.load(str(path), primitive_matrix="auto", is_nac=False, log_level=0)
    found.symmetrize_force_constants(show_drift=False)
    return found


def force_error(phonopy: Any, calculator: AllegroCalculator) -> tuple[float, float]:
    """Root mean square of the forces of a force set, and of the potential's error on them, eV/Angstrom."""
    results = calculator.evaluate([to_ase(cell) for cell in phonopy.supercells_with_displacements])
    forces = np.array([result["forces"] for result in results])
    return float(np.sqrt(np.mean(phonopy.forces**2))), float(np.sqrt(np.mean((forces - phonopy.forces) ** 2)))


def beside_force_set(system: str, calculator: AllegroCalculator, dft: Any, edge: float, supercell: Any) -> list[Row]:
    """Frequencies at special points in the DFT cell, each distinct one beside the force set's."""
    mine = phonons(to_ase(dft.unitcell), calculator, supercell=supercell, method="hessian").phonopy
    rows = []
    for name, found, reference in zip(FCC, frequencies(mine, FCC, edge), frequencies(dft, FCC, edge), strict=True):
        for k in range(len(found)):
            if reference[k] > 0.1 and (k == 0 or reference[k] - reference[k - 1] > 1e-3):
                rows.append(row(system, f"phonon {name}", "THz", found[k], reference[k], FORCE_SET))
    return rows


def stress_slopes(
    frames: Sequence[Atoms], calculator: AllegroCalculator, size: float
) -> list[tuple[str, float, float]]:
    """C11, C12, C44 of clamped ions by central differences over labelled strained cells: (name, found, DFT), GPa."""
    found: dict[str, list[tuple[float, float]]] = {"C11": [], "C12": [], "C44": []}
    modes: dict[int, dict[int, Atoms]] = {}
    for atoms in frames:
        words = atoms.info["description"].replace(",", "").split()
        if "mode" not in words:
            continue
        mode, strain = int(words[words.index("mode") + 1]), float(words[words.index("strain") + 1])
        if abs(abs(strain) - size) < 1e-9:
            modes.setdefault(mode, {})[int(np.sign(strain))] = atoms
    for pair in modes.values():
        if len(pair) < 2:
            continue
        labels, mine = (
            [np.array(source(pair[sign])) / units.GPa for sign in (1, -1)]
            for source in (lambda a: a.get_stress(), lambda a: calculator.get_property("stress", a))
        )
        deformation = np.linalg.solve(np.asarray(pair[-1].cell), np.asarray(pair[1].cell)) - np.eye(3)
        strain = np.array([*np.diag(deformation), *(deformation + deformation.T)[[1, 0, 0], [2, 2, 1]]])
        axis = int(np.argmax(np.abs(strain)))
        slopes = [(value[0] - value[1]) / strain[axis] for value in (mine, labels)]
        if axis < 3:
            others = [k for k in range(3) if k != axis]
            found["C11"].append((slopes[0][axis], slopes[1][axis]))
            found["C12"].append((slopes[0][others].mean(), slopes[1][others].mean()))
        else:
            found["C44"].append((slopes[0][axis], slopes[1][axis]))
    return [(name, *np.mean(values, axis=0)) for name, values in found.items() if values]


def shear_curvature(frames: Sequence[Atoms], calculator: AllegroCalculator) -> tuple[float, float]:
    """C44 of lithium from the energies of the most sheared and of the unstrained cells: found and DFT, GPa."""
    ground = next(atoms for atoms in frames if "Ground" in atoms.info["description"])
    sheared = [atoms for atoms in frames if abs(atoms.cell.angles() - 90).max() > 1.0]
    found = []
    for energy in (lambda a: calculator.get_property("energy", a), lambda a: a.get_potential_energy()):
        rise = np.mean([energy(atoms) for atoms in sheared]) - energy(ground)
        angle = np.radians(abs(sheared[0].cell.angles() - 90).max())
        found.append(float(2 * rise / (angle**2 * ground.get_volume()) / units.GPa))
    return found[0], found[1]


def elasticity(
    system: str, atoms: Atoms, calculator: AllegroCalculator, experiment: Sequence[float], source: str
) -> list[Row]:
    """Elastic constants and equation of state of the relaxed crystal."""
    tensor = elastic_tensor(atoms, calculator)
    c = tensor.tensor
    rows = [
        row(system, name, "GPa", found, reference, source)
        for name, found, reference in zip(("C11", "C12", "C44"), (c[0, 0], c[0, 1], c[3, 3]), experiment, strict=True)
    ]
    state = equation_of_state(atoms, calculator, span=0.04)
    rows.append(row(system, "bulk modulus, equation of state", "GPa", state.bulk_modulus, None, ""))
    rows.append(row(system, "bulk modulus, elastic tensor", "GPa", tensor.moduli.bulk, None, ""))
    return rows


def silicon(calculator: AllegroCalculator, data: Path) -> list[Row]:
    dft = load_force_set(data / "phonopy_refs/Si/phonopy_params_Si.yaml")
    atoms = relaxed(bulk("Si", a=5.47), calculator)
    frames = _elastic_frames(data, "Si")
    lattice = 2**0.5 * atoms.cell.lengths()[0]
    rows = [row("Si", "lattice constant", "A", lattice, _unstrained(frames, 2), "DFT cell of the data")]
    rows += elasticity("Si", atoms, calculator, (165.6, 63.9, 79.5), HALL)
    rows += [
        row("Si", f"{name}, clamped ions", "GPa", *pair, DATA_STRESS)
        for name, *pair in stress_slopes(frames, calculator, 0.02)
    ]
    total, error = force_error(dft, calculator)
    rows.append(row("Si", "rms error on the force set", "eV/A", error, total, "rms force of the set"))
    rows += beside_force_set("Si", calculator, dft, cubic_edge(dft), dft.supercell_matrix)
    hole = vacancy_energies(atoms, calculator, supercell=[[-2, 2, 2], [2, -2, 2], [2, 2, -2]])[0]
    rows.append(row("Si", "vacancy", "eV", hole.energy, None, ""))
    conventional = relaxed(bulk("Si", a=lattice, cubic=True), calculator)
    surface = surface_energies(conventional, calculator, [(1, 1, 1)])[0]
    rows.append(row("Si", "surface (111), unreconstructed", "J/m^2", surface.joule_per_m2, None, ""))
    return rows


def lithium(calculator: AllegroCalculator, data: Path) -> list[Row]:
    atoms = relaxed(bulk("Li", a=3.44), calculator)
    frames = _elastic_frames(data, "Li")
    lattice = 2 / 3**0.5 * atoms.cell.lengths()[0]
    rows = [row("Li", "lattice constant", "A", lattice, _unstrained(frames, 1), "DFT cell of the data")]
    rows += elasticity("Li", atoms, calculator, (13.42, 11.3, 8.8), NARAYAN)
    rows += [
        row("Li", f"{name}, strained cells", "GPa", *pair, DATA_STRESS)
        for name, *pair in stress_slopes(frames, calculator, 0.01)
        if name != "C44"
    ]
    rows.append(row("Li", "C44, strained cells", "GPa", *shear_curvature(frames, calculator), DATA_ENERGY))
    found = phonons(atoms, calculator, supercell=4, method="hessian").phonopy
    for name, values in zip(BCC, frequencies(found, BCC, lattice), strict=True):
        rows += [row("Li", f"phonon {name}", "THz", value, None, "") for value in np.unique(values.round(3))]
    hole = vacancy_energies(atoms, calculator, supercell=[[0, 3, 3], [3, 0, 3], [3, 3, 0]])[0]
    rows.append(row("Li", "vacancy", "eV", hole.energy, None, ""))
    return rows


def rock_salt(calculator: AllegroCalculator, data: Path) -> list[Row]:
    dft = load_force_set(data / "phonopy_refs/NaCl-rd/phonopy_params_NaCl-fd.yaml.xz")
    total, error = force_error(dft, calculator)
    rows = [row("NaCl", "rms error on the force set", "eV/A", error, total, "rms force of the set")]
    return rows + beside_force_set("NaCl", calculator, dft, cubic_edge(dft), dft.supercell_matrix)


def cubic_edge(phonopy: Any) -> float:
    """Edge of the cubic cell of a face-centred lattice, Angstrom."""
    return float((4 * phonopy.primitive.volume) ** (1 / 3))


def _elastic_frames(data: Path, element: str) -> list[Atoms]:
    frames = [a for part in ("training", "test") for a in read(data / f"mlearn_{element}/{part}.extxyz.gz", ":")]
    return [atoms for atoms in frames if atoms.info["group"] == "Elastic"]


def _unstrained(frames: Sequence[Atoms], cells: int) -> float:
    """Lattice constant of cells of which a strain leaves one vector as it is."""
    return float(np.median([atoms.cell.lengths() for atoms in frames])) / cells


# -- the two paths, and batches ---------------------------------------------------------------------------------------


def paths(name: str, atoms: Atoms, calculator: AllegroCalculator, supercell: int) -> Row:
    """Largest difference of frequencies between the exact path and finite differences of each order, and times."""
    qpoints = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.5, 0.5, 0.5], [0.13, 0.21, 0.4]]
    seconds, exact = timed(lambda: phonons(atoms, calculator, supercell=supercell, method="hessian"))
    found: Row = {
        "system": name,
        "atoms": len(exact.phonopy.supercell),
        "hessian_s": seconds,
        "distance_A": DISTANCE,
        "drift": exact.drift,
        "enforced_drift": exact.enforced_drift,
    }
    for order in (2, 4, 6):
        options = {"supercell": supercell, "order": order, "distance": DISTANCE}
        seconds, other = timed(lambda options=options: phonons(atoms, calculator, **options))
        difference = np.abs(other.frequencies(qpoints) - exact.frequencies(qpoints)).max()
        found[f"order_{order}"] = {
            "largest_difference_THz": float(difference),
            "supercells": other.evaluations,
            "seconds": seconds,
            "drift": other.drift,
        }
    print(json.dumps(found), flush=True)
    return found


def batches(name: str, atoms: Atoms, supercell: int, potential: Path) -> list[Row]:
    """Displaced supercells of a crystal without symmetry, together and one by one, after a first round."""
    atoms = atoms.copy()
    atoms.rattle(0.02, seed=0)
    frames = displaced_supercells(make_phonopy(atoms, supercell), 0.01, 2)
    rows = []
    for dtype in ("float32", "float64"):
        calculator = AllegroCalculator(potential, device="cpu", dtype=dtype)

        def one_by_one(calculator: AllegroCalculator = calculator) -> None:
            for frame in frames:
                calculator.calculate(frame)

        def together(calculator: AllegroCalculator = calculator) -> None:
            calculator.evaluate(frames)

        one_by_one()
        together()
        times = {"alone": [], "together": []}
        for _ in range(3):
            times["alone"].append(timed(one_by_one)[0])
            times["together"].append(timed(together)[0])
        alone, batch = min(times["alone"]), min(times["together"])
        rows.append(
            {
                "system": name,
                "supercells": len(frames),
                "atoms": len(frames[0]),
                "dtype": dtype,
                "one_by_one_s": alone,
                "together_s": batch,
                "ratio": alone / batch,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


SYSTEMS = {"si": ("Si", silicon), "li": ("Li", lithium), "nacl": ("NaCl", rock_salt)}


def main() -> None:
    from bench_peer import hardware

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("ASENEQUIP_DATA", str(HERE.parent.parent / "shared/data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--potentials", type=Path, default=Path("runs/properties"))
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), help="others are kept")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "properties.json")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    data, folder = options.data.resolve(), options.potentials.resolve()
    train_missing(folder, data, options.minutes, options.only)
    record: dict[str, Any] = {"machine": hardware(), "rows": [], "paths": [], "batches": []}
    if options.output.is_file():
        record = {**json.loads(options.output.read_text()), "machine": record["machine"]}
    for name in options.only:
        calculator = AllegroCalculator(folder / f"{name}.asnq", device="cpu", dtype="float64")
        symbol, rows = SYSTEMS[name][0], SYSTEMS[name][1](calculator, data)
        record["rows"] = [old for old in record["rows"] if old["system"] != symbol] + rows
        if name == "si":
            diamond = relaxed(bulk("Si", a=5.47), calculator)
            record["paths"] = [paths("Si", diamond, calculator, 4)]
            record["batches"] = [b for n in (1, 2) for b in batches("Si", diamond, n, folder / "si.asnq")]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
