"""``asenequip-train report``: the report of a run, from its files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from asenequip.train.page import write_page
from asenequip.train.report import draw_figures, model_card, voigt
from asenequip.train.rundir import RunDirectory


def redraw(path: Path) -> str:
    """Write figures, model card and page of a run again from its files.

    Parameters
    ----------
    path : Path
        Run directory; of a run that is not finished, the learning curve and the page are written.

    Returns
    -------
    str
        The files written, one a line.

    Raises
    ------
    ConfigError
        If it is not a run.
    """
    run = RunDirectory(path)
    run.config()
    rows: list[dict[str, float]] = []
    if (run.path / "metrics.csv").exists():
        with open(run.path / "metrics.csv") as stream:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]
    written = draw_figures(run, _tables(run.path / "predictions.extxyz") if run.finished else {}, rows)
    if run.finished:
        written.append(run.write_text("MODEL_CARD.md", model_card(run.read_json("summary.json"))))
    return "\n".join(str(file) for file in [*written, write_page(run)])


def _tables(predictions: Path) -> dict[str, dict[str, np.ndarray]]:
    """Labels and predictions as `report.parity_tables` gives them, from the file."""
    from ase.io import iread

    columns: dict[str, dict[str, list[np.ndarray]]] = {}

    def add(name: str, reference: np.ndarray, predicted: np.ndarray, kind: np.ndarray) -> None:
        target = columns.setdefault(name, {"reference": [], "predicted": [], "species": []})
        for key, value in zip(target, (reference, predicted, kind), strict=True):
            target[key].append(np.atleast_1d(value))

    for atoms in iread(str(predictions), index=":"):
        n, formula, results = len(atoms), atoms.get_chemical_formula(), atoms.calc.results
        if "reference_energy" in atoms.info:
            add("energy", atoms.info["reference_energy"] / n, results["energy"] / n, np.array(formula))
        if "reference_forces" in atoms.arrays:
            kinds = np.repeat(np.array(atoms.get_chemical_symbols()), 3)
            add("forces", atoms.arrays["reference_forces"].ravel(), results["forces"].ravel(), kinds)
        if "reference_stress" in atoms.info and "stress" in results:
            reference = voigt(np.asarray(atoms.info["reference_stress"]).reshape(3, 3))
            add("stress", reference, results["stress"], np.repeat(formula, 6))
    return {name: {k: np.concatenate(v) for k, v in parts.items()} for name, parts in columns.items()}
