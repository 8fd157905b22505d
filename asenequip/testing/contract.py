"""Checks of the contract with ASE: properties, results, inputs, refusals."""

from __future__ import annotations

import json

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    BaseCalculator,
    Calculator,
    CalculatorError,
    InputError,
    PropertyNotImplementedError,
    all_changes,
    all_properties,
)
from ase.data import chemical_symbols

from asenequip.testing.report import CheckFailed, require
from asenequip.testing.subject import Subject, require_close, require_identical


def own_list_of_properties(subject: Subject) -> None:
    """implemented_properties is the class's own list, holds energy and forces, and only names that ASE knows."""
    mine = type(subject.calc).implemented_properties
    for base in (Calculator, BaseCalculator):
        require(mine is not base.implemented_properties, f"the list is that of {base.__name__}, shared by all")
    require({"energy", "forces"} <= set(mine), f"energy or forces is missing from {mine}")
    require(set(mine) <= set(all_properties), f"unknown to ASE: {sorted(set(mine) - set(all_properties))}")


def calculate_has_defaults(subject: Subject) -> None:
    """calculate(atoms) alone fills the results, and so does calculate(atoms, properties)."""
    atoms = subject.cluster()
    subject.calc.reset()
    subject.calc.calculate(atoms)
    require("energy" in subject.calc.results, "no energy after calculate(atoms)")
    subject.calc.calculate(atoms, ["forces"])
    require("forces" in subject.calc.results, "no forces after calculate(atoms, ['forces'])")


def results_have_types(subject: Subject) -> None:
    """The energy is a float; arrays are float64, contiguous, of ASE's shapes; keys are ASE's."""
    atoms = subject.attach(subject.crystal())
    atoms.get_forces()
    results, n = subject.calc.results, len(atoms)
    require(type(results["energy"]) is float, f"the energy is a {type(results['energy'])}")
    shapes = {"forces": (n, 3), "energies": (n,), "stress": (6,), "stresses": (n, 6)}
    for name, value in results.items():
        require(name in all_properties, f"'{name}' is no property of ASE")
        if name in shapes:
            require(isinstance(value, np.ndarray), f"{name} is a {type(value)}")
            require(value.dtype == np.float64, f"{name} has type {value.dtype}")
            require(value.shape == shapes[name], f"{name} has shape {value.shape}")
            require(value.flags.c_contiguous, f"{name} is not contiguous")
    atoms.get_properties([p for p in subject.calc.implemented_properties if p in results])


def results_are_owned(subject: Subject) -> None:
    """Results stay what they were when the calculator goes on, or when the caller writes into them."""
    first, second = subject.attach(subject.crystal()), subject.attach(subject.crystal("rotated"))
    first.get_potential_energy()
    kept = {k: v for k, v in subject.calc.results.items() if isinstance(v, np.ndarray)}
    copies = {k: v.copy() for k, v in kept.items()}
    second.get_potential_energy()
    for name, value in kept.items():
        require(np.array_equal(value, copies[name]), f"{name} changed with the next evaluation")
        require(value.flags.writeable, f"{name} is read-only")
    expected = subject.values(second)["forces"]
    forces = second.get_forces()
    forces[:] = 1e9
    require(np.array_equal(second.get_forces(), expected), "writing into get_forces() changed the stored result")


def inputs_are_untouched(subject: Subject) -> None:
    """The atoms given are bit-identical afterwards."""
    for name, atoms in subject.systems().items():
        before = {k: v.copy() for k, v in atoms.arrays.items()}
        cell, pbc, info = np.array(atoms.cell), atoms.pbc.copy(), dict(atoms.info)
        subject.calc.calculate(atoms, ["energy"], all_changes)
        require(set(before) == set(atoms.arrays), f"{name}: arrays were added or removed")
        for key, value in before.items():
            require(value.tobytes() == atoms.arrays[key].tobytes(), f"{name}: {key} changed")
        require(cell.tobytes() == np.array(atoms.cell).tobytes(), f"{name}: the cell changed")
        require(np.array_equal(pbc, atoms.pbc) and info == atoms.info, f"{name}: pbc or info changed")


def awkward_arrays_are_read(subject: Subject) -> None:
    """Read-only and non-contiguous arrays of positions, numbers and cell give the same numbers."""
    atoms = subject.crystal()
    expected = subject.values(atoms)
    for label in ("read-only", "Fortran order", "strided"):
        other = atoms.copy()
        positions, numbers = other.positions, other.numbers
        if label == "Fortran order":
            positions = np.asfortranarray(positions)
        if label == "strided":
            positions = np.repeat(positions, 2, axis=0)[::2]
            numbers = np.repeat(numbers, 2)[::2]
        if label == "read-only":
            positions.flags.writeable = numbers.flags.writeable = other.cell.array.flags.writeable = False
        other.arrays["positions"], other.arrays["numbers"] = positions, numbers
        subject.calc.reset()
        subject.calc.calculate(other, ["energy", "forces"], all_changes)
        found = {k: subject.calc.results[k] for k in ("energy", "forces")}
        require_identical(found, expected, label)


def empty_atoms(subject: Subject) -> None:
    """No atoms have energy 0 and forces of shape (0, 3), with and without a cell."""
    for atoms in (Atoms(), Atoms(cell=[3, 3, 3], pbc=True)):
        values = subject.values(atoms)
        require(values["energy"] == 0.0, f"the energy is {values['energy']}")
        require(values["forces"].shape == (0, 3), f"the forces have shape {values['forces'].shape}")
        if "stress" in values:
            require(np.array_equal(values["stress"], np.zeros(6)), f"the stress is {values['stress']}")


def isolated_atom(subject: Subject) -> None:
    """A lone atom has a finite energy and exactly no force, for every element."""
    for symbol in subject.symbols:
        for atoms in (Atoms(symbol), Atoms(symbol, cell=np.eye(3) * 60.0, pbc=True)):
            values = subject.values(atoms)
            require(np.isfinite(values["energy"]), f"{symbol}: the energy is {values['energy']}")
            require(not values["forces"].any(), f"{symbol}: the force is {values['forces'].tolist()}")


def all_systems_are_finite(subject: Subject) -> None:
    """Every named structure gives finite numbers of the right shapes."""
    for name, atoms in subject.systems().items():
        for key, value in subject.values(atoms).items():
            require(np.isfinite(value).all(), f"{name}: {key} is not finite")


def stress_needs_a_volume(subject: Subject) -> None:
    """Without three lattice vectors there is an energy and no stress; a slab in a full cell has both."""
    subject.needs("stress")
    for cell in (None, [3.0, 0, 0], [3.0, 4.0, 0]):
        atoms = subject.attach(subject.cluster())
        atoms.cell = np.zeros(3) if cell is None else cell
        try:
            atoms.get_stress()
        except PropertyNotImplementedError:
            pass
        else:
            raise CheckFailed(f"a cell of rank {atoms.cell.rank} has a stress")
        require(np.isfinite(atoms.get_potential_energy()), "no energy after the refused stress")
    slab = subject.attach(subject.systems()["slab with vacuum"])
    slab.pbc = [True, True, False]
    require(np.isfinite(slab.get_stress()).all(), "a slab with a full cell has no stress")


def unknown_property_is_refused(subject: Subject) -> None:
    """A property that is not implemented raises PropertyNotImplementedError."""
    atoms = subject.attach(subject.cluster())
    missing = [p for p in ("dipole", "charges", "magmom") if not subject.has(p)]
    for name in missing:
        try:
            subject.calc.get_property(name, atoms)
        except PropertyNotImplementedError:
            continue
        raise CheckFailed(f"'{name}' is not refused")


def broken_geometry_is_refused(subject: Subject) -> None:
    """Positions or cells that are not numbers, and coinciding atoms, raise ASE's errors, never give NaN."""
    for label, value in (("NaN", np.nan), ("infinite", np.inf)):
        atoms = subject.crystal()
        atoms.positions[1, 2] = value
        _must_refuse(subject, atoms, f"{label} positions")
        atoms = subject.crystal()
        atoms.cell[0, 0] = value
        _must_refuse(subject, atoms, f"{label} cell")
    atoms = subject.cluster()
    atoms.positions[-1] = atoms.positions[0]
    _must_refuse(subject, atoms, "coinciding atoms")
    atoms = subject.cluster()
    atoms.pbc = True
    _must_refuse(subject, atoms, "periodic without a cell")


def _must_refuse(subject: Subject, atoms: Atoms, what: str) -> None:
    try:
        subject.attach(atoms).get_potential_energy()
    except (CalculatorError, ValueError):
        return
    raise CheckFailed(f"{what} were evaluated")


def unknown_element_is_named(subject: Subject) -> None:
    """An element that the calculator does not know raises InputError with the atom and the element."""
    foreign = next(s for s in reversed(chemical_symbols) if s not in subject.symbols)
    atoms = subject.cluster()
    atoms.symbols[3] = foreign
    try:
        subject.attach(atoms).get_potential_energy()
    except InputError as error:
        require(foreign in str(error) and "3" in str(error), f"the message names neither: {error}")
        return
    raise CheckFailed(f"{foreign} was evaluated")


def parameters_are_jsonable(subject: Subject) -> None:
    """todict() survives JSON, as trajectories, databases and optimizers need."""
    import tempfile
    from pathlib import Path

    from ase.io import Trajectory, read

    values = subject.calc.todict()
    require(isinstance(values, dict), f"todict() is a {type(values)}")
    json.dumps(values, allow_nan=False)
    atoms = subject.attach(subject.crystal())
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.traj"
        with Trajectory(path, "w", atoms) as trajectory:
            trajectory.write()
        stored = read(path, index=0)
        if not isinstance(stored, Atoms):
            raise CheckFailed("the trajectory holds no structure")
        require_close(stored.get_potential_energy(), energy, 1e-14, "the stored energy")
        require_close(stored.get_forces(), forces, 1e-14, "the stored forces")


CHECKS = (
    own_list_of_properties,
    calculate_has_defaults,
    results_have_types,
    results_are_owned,
    inputs_are_untouched,
    awkward_arrays_are_read,
    empty_atoms,
    isolated_atom,
    all_systems_are_finite,
    stress_needs_a_volume,
    unknown_property_is_refused,
    broken_geometry_is_refused,
    unknown_element_is_named,
    parameters_are_jsonable,
)
