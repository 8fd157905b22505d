"""Make the sample data: Li6PS5Cl dynamics labelled by GFN1-xTB.

Short, independent Langevin trajectories of the 52-atom conventional cell of argyrodite Li6PS5Cl, each at its own
temperature and strain and with its own lithium arrangement, run on GFN1-xTB through tblite; the kept frames carry
energy, forces and stress.

    python examples/make_li6ps5cl_data.py run parts/                        # one part per trajectory; again: resume
    python examples/make_li6ps5cl_data.py gather parts/ li6ps5cl.extxyz.gz  # join the finished parts

The file shipped with the package is the first eleven trajectories: `run parts/ --trajectories 11`.

Nothing is overwritten: finished trajectories are skipped, and `gather` refuses an output file that exists.

Method: GFN1-xTB (S. Grimme, C. Bannwarth, P. Shushkov, J. Chem. Theory Comput. 13, 1989 (2017), doi
10.1021/acs.jctc.7b00118) at the Gamma point with an electronic temperature of 300 K. The energy is the electronic free
energy, the one whose derivatives forces and stress are. The dynamics use a loose numerical accuracy, the labels a tight
one: a label belongs to the stored positions alone, however these were reached.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, write
from ase.md.langevin import Langevin
from ase.spacegroup import crystal

LATTICE_PARAMETER = 9.859  # A
# F-43m (216); lattice and sites follow the diffraction studies of H.-J. Deiseroth and co-workers, Angew. Chem. Int. Ed.
# 47, 755 (2008), and M. A. Kraft and co-workers, J. Am. Chem. Soc. 139, 10909 (2017), rounded: they only start the
# dynamics. Cl and S do not exchange between 4a and 4c.
FRAMEWORK_SITES = (
    ("P", (0.5, 0.5, 0.5)),  # 4b
    ("S", (0.25, 0.25, 0.25)),  # 4c, sulfide bound to lithium only
    ("S", (0.618, 0.618, 0.618)),  # 16e, thiophosphate; P-S 2.02 A
    ("Cl", (0.0, 0.0, 0.0)),  # 4a
)
LITHIUM_SITE = (0.183, 0.183, 0.024)  # 48h, half occupied: one site of each pair 1.87 A apart

EQUILIBRATION_TIMESTEP, EQUILIBRATION_FRICTION = 1.0, 0.1  # fs, 1/fs: strongly damped, removes the heat of the start
PRODUCTION_TIMESTEP, PRODUCTION_FRICTION = 2.0, 0.02  # fs, 1/fs
RATTLE = 0.03  # A
DYNAMICS_ACCURACY, LABEL_ACCURACY = 100.0, 0.01  # tblite's accuracy factor; smaller is tighter
POSITION_DECIMALS, ENERGY_DECIMALS, FORCE_DECIMALS, STRESS_DECIMALS = 5, 6, 5, 8
GAP_FRAMES = 1  # frame slots left empty between the blocks train, valid, test of a trajectory
VALID_FRACTION, TEST_FRACTION = 0.15, 0.2
TEMPERATURES = [300.0, 600.0, 900.0, 1200.0]  # K
STRAINS = ["iso+0", "iso-3", "shear+3", "iso+4", "uni+4", "iso+2", "iso-1.5"]

app = typer.Typer(add_completion=False, help=__doc__)


@dataclass(frozen=True)
class Trajectory:
    """One independent trajectory.

    Attributes
    ----------
    index : int
        Position in the plan.
    temperature : float
        Thermostat, K.
    strain : str
        ``iso``, ``uni`` or ``shear`` followed by a signed percentage, see `deformation`.
    frames : int
        Frames kept.
    stride : int
        Steps between kept frames.
    equilibration : int
        Steps of 1 fs before production.
    held_out : bool
        Whether every frame is a test frame.
    seed : int
        Seed of the whole data set; the trajectory draws from ``(seed, index)``.
    """

    index: int
    temperature: float
    strain: str
    frames: int
    stride: int
    equilibration: int
    held_out: bool
    seed: int

    @property
    def name(self) -> str:
        """File name of the finished part."""
        return f"trajectory-{self.index:03d}.extxyz.gz"


def deformation(strain: str) -> np.ndarray:
    """Deformation gradient of a strain label.

    Parameters
    ----------
    strain : str
        ``iso-3``: every axis 3 % shorter; ``uni+4``: z 4 % longer; ``shear+3``: tensor strain of 3 % in yz, symmetric.

    Returns
    -------
    numpy.ndarray
        (3, 3) float64; the strained cell is ``cell @ deformation``.

    Raises
    ------
    typer.BadParameter
        If the label is not of this form.
    """
    match = re.fullmatch(r"(iso|uni|shear)([+-]\d+(?:\.\d+)?)", strain)
    if match is None:
        raise typer.BadParameter(
            "The 'strain' parameter of deformation must be iso, uni or shear and a signed percentage. "
            f"Got {strain!r} instead. Write for instance iso-3, uni+4 or shear+3."
        )
    amount = float(match[2]) / 100.0
    gradient = np.eye(3)
    if match[1] == "iso":
        gradient += amount * np.eye(3)
    elif match[1] == "uni":
        gradient[2, 2] += amount
    else:
        gradient[1, 2] = gradient[2, 1] = amount
    return gradient


def choose_lithium(sites: Atoms, rng: np.random.Generator) -> Atoms:
    """Occupy one site of each close pair of 48h sites, the occupied ones kept apart.

    A random choice is improved by flipping single pairs, in random order, while this lowers the sum over occupied sites
    of ``exp(-distance / 0.3 A)``: a local minimum, another one for each seed.

    Parameters
    ----------
    sites : Atoms
        All 48 sites, periodic.
    rng : numpy.random.Generator
        Source of the choice.

    Returns
    -------
    Atoms
        The 24 occupied sites.
    """
    distances = sites.get_all_distances(mic=True)
    np.fill_diagonal(distances, np.inf)
    partner = distances.argmin(axis=1)
    pairs = np.array([(i, j) for i, j in enumerate(partner) if i < j])
    closeness = np.exp(-distances / 0.3)
    occupied = rng.integers(2, size=len(pairs))
    improved = True
    while improved:
        improved = False
        for p in rng.permutation(len(pairs)):
            others = np.delete(pairs[np.arange(len(pairs)), occupied], p)
            cost = closeness[pairs[p]][:, others].sum(axis=1)
            if cost[1 - occupied[p]] < cost[occupied[p]] - 1e-9:
                occupied[p] = 1 - occupied[p]
                improved = True
    return sites[pairs[np.arange(len(pairs)), occupied]]


def build_cell(strain: str, rng: np.random.Generator) -> Atoms:
    """Li24P4S20Cl4 in the order Li, P, S, Cl, strained (see `deformation`) and rattled, without a calculator."""
    cellpar = [LATTICE_PARAMETER] * 3 + [90.0] * 3
    lithium = crystal(["Li"], [LITHIUM_SITE], spacegroup=216, cellpar=cellpar)
    symbols, basis = zip(*FRAMEWORK_SITES, strict=True)
    framework = crystal(list(symbols), list(basis), spacegroup=216, cellpar=cellpar)
    joined = choose_lithium(lithium, rng) + framework
    atoms = Atoms(joined.symbols, positions=joined.positions, cell=joined.cell, pbc=True)
    atoms.set_cell(np.round(atoms.cell.array @ deformation(strain), POSITION_DECIMALS), scale_atoms=True)
    atoms.positions += rng.normal(scale=RATTLE, size=atoms.positions.shape)
    return atoms


def label(atoms: Atoms) -> Atoms:
    """Round the positions, then compute the labels that belong to the rounded ones.

    The self-consistent cycle starts afresh, so the labels depend on the stored numbers alone.

    Parameters
    ----------
    atoms : Atoms
        Frame; left as it is.

    Returns
    -------
    Atoms
        Rounded copy without velocities, with a `SinglePointCalculator`: energy (eV), forces (n_atoms, 3) (eV/A),
        stress (6,) (eV/A^3, ASE's sign and order).
    """
    from tblite.ase import TBLite

    frame = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    frame.positions = np.round(frame.positions, POSITION_DECIMALS)
    frame.calc = TBLite(method="GFN1-xTB", accuracy=LABEL_ACCURACY, verbosity=0)
    forces = np.round(frame.get_forces(), FORCE_DECIMALS)
    energy = round(float(frame.get_potential_energy()), ENERGY_DECIMALS)
    stress = np.round(frame.get_stress(), STRESS_DECIMALS)
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces, stress=stress)
    return frame


def splits(frames: int, held_out: bool) -> list[str | None]:
    """Blocks in time: train, an empty slot, valid, an empty slot, test; None where no frame is kept."""
    if held_out:
        return ["test"] * frames
    n_valid = max(1, round(VALID_FRACTION * frames))
    n_test = max(1, round(TEST_FRACTION * frames))
    gap = [None] * GAP_FRAMES
    return ["train"] * (frames - n_valid - n_test) + gap + ["valid"] * n_valid + gap + ["test"] * n_test


def run_trajectory(plan: Trajectory, folder: Path) -> str:
    """Run one trajectory, write its part into the folder and return one line of progress."""
    from tblite.ase import TBLite

    start = time.perf_counter()
    rng = np.random.default_rng([plan.seed, plan.index])
    atoms = build_cell(plan.strain, rng)
    atoms.calc = TBLite(method="GFN1-xTB", accuracy=DYNAMICS_ACCURACY, verbosity=0)
    velocities = rng.normal(size=(len(atoms), 3)) * np.sqrt(units.kB * plan.temperature / atoms.get_masses())[:, None]
    atoms.set_velocities(velocities - np.average(velocities, axis=0, weights=atoms.get_masses()))

    langevin = partial(Langevin, atoms, temperature_K=plan.temperature, fixcm=False, rng=rng)
    equilibration = langevin(timestep=EQUILIBRATION_TIMESTEP * units.fs, friction=EQUILIBRATION_FRICTION / units.fs)
    equilibration.run(plan.equilibration)
    dynamics = langevin(timestep=PRODUCTION_TIMESTEP * units.fs, friction=PRODUCTION_FRICTION / units.fs)
    frames = []
    for slot, split in enumerate(splits(plan.frames, plan.held_out), start=1):
        dynamics.run(plan.stride)
        if split is None:
            continue
        frame = label(atoms)
        frame.info = {
            "method": "GFN1-xTB",
            "trajectory": plan.index,
            "step": slot * plan.stride,
            "time_fs": slot * plan.stride * PRODUCTION_TIMESTEP,
            "temperature": plan.temperature,
            "kinetic_temperature": round(float(atoms.get_temperature()), 1),
            "strain": plan.strain,
            "split": split,
        }
        frames.append(frame)
    write_frames(folder / plan.name, frames)
    mean = np.mean([frame.info["kinetic_temperature"] for frame in frames])
    rms = np.sqrt(np.mean([frame.get_forces() ** 2 for frame in frames]))
    return (
        f"trajectory {plan.index:3d}  {plan.temperature:6.0f} K  {plan.strain:8s}  {len(frames)} frames, "
        f"mean kinetic temperature {mean:5.0f} K, rms force {rms:.3f} eV/A, {time.perf_counter() - start:.0f} s"
    )


def write_frames(path: Path, frames: list[Atoms]) -> None:
    """Write gzip'ed extended XYZ atomically; refuse a path that exists.

    Parameters
    ----------
    path : Path
        File to make, named ``*.extxyz.gz``.
    frames : list of Atoms
        Labelled frames.

    Raises
    ------
    FileExistsError
        If the path exists.
    """
    if path.exists():
        raise FileExistsError(
            f"The 'path' parameter of write_frames must be a new file. Got {path} instead. "
            "Remove it or choose another name."
        )
    text = io.StringIO()
    write(text, frames, format="extxyz")
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(gzip.compress(text.getvalue().encode("ascii"), compresslevel=9, mtime=0))
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def make_plan(
    temperatures: list[float], strains: list[str], n_trajectories: int, held_out: int, **common: int
) -> list[Trajectory]:
    """Spread trajectories over temperature x strain.

    Round by round each temperature takes its next strain, beginning two further down the list than the temperature
    before it: few trajectories already cover all temperatures and strains, and after
    ``len(temperatures) * len(strains)`` of them every combination has come once.
    """
    plan = []
    for index in range(n_trajectories):
        turn, column = divmod(index, len(temperatures))
        strain = strains[(turn + 2 * column) % len(strains)]
        plan.append(Trajectory(index, temperatures[column], strain, held_out=index == held_out, **common))
    return plan


def is_finished(plan: Trajectory, folder: Path) -> bool:
    """Whether the folder holds the part; refuse one that was made with other options."""
    path = folder / plan.name
    if not path.exists():
        return False
    part = list(iread(path, index=":", format="extxyz"))
    found = (float(part[0].info["temperature"]), part[0].info["strain"], len(part), int(part[0].info["step"]))
    if found != (plan.temperature, plan.strain, plan.frames, plan.stride):
        raise typer.BadParameter(
            f"The 'folder' parameter of run must hold parts of one plan only. Got {path} with temperature, strain, "
            f"frames and stride {found} instead. Use a new folder for other options."
        )
    return True


@app.command()
def run(
    folder: Annotated[Path, typer.Argument(help="Folder of the parts, one file per finished trajectory.")],
    temperature: Annotated[list[float], typer.Option(help="Temperature in K; repeat it.")] = TEMPERATURES,
    strain: Annotated[list[str], typer.Option(help="iso, uni or shear, signed percentage; repeat it.")] = STRAINS,
    trajectories: Annotated[int, typer.Option(min=1, help="Number of trajectories.")] = 16,
    frames: Annotated[int, typer.Option(min=4, help="Frames kept of each trajectory.")] = 15,
    stride: Annotated[int, typer.Option(min=1, help="Steps of 2 fs between kept frames.")] = 5,
    equilibration: Annotated[int, typer.Option(min=1, help="Steps of 1 fs before production.")] = 20,
    held_out: Annotated[int, typer.Option(help="Trajectory whose frames are all test frames; -1 for none.")] = 6,
    seed: Annotated[int, typer.Option(min=0)] = 2024,
    processes: Annotated[int, typer.Option(min=1, help="Trajectories run at a time; set OMP_NUM_THREADS=1.")] = 1,
) -> None:
    """Run the trajectories that the folder does not hold yet."""
    for name in strain:
        deformation(name)
    folder.mkdir(parents=True, exist_ok=True)
    common = {"frames": frames, "stride": stride, "equilibration": equilibration, "seed": seed}
    plan = make_plan(temperature, strain, trajectories, held_out, **common)
    missing = [item for item in plan if not is_finished(item, folder)]
    typer.echo(f"{len(plan) - len(missing)} of {len(plan)} trajectories are there, {len(missing)} to run")
    if processes == 1:
        for item in missing:
            typer.echo(run_trajectory(item, folder))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(run_trajectory, item, folder) for item in missing]):
            typer.echo(future.result())


@app.command()
def gather(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of the parts.")],
    output: Annotated[Path, typer.Argument(help="File to make, *.extxyz.gz.")],
) -> None:
    """Join the finished parts, in the order of trajectory and time, in one new file."""
    frames: list[Atoms] = []
    for part in sorted(folder.glob("trajectory-*.extxyz.gz")):
        frames += iread(part, index=":", format="extxyz")
    if not frames:
        raise typer.BadParameter(
            f"The 'folder' parameter of gather must hold finished parts. Got {folder} instead. Call run first."
        )
    write_frames(output, frames)
    forces = np.concatenate([frame.get_forces() for frame in frames])
    energies = np.array([frame.get_potential_energy() / len(frame) for frame in frames])
    counts = {split: sum(frame.info["split"] == split for frame in frames) for split in ("train", "valid", "test")}
    typer.echo(
        f"{len(frames)} frames {counts}, {output.stat().st_size / 1024:.0f} KiB, "
        f"rms force {np.sqrt(np.mean(forces**2)):.3f} eV/A, "
        f"energy per atom {energies.min():.4f} to {energies.max():.4f} eV, standard deviation {energies.std():.4f} eV"
    )


if __name__ == "__main__":
    app()
