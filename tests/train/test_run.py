"""Whole runs: the directory, exact continuation, refusals, and the potential that comes out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.io import read
from train_frames import dying_trainer, label_with_emt, small_settings

from asenequip.calculator import AllegroCalculator
from asenequip.train import fit, parse_config
from asenequip.train.config import ConfigError
from asenequip.train.loop import NonFiniteLossError
from asenequip.train.redraw import redraw
from asenequip.train.resume import resume_run
from asenequip.train.rundir import RunDirectory, RunLockedError, create_run

Settings = Callable[..., dict[str, Any]]
CLI = [sys.executable, "-c", "from asenequip.train.cli import main; main()"]
NETWORK_ROUNDING = 2e-6
"""eV, eV/A: float32 network evaluated in two batchings, on energies of tens of eV per frame."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, for the tests that only read it."""
    potential = fit(label_with_emt(12, seed=1), small_settings(tmp_path_factory.mktemp("finished")))
    assert potential.path is not None
    return potential.path.parent


def test_run_directory_is_complete(finished: Path) -> None:
    names = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()}
    wanted = {"config.json", "environment.json", "split.json", "statistics.json", "metrics.csv", "log.jsonl"}
    wanted |= {"model.asnq", "MODEL_CARD.md", "summary.json", "predictions.extxyz", "report.html"}
    for figure in ("parity_energy", "parity_forces", "parity_stress", "errors_forces", "learning_curve"):
        wanted |= {f"figures/{figure}.png", f"figures/{figure}.csv"}
    assert wanted <= names


def test_existing_run_is_never_touched(frames: list[Atoms], settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    potential = fit(frames, settings())
    assert list((tmp_path / "run").iterdir()) == []
    assert potential.path == tmp_path / "run-2" / "model.asnq"


def test_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        create_run(tmp_path / "file" / "run")


@pytest.mark.parametrize("content", [None, "{"])
def test_directory_that_is_no_run_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"training run: .*config\.json"):
        redraw(tmp_path)


def test_predictions_are_those_of_the_calculator(finished: Path) -> None:
    calculator = AllegroCalculator(finished / "model.asnq", device="cpu")
    for atoms in read(finished / "predictions.extxyz", index=":"):
        stored = atoms.calc.results
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(stored["energy"], abs=NETWORK_ROUNDING * len(atoms))
        np.testing.assert_allclose(atoms.get_forces(), stored["forces"], atol=NETWORK_ROUNDING)


def test_summary_has_the_errors_of_the_predictions(finished: Path) -> None:
    errors = json.loads((finished / "summary.json").read_text())["test"]
    found = read(finished / "predictions.extxyz", index=":")
    forces = np.concatenate([a.get_forces() - a.arrays["reference_forces"] for a in found])
    energy = [(a.get_potential_energy() - a.info["reference_energy"]) / len(a) for a in found]
    # predictions.extxyz holds eight decimals
    assert errors["forces_mae"] == pytest.approx(np.abs(forces).mean(), abs=1e-7)
    assert errors["energy_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(energy))), abs=1e-7)


def test_it_learns(settings: Settings) -> None:
    """Two hundred steps on EMT frames: of the forces on frames never seen, more than half is explained."""
    training = {"epochs": 30, "valid_every": 30, "learning_rate": 0.02}
    potential = fit(
        label_with_emt(16, seed=2, amplitude=0.1), settings(data={"split": {"valid": 0, "test": 2}}, training=training)
    )
    unseen = label_with_emt(4, seed=3, amplitude=0.1)
    calculator = AllegroCalculator(potential, device="cpu")
    errors, labels = [], []
    for atoms in unseen:
        labels.append(atoms.get_forces())
        atoms.calc = calculator
        errors.append(atoms.get_forces() - labels[-1])
    assert np.sqrt(np.mean(np.square(errors))) < 0.5 * np.sqrt(np.mean(np.square(labels)))


def test_same_seed_same_curve(frames: list[Atoms], settings: Settings, tmp_path: Path) -> None:
    for _ in range(2):
        fit(frames, settings())
    first, second = ((tmp_path / name / "metrics.csv").read_text() for name in ("run", "run-2"))
    assert first == second


@pytest.mark.parametrize("steps", [3, 7])
def test_killed_run_goes_on_bit_for_bit(data_file: Path, settings: Settings, tmp_path: Path, steps: int) -> None:
    """SIGKILL in the middle of an epoch, then resume: the curve and the weights of a run that was never stopped."""
    data = {"train": str(data_file), "split": {"valid": 3, "test": 2}}
    training = {"epochs": 3, "batch_size": 2, "checkpoint_seconds": 0}
    whole = fit(None, settings(data=data, training=training, output=str(tmp_path / "whole")))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings(data=data, training=training, output=str(tmp_path / "killed"))))
    done = subprocess.run([*dying_trainer(steps), str(config)], stdout=subprocess.DEVNULL, timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.asnq").exists()
    resumed = resume_run(
        tmp_path / "killed", RunDirectory(tmp_path / "killed").config(), quiet=True, say=lambda t: None
    )
    assert (tmp_path / "killed" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_interrupt_saves_and_says_how_to_go_on(data_file: Path, settings: Settings, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    values = settings(data={"train": str(data_file)}, training={"epochs": 100000, "checkpoint_seconds": 1e9})
    config.write_text(yaml.safe_dump(values))
    process = subprocess.Popen([*CLI, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 600
    while not (tmp_path / "run" / "metrics.csv").exists():
        assert time.monotonic() < end, "the trainer did not get there in time"
        assert process.poll() is None, "the trainer ended by itself"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130
    assert f"asenequip-train resume {tmp_path / 'run'}" in stderr.decode()
    assert list((tmp_path / "run" / "checkpoints").glob("last-*"))


def test_second_trainer_is_refused(data_file: Path, settings: Settings, tmp_path: Path) -> None:
    config = parse_config(settings(data={"train": str(data_file)}, training={"epochs": 1}))
    fit(None, config)
    (tmp_path / "run" / "model.asnq").rename(tmp_path / "kept.asnq")
    with RunDirectory(tmp_path / "run").lock(), pytest.raises(RunLockedError, match="Another process"):
        resume_run(tmp_path / "run", config, quiet=True)


def test_resume_refuses_another_model(data_file: Path, settings: Settings, tmp_path: Path) -> None:
    fit(None, settings(data={"train": str(data_file)}))
    said: list[str] = []
    other = parse_config(settings(data={"train": str(data_file)}, model={"l_max": 2}))
    with pytest.raises(ConfigError, match=r"model\.l_max"):
        resume_run(tmp_path / "run", other, say=said.append)
    assert "model.l_max: 1 -> 2" in said


def test_resume_refuses_changed_data(data_file: Path, settings: Settings, frames: list[Atoms], tmp_path: Path) -> None:
    from ase.io import write

    config = parse_config(settings(data={"train": str(data_file)}))
    fit(None, config)
    (tmp_path / "run" / "model.asnq").unlink()
    data_file.unlink()
    write(data_file, frames[:-1])
    with pytest.raises(ConfigError, match=r"split\.json"):
        resume_run(tmp_path / "run", config, quiet=True, say=lambda t: None)


def test_run_killed_between_potential_and_summary_is_finished_by_resume(
    data_file: Path, settings: Settings, tmp_path: Path
) -> None:
    config = parse_config(settings(data={"train": str(data_file)}))
    fit(None, config)
    summary = tmp_path / "run" / "summary.json"
    before = json.loads(summary.read_text())
    summary.unlink()
    resume_run(tmp_path / "run", config, quiet=True, say=lambda t: None)
    assert json.loads(summary.read_text()) == before
    with pytest.raises(ConfigError, match="is finished"):
        resume_run(tmp_path / "run", config, quiet=True, say=lambda t: None)


def test_nan_loss_names_the_frame(frames: list[Atoms], settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label that turns infinite inside the loop (reading refuses one in a file) is blamed on its frame."""
    from asenequip.train import batching

    original = batching.collate

    def poison(samples: Any, offsets: Any = None) -> Any:
        batch = original(samples, offsets)
        for k, source in enumerate(batch.sources):
            if source == "frame 4":
                batch.graph.positions[batch.graph.frames == k] *= float("nan")
        return batch

    monkeypatch.setattr(batching, "collate", poison)
    with pytest.raises(NonFiniteLossError, match=r"at frame 4\.") as error:
        fit(frames, settings(data={"split": {"valid": 0, "test": 0}}, training={"batch_size": 4}))
    assert "frame 3" not in str(error.value)


def test_minutes_end_the_run_with_a_decayed_rate(frames: list[Atoms], settings: Settings, tmp_path: Path) -> None:
    fit(frames, settings(training={"epochs": 10**6, "minutes": 0.03, "valid_every": 1000, "warmup_steps": 0}))
    rows = [line.split(",") for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()]
    assert int(rows[-1][rows[0].index("epoch")]) < 10**6
    rate = float(rows[-1][rows[0].index("learning_rate")])
    assert rate == pytest.approx(0.01 * 0.01, rel=1e-6)


def test_report_is_redrawn_from_the_files(finished: Path) -> None:
    figure = finished / "figures" / "parity_forces.csv"
    before = np.genfromtxt(figure, delimiter=",", names=True, dtype=None, encoding=None)
    figure.unlink()
    redraw(finished)
    after = np.genfromtxt(figure, delimiter=",", names=True, dtype=None, encoding=None)
    np.testing.assert_allclose(after["predicted"], before["predicted"], atol=1e-7)
    assert list(after["species"]) == list(before["species"])
