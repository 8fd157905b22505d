"""Classes of environments found in real frames, beside what is known of them.

    python benchmarks/bench_environments.py --silicon si.asnq --electrolyte lpscl.asnq

Crystals and a liquid of one element (pyscal's structures), solid and liquid silicon, polymorphs of Li-P-S, and dynamics
of Li6PS5Cl with all sites known, each described by SOAP and by the latent features of a potential; without a potential
its rows are left out (examples/mlearn_si.yaml and examples/lpscl.yaml train them in minutes; the packaged potential of
EMT describes the first set). The public sets lie in the folder ASENEQUIP_DATA. Results go to
benchmarks/results/environments.json.

Every row has the classes found, the adjusted Rand index against what is known, over all environments and over those
outside the halo, and homogeneity (1: no class holds two kinds) and completeness (1: no kind is split).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import read
from ase.md.langevin import Langevin
from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure

from asenequip import AllegroCalculator, __version__
from asenequip.cluster import SOAP, Averaged, EnvironmentClusters
from asenequip.cluster.neighbours import nearest_neighbours

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("ASENEQUIP_DATA", HERE.parent.parent / "shared/data"))
Descriptor = Callable[[Atoms], np.ndarray]


def crystals() -> tuple[list[Atoms], np.ndarray]:
    """fcc, bcc, hcp and liquid of one element, here aluminium."""
    frames = [read(DATA / f"structures/pyscal_{name}.extxyz.gz") for name in ("fcc", "bcc", "hcp", "liquid")]
    for atoms in frames:
        atoms.symbols[:] = "Al"
        shortest = nearest_neighbours(atoms.positions, 1, period=atoms.cell.lengths()).distances[:, 1].mean()
        atoms.set_cell(atoms.cell * 2.7 / shortest, scale_atoms=True)
    return frames, np.repeat(np.arange(4), [len(atoms) for atoms in frames])


def silicon(calculator: Any, steps: int = 1500) -> tuple[list[Atoms], np.ndarray]:
    """Diamond at 1000 K and a melt at 2500 K, after it was molten at 5000 K, ten frames of each."""
    found: list[Atoms] = []
    for stages in ([(1000.0, steps)], [(5000.0, steps), (2500.0, steps)]):
        atoms = bulk("Si", "diamond", a=5.46, cubic=True) * 3
        atoms.calc = calculator
        for kelvin, count in stages:
            dynamics = Langevin(
                atoms, 2 * units.fs, temperature_K=kelvin, friction=0.1, fixcm=False, rng=np.random.default_rng(1)
            )
            dynamics.run(count)
        for _ in range(10):
            dynamics.run(20)
            found.append(Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True))
    return found, np.repeat([0, 1], 10 * 216)


def polymorphs() -> tuple[list[Atoms], np.ndarray]:
    """Lithium, phosphorus, sulfur and their compounds: what is known is the compound and the element."""
    frames = read(DATA / "lips20/all_every20.extxyz.gz", "::5")
    names = sorted({atoms.info["system"] for atoms in frames})
    return frames, np.concatenate([names.index(a.info["system"]) * 100 + a.numbers for a in frames])


def electrolyte(kind: str, every: str) -> tuple[list[Atoms], np.ndarray]:
    """Li6PS5Cl: lithium, phosphorus, chlorine, sulfur of PS4 units and free sulfur."""
    frames = read(DATA / f"lpscl_aimd_traj/0p_run1_{kind}_every2.extxyz.gz", every)
    truth = []
    for atoms in frames:
        kinds = atoms.numbers.copy()
        sulfur = np.flatnonzero(atoms.numbers == 16)
        near = atoms.get_all_distances(mic=True)[np.ix_(sulfur, np.flatnonzero(atoms.numbers == 15))].min(axis=1)
        kinds[sulfur[near > 2.8]] = 0
        truth.append(kinds)
    return frames, np.concatenate(truth)


def row(name: str, described: str, frames: list[Atoms], truth: np.ndarray, model: EnvironmentClusters) -> dict:
    start = time.perf_counter()
    out = model.fit_transform(frames)
    labels = np.concatenate([atoms.arrays["cluster"] for atoms in out])
    core = ~np.concatenate([atoms.arrays["halo"] for atoms in out])
    homogeneity, completeness, _ = homogeneity_completeness_v_measure(truth, labels)
    found = {
        "set": name,
        "descriptor": described,
        "species": model.species,
        "frames": len(frames),
        "environments": len(truth),
        "kinds known": len(np.unique(truth)),
        "classes": model.n_clusters_,
        "adjusted Rand index": round(float(adjusted_rand_score(truth, labels)), 4),
        "outside the halo": round(float(adjusted_rand_score(truth[core], labels[core])), 4),
        "share outside the halo": round(float(core.mean()), 3),
        "homogeneity": round(float(homogeneity), 4),
        "completeness": round(float(completeness), 4),
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(found), flush=True)
    return found


def compare(
    name: str, frames: list[Atoms], truth: np.ndarray, latent: Descriptor | None, shell: float | None, **options: Any
) -> list[dict]:
    """One row with SOAP and one with latent features; with `shell`, also of each averaged over neighbours within it."""
    elements = sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()})
    described: dict[str, Descriptor] = {"SOAP": SOAP(elements)}
    if latent is not None:
        described["latent features"] = latent
    if shell is not None:
        described |= {f"{key}, averaged": Averaged(value, shell) for key, value in described.items()}
    return [
        row(name, label, frames, truth, EnvironmentClusters(descriptor, components=10, **options))
        for label, descriptor in described.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--silicon", type=Path, help="potential of silicon, a .asnq file")
    parser.add_argument("--electrolyte", type=Path, help="potential of Li, P, S and Cl, a .asnq file")
    parser.add_argument("--sets", nargs="+", default=["crystals", "silicon", "polymorphs", "electrolyte"])
    options = parser.parse_args()
    rows: list[dict] = []
    if "crystals" in options.sets:
        packaged = AllegroCalculator(files("asenequip.data") / "emt.asnq", device="cpu")
        rows += compare("fcc, bcc, hcp, liquid", *crystals(), packaged.descriptors, 3.6)
    if "silicon" in options.sets and options.silicon:
        calculator = AllegroCalculator(options.silicon, device="cpu")
        rows += compare("silicon, solid and liquid", *silicon(calculator), calculator.descriptors, 3.0)
    latent = AllegroCalculator(options.electrolyte, device="cpu").descriptors if options.electrolyte else None
    if "polymorphs" in options.sets:
        rows += compare("polymorphs of Li-P-S", *polymorphs(), latent, None, species="separately")
    if "electrolyte" in options.sets:
        for kind, label in (("inherent", "Li6PS5Cl, inherent structures"), ("actual", "Li6PS5Cl, dynamics")):
            rows += compare(label, *electrolyte(kind, "::4"), latent, None, species="separately")
    report = {
        "versions": {"asenequip": __version__, "numpy": np.__version__},
        "potentials": {
            name: hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            for name, path in (("silicon", options.silicon), ("electrolyte", options.electrolyte))
            if path is not None
        },
        "rows": rows,
    }
    target = HERE / "results" / "environments.json"
    target.write_text(json.dumps(report, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    main()
