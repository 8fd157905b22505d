"""Going on with a run, and drawing its report anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asenequip.artifact import Potential
from asenequip.train.config import Config, ConfigError, changed_settings
from asenequip.train.data import SPLITS, load_data
from asenequip.train.finetune import adopt_model, load_start
from asenequip.train.run import Say, prepare, train_run
from asenequip.train.rundir import RunDirectory

SAFE = (
    "training.epochs",
    "training.minutes",
    "training.early_stopping",
    "training.checkpoint_seconds",
    "training.valid_every",
    "threads",
    "device",
    "output",
    "licence",
)
"""Settings that may differ when a run goes on; any other makes it another run."""


def resume_run(path: Path, config: Config, quiet: bool = False, say: Say = print) -> Potential:
    """Continue a run from its last undamaged checkpoint.

    Parameters
    ----------
    path : Path
        Run directory.
    config : Config
        Settings wanted now; what differs from the run's own is printed.

    Raises
    ------
    ConfigError
        If a setting differs that changes what the run is, the data have changed, or the run is finished.
    RunLockedError
        If another process trains there.
    """
    run = RunDirectory(path)
    old, record = run.config(), run.read_json("config.json")
    if record["given_frames"]:
        raise ConfigError(f"{path} was trained on frames given in memory.\nCall asenequip.train.fit again.")
    if config.threads is None:
        config = config.model_copy(update={"threads": old.threads})
    if config.start is not None:
        config = adopt_model(config, load_start(config.start).spec)
    changed = changed_settings(old, config)
    for name, (before, after) in changed.items():
        say(f"{name}: {before} -> {after}")
    unsafe = [name for name in changed if name not in SAFE]
    if unsafe:
        raise ConfigError(
            f"A run cannot go on with another {', '.join(unsafe)}.\nTrain a new run, or put the old values back."
        )
    with run.lock():
        if run.potential.exists():
            raise ConfigError(f"{path} is finished: {run.potential} is there.\nTrain a new run for more epochs.")
        prepared = prepare(config, load_data(config.data))
        _same_data(run, {name: [s.frame.source for s in prepared.samples[name]] for name in SPLITS})
        if changed:
            run.write_json(
                "config.json", {"sha256": config.digest, "given_frames": False, "settings": config.model_dump()}
            )
            run.log("changed", settings={name: list(pair) for name, pair in changed.items()})
        return train_run(run, prepared, quiet=quiet, say=say)


def _same_data(run: RunDirectory, now: dict[str, list[str]]) -> None:
    if run.read_json("split.json") != now:
        raise ConfigError(
            f"The frames are not those that {run.path} began with (split.json).\nPut the data back, or train a new run."
        )


def redraw(path: Path) -> str:
    """Draw the figures of a finished run again from its predictions and metrics; returns what was written."""
    import csv

    import numpy as np
    from ase.io import read

    from asenequip.train.report import draw_figures, voigt

    run = RunDirectory(path)
    summary: dict[str, Any] = run.read_json("summary.json")
    with open(run.path / "metrics.csv") as stream:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]
    frames = read(run.path / "predictions.extxyz", index=":")
    columns: dict[str, dict[str, list[np.ndarray]]] = {}

    def add(name: str, reference: np.ndarray, predicted: np.ndarray, kind: np.ndarray) -> None:
        target = columns.setdefault(name, {"reference": [], "predicted": [], "species": []})
        for key, value in zip(target, (reference, predicted, kind), strict=True):
            target[key].append(np.atleast_1d(value))

    for atoms in frames:
        n, formula, results = len(atoms), atoms.get_chemical_formula(), atoms.calc.results
        if "reference_energy" in atoms.info:
            add("energy", atoms.info["reference_energy"] / n, results["energy"] / n, np.array(formula))
        if "reference_forces" in atoms.arrays:
            kinds = np.repeat(np.array(atoms.get_chemical_symbols()), 3)
            add("forces", atoms.arrays["reference_forces"].ravel(), results["forces"].ravel(), kinds)
        if "reference_stress" in atoms.info and "stress" in results:
            reference = voigt(np.asarray(atoms.info["reference_stress"]).reshape(3, 3))
            add("stress", reference, results["stress"], np.repeat(formula, 6))
    tables = {name: {k: np.concatenate(v) for k, v in parts.items()} for name, parts in columns.items()}
    figures = draw_figures(run, tables, rows)
    return "\n".join(f"{figure}" for figure in figures) + f"\nSpecies: {', '.join(summary['species'])}"
