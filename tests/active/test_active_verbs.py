"""The verbs select, label and active, called in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from test_campaign import settings
from typer.testing import CliRunner

from asenequip import AllegroCalculator
from asenequip.cli import app
from asenequip.uncertainty import frame_deviation

HERE = Path(__file__).parent


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


@pytest.fixture
def copper(tmp_path):
    frames = []
    for k in range(4):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=k)
        frames.append(atoms)
    write(tmp_path / "frames.extxyz", frames)
    return tmp_path / "frames.extxyz"


def test_label_writes_labels_and_does_not_repeat_them(copper, tmp_path):
    out = tmp_path / "labelled.extxyz"
    assert "4 labelled (0 known before), 0 failed" in run("label", copper, "-c", "emt", "-o", out, "-j", 2)
    atoms = read(out, 2)
    stored = atoms.get_forces()
    atoms.calc = EMT()
    np.testing.assert_allclose(stored, atoms.get_forces(), atol=1e-7)
    again = run("label", copper, "-c", "emt", "-o", tmp_path / "b.extxyz", "--store", tmp_path / "labelled.db")
    assert "4 labelled (4 known before)" in again


def test_label_tells_failures_by_its_exit_code(copper, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    frames = read(copper, ":")
    frames[1].positions[0, 0] = 3.0  # the labeller does not converge on it
    write(tmp_path / "bad.extxyz", frames)
    options = f'{{"folder": "{tmp_path}"}}'
    words = ["-c", "labellers_for_tests:faulty", "--options", options, "-o", tmp_path / "out.extxyz"]
    text = run("label", tmp_path / "bad.extxyz", *words, code=1)
    assert "3 labelled" in text
    assert "structure 1 (Cu4): unconverged: " in text
    assert len(read(tmp_path / "out.extxyz", ":")) == 3


def test_label_wants_json(copper, tmp_path):
    assert "--options must be a JSON object" in run(
        "label", copper, "-c", "emt", "--options", "[1]", "-o", tmp_path / "x.extxyz", code=2
    )


def test_select_takes_what_is_unlike_the_known(small_artifact, tmp_path):
    known = bulk("Cu", cubic=True)
    frames = [known.copy(), bulk("Cu", cubic=True, a=3.9), known.copy()]
    frames[2].rattle(0.01, seed=0)
    write(tmp_path / "pool.extxyz", frames)
    write(tmp_path / "known.extxyz", known)
    out = tmp_path / "chosen.extxyz"
    words = ["-m", small_artifact, "-n", 1, "--method", "diverse", "--known", tmp_path / "known.extxyz", "-o", out]
    run("select", tmp_path / "pool.extxyz", *words, "--device", "cpu")
    assert read(out).info["candidate"] == 1


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    """Eight labelled frames, and a potential of them with an uncertainty."""
    from asenequip.train import fit

    sys.path.append(str(HERE.parent / "train"))
    from train_frames import label_with_emt, small_settings

    frames = label_with_emt(8, seed=0)
    return frames, fit(frames, small_settings(tmp_path_factory.mktemp("unsure"), uncertainty={"directions": 1})).path


def test_select_takes_the_uncertain_and_cuts_about_the_most_uncertain_atom(unsure, tmp_path):
    frames, model = unsure
    calculator = AllegroCalculator(model, device="cpu")
    large = [atoms * (3, 1, 1) for atoms in frames[:3]]
    large[1].set_cell(0.9 * large[1].cell.array, scale_atoms=True)
    write(tmp_path / "pool.extxyz", large)
    words = ["-m", model, "-n", 1, "--method", "uncertain", "--radius", 4.5, "-o", tmp_path / "out.extxyz"]
    run("select", tmp_path / "pool.extxyz", *words, "--device", "cpu")
    found = read(tmp_path / "out.extxyz")
    doubts = [frame_deviation(calculator.evaluator, atoms) for atoms in large]
    assert found.info["candidate"] == int(np.argmax(doubts))
    doubt = calculator.uncertainty(large[found.info["candidate"]]).forces
    assert doubt[found.arrays["original"][0]] == pytest.approx(
        doubt.max(), rel=1e-4
    )  # of atoms that differ by rounding
    assert found.get_all_distances()[0].max() <= 4.5 + 1e-6
    text = run("select", tmp_path / "pool.extxyz", *words[:-1], tmp_path / "x.extxyz", "--radius", 1.0, code=2)
    assert "--radius must be at least the potential's cutoff" in text


WISHES = {
    "--method mixed": "--method mixed goes by the uncertainty of forces, and this potential carries none",
    "--method novel": "--method novel compares with known structures, and none are given",
    "--method diverse --radius 4": "--radius cuts about the most uncertain atom, and this potential carries no uncert",
}


@pytest.mark.parametrize("words", WISHES)
def test_select_says_what_is_missing_in_the_words_of_its_flags(words, copper, small_artifact, tmp_path):
    text = run("select", copper, "-m", small_artifact, "-o", tmp_path / "x.extxyz", *words.split(), code=2)
    assert WISHES[words] in text
    assert "parameter of" not in text


def test_select_names_a_bad_structure_by_its_file_and_a_pool_of_copies(copper, small_artifact, tmp_path):
    frames = read(copper, ":")
    frames[3].positions[0] = np.nan
    write(tmp_path / "bad.extxyz", frames)
    words = ["-m", small_artifact, "--method", "diverse", "-o", tmp_path / "x.extxyz", "--device", "cpu"]
    text = run("select", tmp_path / "bad.extxyz", *words, "--index", "1:", code=2)
    assert "bad.extxyz, structure 3: " in text
    assert "is a copy of a known one" in run("select", copper, *words, "--known", copper, code=2)
    assert not (tmp_path / "x.extxyz").exists()


def test_label_refuses_limits_that_mean_nothing(copper, tmp_path):
    for flag in ("--timeout", "--max-force"):
        text = run("label", copper, "-c", "emt", "-o", tmp_path / "x.extxyz", flag, -1, code=2)
        assert f"{flag} must be a positive number" in text


def test_active_runs_a_campaign_from_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    values = settings(tmp_path, stop={"force_error": 1e9, "rounds": 1}, start={"frames": "starts.extxyz"}, output="out")
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(values))
    text = run("active", tmp_path / "campaign.yaml")
    assert "with 13 labels: the error is small enough" in text
    assert (tmp_path / "out/index.html").exists()


def test_md_keeps_the_frame_that_the_guard_stops_at(unsure, tmp_path):
    frames, model = unsure
    write(tmp_path / "start.extxyz", frames[0])
    words = ["-m", model, "-o", tmp_path / "run.traj", "-n", 5, "--coverage", "off", "--device", "cpu"]
    assert "uncertain by more than 1e-06 eV/A" in run("md", tmp_path / "start.extxyz", *words, "--guard", 1e-6, code=2)
    assert read(tmp_path / "run.unsure.extxyz").info["step"] == 0
    assert (tmp_path / "run.restart").exists()
