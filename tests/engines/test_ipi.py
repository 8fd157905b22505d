"""i-PI and ASE's sockets: the same numbers in other units, and all beads at once."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import uuid
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.calculators.socketio import PySocketIOClient, SocketIOCalculator
from ase.io import write
from small_systems import small_atoms

from asenequip.calculator import AllegroCalculator
from asenequip.engines import ipi as driver
from asenequip.engines.sockets import answer
from asenequip.evaluate import Evaluator


@pytest.fixture
def template(tmp_path):
    write(tmp_path / "template.extxyz", small_atoms())
    return tmp_path / "template.extxyz"


@pytest.fixture
def name():
    """Of a socket that nobody else uses."""
    return f"asenequip_{uuid.uuid4().hex[:12]}"


def beads(number=4):
    rng = np.random.default_rng(5)
    frames = [small_atoms() for _ in range(number)]
    for atoms in frames:
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
    return frames


def upright_atoms():
    """In the orientation that i-PI holds cells in: the first vector along x, the second in the xy plane."""
    atoms = small_atoms()
    standard, _ = atoms.cell.standard_form()
    atoms.set_cell(standard, scale_atoms=True)
    return atoms


def in_bohr(frames):
    return [atoms.cell.array.T / units.Bohr for atoms in frames], [atoms.positions / units.Bohr for atoms in frames]


def test_answers_are_those_of_the_calculator_in_atomic_units(small_artifact, template):
    frames = beads()
    answers = driver.AllegroDriver(str(template), str(small_artifact), dtype="float64", verbosity=1)(*in_bohr(frames))
    for atoms, (energy, forces, virial, extras) in zip(frames, answers, strict=True):
        atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
        assert energy * units.Hartree == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(forces * units.Hartree / units.Bohr, atoms.get_forces(), atol=1e-9, rtol=1e-12)
        expected = -atoms.get_volume() * atoms.get_stress(voigt=False)
        np.testing.assert_allclose(virial * units.Hartree, expected, atol=1e-9, rtol=1e-12)
        assert extras == ""


def test_all_beads_take_one_evaluation_and_one_bead_gives_one_answer(small_artifact, template, monkeypatch):
    counted = []
    evaluate = Evaluator.evaluate
    monkeypatch.setattr(
        Evaluator, "evaluate", lambda self, frames: counted.append(len(frames)) or evaluate(self, frames)
    )
    many = driver.AllegroDriver(str(template), str(small_artifact), dtype="float64")
    cells, positions = in_bohr(beads(8))
    answers = many(cells, positions)
    single = many(cells[3], positions[3])
    assert counted == [8, 1]
    assert single[0] == pytest.approx(answers[3][0], rel=1e-13)


def test_another_number_of_atoms_is_refused(small_artifact, template):
    cells, positions = in_bohr([small_atoms().repeat((2, 1, 1))])
    with pytest.raises(ValueError, match="i-PI has 10 atoms, the template 5"):
        driver.AllegroDriver(str(template), str(small_artifact), dtype="float64")(cells, positions)


def test_ase_drives_a_client_of_ours(small_artifact, name):
    """ASE's server starts a Python process with our calculator in it."""
    atoms, twin = small_atoms(), small_atoms()
    twin.calc = AllegroCalculator(small_artifact, dtype="float64")
    client = PySocketIOClient(partial(AllegroCalculator, small_artifact, dtype="float64"))
    with SocketIOCalculator(launch_client=client, unixsocket=name) as calculator:
        atoms.calc = calculator
        for _ in range(2):
            assert atoms.get_potential_energy() == pytest.approx(twin.get_potential_energy(), rel=1e-10)
            np.testing.assert_allclose(atoms.get_forces(), twin.get_forces(), atol=1e-8, rtol=0)
            np.testing.assert_allclose(atoms.get_stress(), twin.get_stress(), atol=1e-8, rtol=0)
            atoms.rattle(0.02, seed=1)
            twin.rattle(0.02, seed=1)


def test_the_verb_answers_a_server(small_artifact, template, name):
    """ASE listens, and ``asenequip ipi`` comes to it."""
    command = [sys.executable, "-c", "from asenequip.cli import main; main()", "ipi", str(template), "--unix", name]
    command += ["--model", str(small_artifact), "--dtype", "float64", "--wait", "300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with SocketIOCalculator(unixsocket=name, timeout=600) as calculator:
            atoms = small_atoms()
            atoms.calc = calculator
            energy = atoms.get_potential_energy()
        told, complaint = process.communicate(timeout=600)
    assert process.returncode == 0, complaint
    assert told == "1 evaluations of 5 atoms; the server is done.\n"
    twin = small_atoms()
    twin.calc = AllegroCalculator(small_artifact, dtype="float64")
    assert energy == pytest.approx(twin.get_potential_energy(), rel=1e-10)


def test_nobody_listening_is_told(small_artifact, name):
    with pytest.raises(ConnectionError, match=rf"Nobody listened at the socket '/tmp/ipi_{name}' for 0\.2 s"):
        next(answer(small_atoms(), unixsocket=name, wait=0.2))


IPI_INPUT = """
<simulation verbosity='quiet'>
  <output prefix='run'>
    <properties stride='1' filename='out'> [ step, potential, conserved ] </properties>
    <trajectory filename='force' stride='1' format='xyz' cell_units='angstrom'> forces{{ev/ang}} </trajectory>
    <trajectory filename='place' stride='1' format='xyz' cell_units='angstrom'> positions{{angstrom}} </trajectory>
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed> 3 </seed></prng>
  {forcefield}
  <system>
    <initialize nbeads='{nbeads}'>
      <file mode='ase' units='ase'> template.extxyz </file>
      <velocities mode='thermal' units='kelvin'> 100 </velocities>
    </initialize>
    <forces><force forcefield='allegro'/></forces>
    <motion mode='dynamics'><dynamics mode='nve'><timestep units='femtosecond'> 0.1 </timestep></dynamics></motion>
    <ensemble><temperature units='kelvin'> 100 </temperature></ensemble>
  </system>
</simulation>
"""
DIRECT = """<ffdirect name='allegro' threaded='false'>
    <pes> custom </pes><pes_path> {path} </pes_path><batch_size> {nbeads} </batch_size>
    <parameters> {{ template: template.extxyz, model: {model}, dtype: float64 }} </parameters>
  </ffdirect>"""


def run_ipi(folder: Path, text: str) -> np.ndarray:
    """Run i-PI in a folder; the table of properties that it writes."""
    (folder / "input.xml").write_text(text)
    program = Path(sys.executable).with_name("i-pi")
    done = subprocess.run(
        [sys.executable, str(program), "input.xml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, textwrap.shorten(done.stdout + done.stderr, 2000)
    return np.loadtxt(folder / "run.out")


@pytest.mark.slow
def test_ipi_moves_beads_with_the_driver(small_artifact, template):
    """The forces that i-PI writes are the calculator's at the positions that it writes, bead by bead."""
    pytest.importorskip("ipi")
    from ase.io import read

    start = upright_atoms()
    write(template, start)
    direct = DIRECT.format(path=driver.__file__, nbeads=4, model=small_artifact)
    table = run_ipi(template.parent, IPI_INPUT.format(steps=5, nbeads=4, forcefield=direct))
    assert len(table) == 6
    for bead in range(4):
        places = read(template.parent / f"run.place_{bead}.xyz", ":", format="xyz")
        forces = read(template.parent / f"run.force_{bead}.xyz", ":", format="xyz")
        atoms = start.copy()
        atoms.calc = AllegroCalculator(small_artifact, dtype="float64")
        atoms.positions = places[-1].positions
        # six digits are written; forces change by up to 1e3 eV/Angstrom^2 here
        np.testing.assert_allclose(forces[-1].positions, atoms.get_forces(), rtol=1e-4, atol=1e-2)


@pytest.mark.slow
def test_ipi_talks_to_the_verb(small_artifact, template, name):
    """The same run through the socket, one structure at a time, and in one process, all at once."""
    pytest.importorskip("ipi")
    direct = DIRECT.format(path=driver.__file__, nbeads=2, model=small_artifact)
    batched = run_ipi(template.parent, IPI_INPUT.format(steps=5, nbeads=2, forcefield=direct))
    socket = f"<ffsocket name='allegro' mode='unix' pbc='false'><address> {name} </address></ffsocket>"
    command = [sys.executable, "-c", "from asenequip.cli import main; main()", "ipi", str(template), "--unix", name]
    command += ["--model", str(small_artifact), "--dtype", "float64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        single = run_ipi(template.parent, IPI_INPUT.format(steps=5, nbeads=2, forcefield=socket))
        assert process.wait(timeout=600) == 0
    np.testing.assert_allclose(single, batched, rtol=1e-9)
