"""Structures for training on effective-medium labels: alloys, surfaces, molecules, clusters, strained crystals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms, units
from ase.build import add_adsorbate, bulk, fcc100, fcc110, fcc111, fcc211, molecule
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.collections import g2
from ase.data import atomic_numbers, covalent_radii
from ase.md.langevin import Langevin
from ase.optimize import FIRE

METALS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
LIGHT = ("H", "C", "N", "O")
SYMBOLS = (*LIGHT, *METALS)


def strained(
    atoms: Atoms, rng: np.random.Generator, stretch: tuple[float, float], shear: float, rattle: float
) -> Atoms:
    """A copy with a random linear stretch, shear and displacements (Angstrom)."""
    atoms = atoms.copy()
    deformation = np.eye(3) * rng.uniform(*stretch) + shear * rng.uniform(-1, 1, (3, 3))
    atoms.set_cell(np.asarray(atoms.cell) @ deformation, scale_atoms=True)
    atoms.positions += rattle * rng.standard_normal(atoms.positions.shape)
    return atoms


def crystals(rng: np.random.Generator) -> Iterator[Atoms]:
    """Elemental crystals over a wide range of volumes, sheared and rattled."""
    for symbol in METALS:
        for crystal in ("fcc", "hcp", "bcc", "sc"):
            a = bulk(symbol).cell.lengths()[0] * 2**0.5
            scale = {"fcc": 1.0, "hcp": 0.5**0.5, "bcc": 0.5 ** (1 / 3), "sc": 0.25 ** (1 / 3)}[crystal]
            atoms = bulk(symbol, crystal, a=a * scale)
            for stretch in np.linspace(0.78, 1.5, 37):
                yield strained(atoms, rng, (stretch, stretch), 0.0, 0.0)
            for _ in range(12):
                yield strained(atoms, rng, (0.9, 1.15), 0.06, 0.0)
        fcc = bulk(symbol, cubic=True)
        for _ in range(40):
            yield strained(fcc, rng, (0.93, 1.08), 0.05, rng.uniform(0.02, 0.35))
        for _ in range(6):
            yield strained(fcc * (2, 1, 1), rng, (0.97, 1.05), 0.02, rng.uniform(0.02, 0.2))
        for stretch in np.linspace(0.95, 1.06, 23):
            yield strained(bulk(symbol), rng, (stretch, stretch), 0.0, 0.0)
    for symbol in LIGHT:
        radius = covalent_radii[atomic_numbers[symbol]]
        for crystal, scale in (("fcc", 2 * 2**0.5), ("sc", 2.0), ("diamond", 4.62)):
            for stretch in np.linspace(0.75, 1.8, 22):
                yield bulk(symbol, crystal, a=stretch * scale * radius)
            cell = bulk(symbol, crystal, a=scale * radius) * (2, 1, 1)
            for _ in range(12):
                yield strained(cell, rng, (0.8, 1.5), 0.06, 0.15 * radius)


def alloys(rng: np.random.Generator) -> Iterator[Atoms]:
    """Random alloys on the fcc lattice, rock salt, and light atoms between metals."""
    for _ in range(420):
        chosen = rng.choice(METALS, size=rng.integers(2, 4), replace=False)
        atoms = bulk(str(chosen[0]), cubic=True)
        if rng.uniform() < 0.3:
            atoms = atoms * (2, 1, 1)
        atoms.symbols[:] = rng.choice(chosen, size=len(atoms))
        yield strained(atoms, rng, (0.93, 1.1), 0.05, rng.uniform(0.0, 0.3))
    for first in METALS:
        for second in METALS:
            for stretch in np.linspace(0.85, 1.25, 5):
                atoms = bulk(first + second, "rocksalt", a=4.6) if first != second else bulk(first, "sc", a=2.3)
                yield strained(atoms, rng, (stretch, stretch), 0.02, 0.05)
    for _ in range(160):
        atoms = bulk(str(rng.choice(METALS)), cubic=True)
        atoms.append(str(rng.choice(LIGHT)))
        atoms.positions[-1] = atoms.cell.array.sum(0) / 2 + 0.4 * rng.standard_normal(3)
        yield strained(atoms, rng, (1.0, 1.2), 0.03, 0.1)


def small_molecules() -> list[Atoms]:
    """Molecules of H, C, N, O in the g2 collection."""
    return [molecule(name) for name in g2.names if set(molecule(name).symbols) <= set(LIGHT)]


def molecules(rng: np.random.Generator) -> Iterator[Atoms]:
    """Molecules, distorted and on their way to the minimum of EMT."""
    for atoms in small_molecules():
        for _ in range(4):
            yield strained(atoms, rng, (0.9, 1.3), 0.0, rng.uniform(0.0, 0.2))
        yield from relaxation(atoms, 40, 9)
        yield from dynamics(atoms, 600.0, 60, 20, rng)
    for name in ("CO2", "CO", "N2", "H2", "H2O", "CH4", "butadiene", "C6H6", "CH3CH2OH", "CH3", "cyclobutene"):
        for temperature in (100.0, 300.0, 1500.0):
            yield from dynamics(molecule(name), temperature, 120, 8, rng)


def clusters(rng: np.random.Generator) -> Iterator[Atoms]:
    """Dimers, trimers and clusters of any elements, and 13-atom icosahedra."""
    for first in SYMBOLS:
        for second in SYMBOLS:
            reference = covalent_radii[[atomic_numbers[first], atomic_numbers[second]]].sum()
            for distance in reference * np.concatenate([rng.uniform(0.6, 2.0, 5), [1.0]]):
                yield Atoms([first, second], positions=[[0, 0, 0], [0, 0, distance]])
    for distance in np.linspace(0.6, 5.7, 60):
        for symbol in SYMBOLS:
            yield Atoms([symbol] * 2, positions=[[0, 0, 0], [0, 0, distance]])
    for _ in range(500):
        chosen = rng.choice(SYMBOLS, size=rng.integers(1, 4), replace=False)
        yield random_cluster(rng.choice(chosen, size=rng.integers(3, 9)), rng)
    for symbol in METALS:
        for _ in range(6):
            yield strained(Icosahedron(symbol, 2), rng, (0.9, 1.1), 0.0, rng.uniform(0.0, 0.3))
        yield from dynamics(Icosahedron(symbol, 2), 800.0, 100, 20, rng)


def random_cluster(symbols: np.ndarray, rng: np.random.Generator) -> Atoms:
    """Atoms placed one after another, each touching an earlier one."""
    radii = np.array([covalent_radii[atomic_numbers[s]] for s in symbols])
    points = [np.zeros(3)]
    while len(points) < len(symbols):
        k, near = len(points), rng.integers(len(points))
        direction = rng.standard_normal(3)
        length = rng.uniform(0.85, 1.25) * (radii[k] + radii[near])
        point = points[near] + direction / np.linalg.norm(direction) * length
        gaps = np.linalg.norm(np.array(points) - point, axis=1)
        if (gaps > 0.75 * (radii[: len(points)] + radii[k])).all():
            points.append(point)
    return Atoms(list(symbols), positions=points)


def surfaces(rng: np.random.Generator) -> Iterator[Atoms]:
    """Slabs, bare and with atoms or molecules on top, rattled and in motion."""
    makers = (fcc111, fcc100, fcc110)
    for symbol in METALS:
        for maker in makers:
            for layers in (1, 2, 3):
                slab = maker(symbol, (1, 1, layers), vacuum=6.0)
                for _ in range(3):
                    yield strained(slab, rng, (0.96, 1.05), 0.01, rng.uniform(0.0, 0.25))
        slab = fcc211(symbol, (3, 1, 2), vacuum=5.0)
        yield strained(slab, rng, (1.0, 1.0), 0.0, 0.1)
    for _ in range(260):
        symbol = str(rng.choice(METALS))
        size = (2, 2, int(rng.integers(1, 3)))
        slab = makers[rng.integers(3)](symbol, size, vacuum=6.0)
        put_on(slab, rng)
        if rng.uniform() < 0.25:
            yield from dynamics(slab, float(rng.uniform(200, 1000)), 40, 20, rng)
        else:
            yield strained(slab, rng, (0.98, 1.03), 0.01, rng.uniform(0.0, 0.25))
    for adsorbate, height in (("CO2", 1.5), ("CO", 1.8), ("N2", 1.5), ("C", 1.0), ("O", 1.2), ("Pt", 1.6), ("Au", 1.7)):
        for symbol in ("Au", "Cu", "Pt", "Al"):
            for site in ("bridge", "ontop"):
                slab = fcc111(symbol, (2, 2, 2), vacuum=6.0)
                add_adsorbate(
                    slab,
                    molecule(adsorbate) if len(adsorbate) > 1 and adsorbate not in SYMBOLS else adsorbate,
                    height,
                    site,
                )
                yield from relaxation(slab, 40, 8)
                yield from dynamics(slab, 400.0, 40, 20, rng)


def put_on(slab: Atoms, rng: np.random.Generator) -> None:
    """Add an atom or a small molecule above a slab, in place."""
    if rng.uniform() < 0.5:
        guest = Atoms(str(rng.choice(SYMBOLS)))
    else:
        guest = molecule(str(rng.choice(["CO", "CO2", "N2", "H2", "H2O", "CH4", "CH3", "NH3", "O2", "CN", "OH"])))
        guest.rotate(rng.uniform(0, 360), rng.standard_normal(3))
    site = rng.uniform(size=2) @ np.asarray(slab.cell)[:2, :2]
    height = rng.uniform(0.8, 3.0) - guest.positions[:, 2].min()
    add_adsorbate(slab, guest, height + guest.positions[0, 2], site)


def relaxation(atoms: Atoms, steps: int, every: int) -> Iterator[Atoms]:
    """Frames of a FIRE relaxation under EMT."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    optimizer = FIRE(atoms, logfile=None)
    for k, _ in enumerate(optimizer.irun(fmax=0.01, steps=steps)):
        if k % every == 0:
            yield atoms.copy()


def dynamics(atoms: Atoms, temperature: float, steps: int, every: int, rng: np.random.Generator) -> Iterator[Atoms]:
    """Frames of Langevin dynamics under EMT, until it leaves what is reasonable."""
    if len(atoms) < 2:
        return
    atoms = atoms.copy()
    atoms.calc = EMT()
    light = bool(set(atoms.symbols) & {"H"})
    step = (0.6 if light else 2.0) * units.fs
    run = Langevin(atoms, step, temperature_K=temperature, friction=0.02, rng=rng)
    for _ in range(steps // every):
        run.run(every)
        if not np.isfinite(atoms.positions).all() or np.abs(atoms.get_forces()).max() > 100.0:
            return
        yield atoms.copy()


def closely_watched() -> Iterator[Atoms]:
    """Perfect crystals and molecules near their minima, that equations of state and vibrations probe."""
    for symbol in METALS:
        for crystal in ("fcc", "hcp"):
            a = bulk(symbol).cell.lengths()[0] * (2**0.5 if crystal == "fcc" else 1.0)
            for stretch in np.linspace(0.97, 1.03, 13):
                yield bulk(symbol, crystal, a=a * stretch)
    for x in np.linspace(0.98, 1.01, 7):
        yield bulk("Al", a=4.0 * x)
    for a in 3.52 / 2**0.5 * np.linspace(0.98, 1.02, 5):
        for ratio in (8 / 3) ** 0.5 * np.linspace(0.98, 1.02, 5):
            yield bulk("Ni", "hcp", a=a, covera=ratio)


def all_structures(rng: np.random.Generator) -> Iterator[Atoms]:
    """Everything above but the closely watched."""
    for maker in (crystals, alloys, molecules, clusters, surfaces):
        yield from maker(rng)
