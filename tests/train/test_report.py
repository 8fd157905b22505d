"""The page of a run, and the loggers."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ase import Atoms
from train_frames import fit_and_die, label_with_emt, small_settings

from asenequip.train import fit
from asenequip.train.config import ConfigError
from asenequip.train.progress import epoch_table
from asenequip.train.redraw import redraw
from asenequip.train.resume import resume_run
from asenequip.train.rundir import RunDirectory

Settings = Callable[..., dict[str, Any]]


class Reader(HTMLParser):
    """Collects tags and what they point to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.targets: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.images += tag == "img"
        self.targets += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    potential = fit(label_with_emt(12, seed=1), small_settings(tmp_path_factory.mktemp("finished")))
    assert potential.path is not None
    return potential.path.parent


def test_run_without_held_out_frames_is_judged_by_its_own(frames: list[Atoms], settings: Settings) -> None:
    potential = fit(frames[:2], settings(data={"split": {"valid": 0, "test": 0}}))
    assert potential.path is not None
    run = RunDirectory(potential.path.parent)
    error = run.read_json("summary.json")["train"]["forces_mae"] * 1e3
    card = (run.path / "MODEL_CARD.md").read_text()
    assert "Errors on the training frames" in card
    assert f"| force component | {error:.3g} meV/Å" in card
    assert "Errors on the training frames" in (run.path / "report.html").read_text()


def test_page_is_whole_and_needs_nothing_else(finished: Path) -> None:
    text = (finished / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.images == len(list((finished / "figures").glob("*.png")))
    assert all(target.startswith("data:image/png;base64,") for target in reader.targets)
    assert not re.search(r"https?://|@import|url\(", text)


def test_page_shows_the_errors_of_the_summary(finished: Path) -> None:
    errors = RunDirectory(finished).read_json("summary.json")["test"]
    text = (finished / "report.html").read_text()
    assert f"<td>forces, Cu</td><td>{errors['forces_mae_Cu'] * 1e3:.4g}</td>" in text


def test_report_of_a_finished_run_is_written_again(finished: Path) -> None:
    card, page = (finished / name for name in ("MODEL_CARD.md", "report.html"))
    before = card.read_text()
    card.unlink()
    page.unlink()
    written = redraw(finished).splitlines()
    assert card.read_text() == before
    assert str(page) in written


def test_unfinished_run_has_a_page_too(
    data_file: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_and_die(monkeypatch, settings(data={"train": str(data_file)}, training={"epochs": 5}), steps=9)
    redraw(tmp_path / "run")
    text = (tmp_path / "run" / "report.html").read_text()
    assert "Not finished" in text
    assert text.count("<img") == 1


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a training run"):
        redraw(tmp_path)


def test_tensorboard_gets_the_rows_of_the_metrics(
    data_file: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that was killed and went on: each step once, with the numbers of metrics.csv."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = {"checkpoint_seconds": 0.0}
    values = settings(data={"train": str(data_file)}, training=training, loggers=["tensorboard"])
    fit_and_die(monkeypatch, values, steps=6)
    config = RunDirectory(tmp_path / "run").config()
    resume_run(tmp_path / "run", config, quiet=True, say=lambda text: None)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    header, *rows = [line.split(",") for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()]
    column = [float(row[header.index("valid_loss")]) for row in rows]
    found = events.Scalars("valid/loss")
    assert [event.step for event in found] == [int(row[header.index("step")]) for row in rows]
    assert [event.value for event in found] == pytest.approx(column, rel=1e-6)  # TensorBoard keeps float32


def test_wandb_gets_the_rows_of_the_metrics(
    frames: list[Atoms], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the package, which needs an account: how it is called, not what it does."""
    calls: list[Any] = []
    session = SimpleNamespace(
        log=lambda row, step: calls.append((step, row["valid_loss"])), finish=lambda: calls.append("finished")
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **options: session))
    fit(frames, settings(loggers=["wandb"]))
    header, *rows = [line.split(",") for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()]
    wanted = [(int(row[header.index("step")]), float(row[header.index("valid_loss")])) for row in rows]
    assert calls == [*wanted, "finished"]


def test_missing_logger_says_what_to_install(
    frames: list[Atoms], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"pip install 'asenequip\[wandb\]'"):
        fit(frames, settings(loggers=["wandb"]))
    assert not (tmp_path / "run").exists()


def test_live_table_shows_errors_in_the_fields_units() -> None:
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(epoch_table([{"epoch": 3, "train_loss": 0.5, "valid_forces_mae": 0.0125}]))
    assert capture.get().split() == ["epoch", "loss", "F", "meV/A", "3", "0.5", "12.5"]
