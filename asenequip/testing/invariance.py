"""Checks of the symmetries: what must not change when nothing physical does."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from asenequip.testing.report import NotApplicable, require
from asenequip.testing.subject import Subject, Values, require_close
from asenequip.testing.systems import random_rotation


def _typical(subject: Subject) -> dict[str, Atoms]:
    named = subject.systems()
    chosen = ("cluster", "slab with vacuum", "one atom, small cell", "skewed TTT", "left-handed TTF", "rotated FTF")
    return {name: named[name] for name in chosen}


def translation(subject: Subject) -> None:
    """Moving all atoms together changes nothing."""
    for name, atoms in _typical(subject).items():
        moved = atoms.copy()
        moved.positions += [0.37, -4.1, 2.9]
        subject.same(subject.values(moved), subject.values(atoms), name)


def rotation(subject: Subject) -> None:
    """Turning atoms and cell, also by an improper rotation, turns forces and stress and leaves the energy."""
    rng = subject.rng()
    for name, atoms in _typical(subject).items():
        turn = random_rotation(rng)
        for sign, label in ((1.0, "rotated"), (-1.0, "inverted")):
            matrix = sign * turn
            turned = atoms.copy()
            turned.set_cell(np.asarray(atoms.cell) @ matrix)
            turned.positions = atoms.positions @ matrix
            expected = _turned(subject.values(atoms), matrix)
            subject.same(subject.values(turned), expected, f"{name}, {label}")


def _turned(values: Values, matrix: np.ndarray) -> Values:
    turned = {**values, "forces": values["forces"] @ matrix}
    if "stress" in values:
        full = voigt_6_to_full_3x3_stress(values["stress"])
        turned["stress"] = full_3x3_to_voigt_6_stress(matrix.T @ full @ matrix)
    return turned


def permutation(subject: Subject) -> None:
    """Renumbering the atoms renumbers the forces."""
    rng = subject.rng()
    for name, atoms in _typical(subject).items():
        order = rng.permutation(len(atoms))
        expected = subject.values(atoms)
        expected = {k: v[order] if k in ("forces", "energies") else v for k, v in expected.items()}
        subject.same(subject.values(atoms[order]), expected, name)


def lattice_shifts(subject: Subject) -> None:
    """Moving single atoms by whole lattice vectors of periodic directions changes nothing."""
    rng = subject.rng()
    for name, atoms in _typical(subject).items():
        moved = atoms.copy()
        moved.positions += (rng.integers(-6, 7, (len(atoms), 3)) * atoms.pbc) @ np.asarray(atoms.cell)
        subject.same(subject.values(moved), subject.values(atoms), name)


def other_lattice_vectors(subject: Subject) -> None:
    """Another basis of the same lattice, also a left-handed one, changes nothing."""
    atoms = subject.crystal()
    expected = subject.values(atoms)
    for basis in (
        [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
        [[1, 0, 0], [1, 1, 0], [0, -1, 1]],
        [[-1, 0, 0], [0, 1, 0], [0, 0, 1]],
    ):
        other = atoms.copy()
        other.set_cell(np.array(basis) @ np.asarray(atoms.cell))
        subject.same(subject.values(other), expected, f"basis {basis}")


def supercell(subject: Subject) -> None:
    """A supercell has the energy of its primitive cells, their forces, and the same stress."""
    atoms = subject.crystal()
    values = subject.values(atoms)
    for repeats in ((2, 1, 1), (1, 2, 3)):
        count = int(np.prod(repeats))
        expected = {**values, "energy": count * values["energy"], "forces": np.tile(values["forces"], (count, 1))}
        if "energies" in values:
            expected["energies"] = np.tile(values["energies"], count)
        subject.same(subject.values(atoms.repeat(repeats)), expected, f"{repeats}")


def extensive(subject: Subject) -> None:
    """Two clusters far apart have the sum of their energies and their own forces."""
    first, second = subject.cluster(), subject.cluster(3)
    second.positions += 50.0 + 4.0 * (subject.cutoff or 10.0)
    a, b, both = (subject.values(x) for x in (first, second, first + second))
    count = len(first) + len(second)
    require_close(both["energy"], a["energy"] + b["energy"], count * subject.tolerances.energy, "the energy")
    require_close(both["forces"], np.concatenate([a["forces"], b["forces"]]), subject.tolerances.forces, "the forces")


def strictly_local(subject: Subject) -> None:
    """An atom beyond twice the cutoff changes no force, and beyond the cutoff no atomic energy."""
    reach = subject.reach()
    atoms = subject.cluster()
    top = int(np.argmax(atoms.positions[:, 2]))
    guest = Atoms(atoms.symbols[top], positions=[atoms.positions[top] + [0, 0, 1.0001 * reach]])
    if subject.has("energies"):
        found = subject.values(atoms + guest)["energies"][:-1]
        require_close(found, subject.values(atoms)["energies"], subject.tolerances.energy, "atomic energies")
    chain = Atoms([atoms.symbols[top]] * 3, positions=[[0, 0, 0], [0, 0, 0.9 * reach], [0, 0, 1.8 * reach]])
    far = chain + Atoms(chain.symbols[0], positions=[[0, 0, 2.75 * reach]])
    a, b = (subject.values(x)["forces"][0] for x in (chain, far))
    require_close(b, a, subject.tolerances.forces, "the force on an atom more than two cutoffs away")


def periodic_is_unrolled(subject: Subject) -> None:
    """Atomic energies of a periodic structure are those of its atoms inside a large enough cluster of images."""
    subject.needs("energies")
    reach = subject.reach()
    for name, atoms in subject.systems().items():
        if len(atoms) and np.asarray(atoms.cell).max() < 50 and atoms.pbc.any():
            found = subject.values(atoms)["energies"]
            for k in {0, len(atoms) - 1}:
                cluster = _unrolled(atoms, k, reach)
                expected = subject.values(cluster)["energies"][0]
                require_close(found[k], expected, subject.tolerances.energy, f"{name}, atom {k}")


def _unrolled(atoms: Atoms, center: int, reach: float) -> Atoms:
    """The images of all atoms within ``reach`` of one, itself first, without a cell."""
    cell = np.asarray(atoms.cell)
    heights = [
        1.0 / np.linalg.norm(column) if np.linalg.norm(column) > 0 else np.inf for column in np.linalg.pinv(cell).T
    ]
    spread = np.ptp(atoms.positions, axis=0)
    counts = [
        int(np.ceil((reach + np.linalg.norm(spread)) / h)) + 1 if p else 0
        for h, p in zip(heights, atoms.pbc, strict=True)
    ]
    shifts = np.stack(np.meshgrid(*[np.arange(-c, c + 1) for c in counts], indexing="ij"), -1).reshape(-1, 3)
    points = (atoms.positions[None] + (shifts @ cell)[:, None]).reshape(-1, 3)
    symbols = np.tile(np.array(atoms.symbols), len(shifts))
    distances = np.linalg.norm(points - atoms.positions[center], axis=1)
    near = np.flatnonzero(distances < reach + 1e-6)
    near = near[np.argsort(distances[near], kind="stable")]
    return Atoms(list(symbols[near]), positions=points[near])


def atomic_parts_add_up(subject: Subject) -> None:
    """Atomic energies sum to the energy, atomic stresses to the stress, and the free energy is the energy."""
    for name, atoms in _typical(subject).items():
        carrier = subject.attach(atoms)
        energy = carrier.get_potential_energy()
        tolerances = subject.tolerances
        if subject.has("free_energy"):
            free = carrier.get_potential_energy(force_consistent=True)
            require(free == energy, f"{name}: the free energy is {free}, the energy {energy}")
        if subject.has("energies"):
            total = carrier.get_potential_energies().sum()
            require_close(total, energy, len(atoms) * tolerances.energy, f"{name}: the sum of energies")
        if subject.has("stresses") and atoms.cell.rank == 3:
            summed = carrier.get_stresses().sum(axis=0)
            require_close(summed, carrier.get_stress(), tolerances.stress, f"{name}: the sum of stresses")


def batch_is_single(subject: Subject) -> None:
    """Where the calculator evaluates lists, a mixed list with empty frames gives the numbers of its members."""
    evaluate = getattr(subject.calc, "evaluate", None)
    if evaluate is None:
        raise NotApplicable("the calculator has no method evaluate(frames)")
    frames = list(subject.systems().values())
    for atoms, found in zip(frames, evaluate(frames), strict=True):
        subject.same(found, subject.values(atoms), str(atoms.symbols))


CHECKS = (
    translation,
    rotation,
    permutation,
    lattice_shifts,
    other_lattice_vectors,
    supercell,
    extensive,
    strictly_local,
    periodic_is_unrolled,
    atomic_parts_add_up,
    batch_is_single,
)
