"""The verbs, called in this process: what they write, what they print, how they end."""

from __future__ import annotations

import csv
import json
from configparser import ConfigParser
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.config import cfg
from ase.io import read, write
from typer.testing import CliRunner

from asenequip import AllegroCalculator
from asenequip.artifact import Potential, load_artifact
from asenequip.cli import app
from asenequip.cli.common import number_in_file
from asenequip.cli.compile import _compile_graph
from asenequip.cluster import cluster_file
from asenequip.compiledgraph import GraphReport
from asenequip.md import run_md
from asenequip.model.derivatives import Slopes, slopes_of

LABEL_ERROR = 0.25
"""eV/Angstrom added to every force label of the frames: the mean absolute error that the table must show."""


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def crystal(seed: int) -> Atoms:
    cell = np.eye(3) * 4.2
    grid = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    noise = np.random.default_rng(seed).normal(scale=0.1, size=(4, 3))
    return Atoms("Cu2O2", positions=grid @ cell + noise, cell=cell, pbc=True)


@pytest.fixture
def frames(small_artifact: Path, tmp_path: Path) -> Path:
    """Three labelled frames, the second of them with an element the model does not know."""
    calculator = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    labelled = []
    for k in range(3):
        atoms = crystal(k)
        forces = calculator.get_property("forces", atoms) + LABEL_ERROR
        atoms.calc = SinglePointCalculator(atoms, forces=forces)
        labelled.append(atoms)
    labelled[1].symbols[2] = "Au"
    write(tmp_path / "frames.extxyz", labelled)
    return tmp_path / "frames.extxyz"


def test_info_tells_species_cutoff_and_hash(small_artifact):
    facts = json.loads(run("info", small_artifact, "--json"))
    assert facts["species"] == ["Cu", "O"]
    assert facts["cutoff"] == "3.4 Angstrom"
    assert facts["golden frame"].endswith("reproduced")
    assert facts["sha256"] in run("info", small_artifact)


def test_evaluate_gives_the_calculator_s_results(small_artifact, frames, tmp_path):
    run("evaluate", frames, "-m", small_artifact, "-o", tmp_path / "out.extxyz", "--dtype", "float64", code=1)
    calculator = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    for found, given in zip(read(tmp_path / "out.extxyz", ":"), read(frames, "::2"), strict=True):
        wanted = calculator.evaluate([given])[0]
        assert found.get_potential_energy() == pytest.approx(wanted["energy"], abs=1e-7)  # digits of the file
        assert np.abs(found.get_forces() - wanted["forces"]).max() < 1e-7
        assert np.abs(found.get_stress() - wanted["stress"]).max() < 1e-7


def test_evaluate_names_the_bad_frame_and_finishes_the_rest(small_artifact, frames, tmp_path):
    output = run("evaluate", frames, "-m", small_artifact, "-o", tmp_path / "out.traj", code=1)
    assert "structure 1: " in output
    assert "Au" in output
    assert "2 of 3 structures are in" in output


def test_evaluate_shows_the_error_by_species(small_artifact, frames, tmp_path):
    arguments = ("evaluate", frames, "-m", small_artifact, "-o", tmp_path / "o.xyz", "--index", "::2")
    lines = run(*arguments, "--dtype", "float64").splitlines()
    for name in ("forces ", "forces on Cu ", "forces on O "):
        (line,) = [line for line in lines if line.startswith((name + " ", name + "meV"))]
        assert float(line.split("meV/A")[1].split()[0]) == pytest.approx(1000 * LABEL_ERROR, abs=1e-3)


def test_relax_keeps_order_and_converges(small_artifact, frames, tmp_path):
    output = run("relax", frames, "-m", small_artifact, "-o", tmp_path / "out.xyz", "--fmax", 0.05, code=1)
    assert "structure 1: " in output
    assert f"2 of 3 structures have converged to 0.05 eV/A; {tmp_path / 'out.xyz'} holds 2." in output
    calculator = AllegroCalculator(small_artifact, device="cpu", dtype="float64")
    for found, given in zip(read(tmp_path / "out.xyz", ":"), read(frames, "::2"), strict=True):
        assert found.info["relax_converged"]
        assert np.linalg.norm(calculator.get_property("forces", found), axis=1).max() < 0.05 + 1e-5
        assert np.abs(found.positions - given.positions).max() < 3.0


def test_md_writes_trajectory_table_and_state_and_resumes(small_artifact, frames, tmp_path):
    start = ("md", frames, "-m", small_artifact, "--index", 0, "-T", 200, "--interval", 5)
    run(*start, "-o", tmp_path / "whole.xyz", "-n", 40)
    run(*start, "-o", tmp_path / "run.xyz", "-n", 15)
    run("md", "--resume", tmp_path / "run.restart", "-n", 40)
    assert (tmp_path / "run.xyz").read_text() == (tmp_path / "whole.xyz").read_text()
    assert (tmp_path / "run.csv").read_text() == (tmp_path / "whole.csv").read_text()
    with (tmp_path / "run.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(5 * k) for k in range(9)]


def test_a_run_of_the_library_s_is_resumed_with_the_form_it_was_made_with(small_artifact, frames, tmp_path):
    for name, steps in (("whole", 20), ("run", 10)):
        calculator = AllegroCalculator(small_artifact, device="cpu", compiled=False)
        run_md(read(frames, 0), calculator, steps=steps, temperature=200, trajectory=tmp_path / f"{name}.xyz")
    run("md", "--resume", tmp_path / "run.restart", "-n", 20)
    assert (tmp_path / "run.xyz").read_text() == (tmp_path / "whole.xyz").read_text()


def test_compile_reports_an_exact_form(small_artifact):
    facts = json.loads(run("compile", small_artifact, "--json"))
    assert 0 <= facts["table_force_error"] <= 1e-6  # eV/Angstrom, what the command promises
    assert "force error" in run("compile", small_artifact)


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto is the GPU here")
def test_compile_for_auto_makes_what_calculators_take(small_artifact):
    assert json.loads(run("compile", small_artifact, "--device", "auto", "--json"))["intervals"] > 0


def test_compile_for_a_gpu_where_there_is_none_is_one_sentence(small_artifact, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    output = run("compile", small_artifact, "--device", "cuda", code=2)
    assert "a device of this machine, which has no CUDA" in output
    assert "Traceback" not in output


def test_compile_for_a_device_checks_the_graph_and_the_steps(small_artifact, monkeypatch):
    found = GraphReport(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)

    def stand_in(potential: Potential, dtype: str, device: torch.device) -> tuple[Slopes, GraphReport]:
        return slopes_of(potential.cast(dtype, device)), found

    monkeypatch.setattr("asenequip.compiledgraph.compiled_graph", stand_in)
    facts = _compile_graph(load_artifact(small_artifact), "float64", torch.device("cpu"))
    assert {name: facts[name] for name in asdict(found)} == asdict(found)
    assert 0 <= facts["steps_force_error"] < 1e-10  # eV/Angstrom, rounding of sums in another order


def test_cluster_labels_are_the_library_s(small_artifact, tmp_path):
    write(tmp_path / "frames.xyz", [crystal(k) for k in range(20)])
    words = ("cluster", tmp_path / "frames.xyz", "-m", small_artifact, "--no-figures", "--device", "cpu")
    output = run(*words, "-o", tmp_path / "found")
    assert "80 environments in 20 frames" in output
    descriptor = AllegroCalculator(small_artifact, device="cpu", dtype="float64").descriptors
    cluster_file(tmp_path / "frames.xyz", tmp_path / "wanted", descriptor=descriptor, figures=False)
    assert (tmp_path / "found/clusters.csv").read_text() == (tmp_path / "wanted/clusters.csv").read_text()
    assert "exists and is not overwritten" in run(*words, "-o", tmp_path / "found", code=2)


def test_cluster_takes_the_potential_of_ase_s_configuration(small_artifact, tmp_path, monkeypatch):
    write(tmp_path / "frames.xyz", [crystal(k) for k in range(20)])
    monkeypatch.setattr(cfg, "parser", ConfigParser())
    cfg.parser.read_dict({"asenequip": {"model": str(small_artifact)}})
    words = ("cluster", tmp_path / "frames.xyz", "--no-figures", "--device", "cpu", "-o", tmp_path / "found")
    assert "80 environments in 20 frames" in run(*words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("info", "none.asnq"), "There is no potential at 'none.asnq'"),
        (("info", "{frames}"), "is not an intact potential"),
        (("compile", "{model}", "--device", "abacus"), "The 'device' parameter"),
        (("compile", "{model}", "--dtype", "tf32"), "The '--dtype' parameter of compile must be one of float32"),
        (("evaluate", "none.xyz", "-m", "{model}", "-o", "{new}"), "There is no file 'none.xyz'"),
        (("evaluate", "{frames}", "-m", "{model}", "-o", "{frames}"), "exists and is not overwritten"),
        (("evaluate", "{frames}", "-m", "{model}", "-o", "out.nope"), "ASE knows no format by the name 'out.nope'"),
        (("evaluate", "{frames}", "-m", "{model}", "-o", "{new}", "--index", "9:"), "holds no structures at index"),
        (("evaluate", "{frames}", "-m", "{model}", "-o", "{new}", "--index", "1"), "None of the 1 structures"),
        (("evaluate", "{frames}", "-m", "{model}", "-o", "{new}", "--device", "abacus"), "The 'device' parameter"),
        (("relax", "{frames}", "-m", "{model}", "-o", "{frames}"), "exists and is not overwritten"),
        (("relax", "{frames}", "-m", "{model}", "-o", "{new}", "--cell", "c"), "The 'cell' parameter of relax"),
        (("md", "{frames}", "-m", "{model}", "-o", "run.dcd", "-n", "1"), "The trajectory of a run must end in"),
        (("md", "{frames}", "-m", "{model}", "-o", "{frames}", "-n", "1"), "exists and is not overwritten"),
        (("md", "{frames}", "-m", "{model}", "-n", "1"), "A run needs STRUCTURE, --output and --steps"),
        (("md", "--resume", "none.restart"), "There is no state to restart from"),
        (("md", "--resume", "{frames}"), "is not an intact state of a run: it is no archive of arrays"),
        (("evaluate", "{frames}", "-m", "{model}", "-o", "{frames}/new.xyz"), "is no folder that takes files"),
        (
            ("md", "{frames}", "-m", "{model}", "-o", "run.traj", "-n", "1", "--guard", "1"),
            "this potential carries none",
        ),
        (("cluster", "{frames}", "-o", "{new}"), "Say how atoms are described"),
        (("cluster", "{frames}", "-o", "{new}", "-m", "{model}", "--soap"), "not by both"),
        (("convert", "none.ckpt", "out.asnq", "--symbols", "Li"), "must be pairs such as A=Li,B=S"),
    ],
)
def test_an_error_is_one_sentence_and_exit_code_2(words, sentence, small_artifact, frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"model": small_artifact, "frames": frames, "new": tmp_path / "new.xyz"}
    before = sorted(path.name for path in tmp_path.iterdir())
    output = run(*(word.format(**names) for word in words), code=2)
    assert f"Error: {output.split('Error: ')[1]}" in output
    assert sentence in output
    assert "Traceback" not in output
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_potential_may_be_named_in_ase_s_configuration(small_artifact, frames, tmp_path, monkeypatch):
    monkeypatch.setattr(cfg, "parser", ConfigParser())
    words = ("evaluate", frames, "--index", "0", "-o", tmp_path / "out.xyz")
    assert "The 'model' parameter" in run(*words, code=2)
    cfg.parser.read_dict({"asenequip": {"model": str(small_artifact)}})
    assert "1 of 1 structures" in run(*words)


def test_debug_lets_the_error_through(tmp_path):
    result = CliRunner().invoke(app, ["info", "none.asnq", "--debug"])
    assert isinstance(result.exception, FileNotFoundError)


@pytest.mark.parametrize("verb", ["info", "convert", "evaluate", "relax", "md", "cluster", "compile"])
def test_a_missing_argument_is_a_usage_error(verb):
    assert CliRunner().invoke(app, [verb, "--no-such-flag"]).exit_code == 2


@pytest.mark.parametrize("verb", ["evaluate", "relax", "md"])
def test_verbs_share_their_flags(verb):
    output = run(verb, "--help")
    assert all(flag in output for flag in ("--model", "--output", "--device", "--dtype", "--index", "--debug"))


@pytest.mark.parametrize("index", [":", "2:", "::3", "1:9:2"])
def test_number_in_file_is_where_ase_took_the_frame(index):
    taken = list(range(20))[slice(*(int(part) if part else None for part in index.split(":")))]
    assert [number_in_file(index, k) for k in range(len(taken))] == [str(k) for k in taken]
