"""Files of trajectories: the same frames whoever wrote them, and dumps of LAMMPS frame by frame."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from ase.io.trajectory import Trajectory
from numpy.testing import assert_allclose

from asenequip.interface import Diffusion, make_crystal, stream
from asenequip.interface.trajectory import count_frames, open_frames


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


def test_a_wrong_slice_is_named(tmp_path):
    with Trajectory(tmp_path / "a.traj", "w") as file:
        file.write(make_crystal("Li"))
    with pytest.raises(ValueError, match="The 'index' parameter of stream"):
        count_frames(tmp_path / "a.traj", "first")
