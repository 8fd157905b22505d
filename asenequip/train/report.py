"""Figures of a run, each with its numbers as CSV: parity, learning curves, error histograms; the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from asenequip.train.data import Sample
from asenequip.train.metrics import Prediction
from asenequip.train.rundir import RunDirectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 20000
"""Points drawn in one figure at most; the CSV holds all."""


def test_frames(samples: Sequence[Sample], predictions: Sequence[Prediction]) -> list[Atoms]:
    """Frames with the predictions as results and the labels as ``info`` / ``arrays`` (``reference_*``)."""
    out = []
    for sample, found in zip(samples, predictions, strict=True):
        frame = sample.frame
        atoms = Atoms(frame.atoms.numbers, frame.atoms.positions, cell=frame.atoms.cell, pbc=frame.atoms.pbc)
        results: dict[str, Any] = {"energy": found.energy, "forces": found.forces}
        if np.isfinite(found.stress).all():
            results["stress"] = voigt(found.stress)
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["source"] = frame.source
        if np.isfinite(frame.energy):
            atoms.info["reference_energy"] = frame.energy
        if np.isfinite(frame.stress).all():
            atoms.info["reference_stress"] = frame.stress.ravel()
        if np.isfinite(frame.forces).all():
            atoms.arrays["reference_forces"] = frame.forces.copy()
        out.append(atoms)
    return out


test_frames.__test__ = False  # type: ignore[attr-defined]


def voigt(stress: np.ndarray) -> np.ndarray:
    """Symmetric (3, 3) -> (6,) xx, yy, zz, yz, xz, xy."""
    return stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def parity_tables(
    samples: Sequence[Sample], predictions: Sequence[Prediction], species: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Labels and predictions of each quantity, as columns.

    Returns
    -------
    dict
        "energy" (eV per atom), "forces" (eV/Angstrom, with the species), "stress" (eV/Angstrom^3); a quantity without
        labels is absent. Columns "reference", "predicted", "species".
    """
    rows: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {"energy": [], "forces": [], "stress": []}
    names = np.array(species)
    for sample, found in zip(samples, predictions, strict=True):
        frame, n = sample.frame, sample.graph.num_atoms
        formula = np.array([frame.atoms.get_chemical_formula()])
        if np.isfinite(frame.energy):
            rows["energy"].append((np.array([frame.energy / n]), np.array([found.energy / n]), formula))
        labelled = np.isfinite(frame.forces).all(axis=1)
        kinds = np.repeat(names[sample.graph.types.numpy()[labelled]], 3)
        rows["forces"].append((frame.forces[labelled].ravel(), found.forces[labelled].ravel(), kinds))
        if np.isfinite(frame.stress).all() and np.isfinite(found.stress).all():
            rows["stress"].append((voigt(frame.stress), voigt(found.stress), np.repeat(formula, 6)))
    out = {}
    for name, parts in rows.items():
        if parts and sum(len(part[0]) for part in parts):
            columns = (np.concatenate([part[k] for part in parts]) for k in range(3))
            out[name] = dict(zip(("reference", "predicted", "species"), columns, strict=True))
    return out


def write_columns(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Columns of equal length as CSV."""
    lines = [",".join(columns)]
    lines += [",".join(str(v) for v in row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")


_UNITS = {
    "energy": ("energy per atom", "eV", 1e3, "meV"),
    "forces": ("force component", "eV/Å", 1e3, "meV/Å"),
    "stress": ("stress component", "eV/Å³", 1e3, "meV/Å³"),
}


def draw_figures(
    run: RunDirectory, tables: Mapping[str, Mapping[str, np.ndarray]], rows: Sequence[Mapping[str, float]]
) -> list[Path]:
    """Draw every figure of a run.

    Parameters
    ----------
    run : RunDirectory
    tables : mapping
        From `parity_tables`.
    rows : sequence of mappings
        Metrics by epoch.

    Returns
    -------
    list of Path
        The figures (PNG); a CSV of the same name is beside each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run.figures.mkdir(exist_ok=True)
    paths = []

    def save(figure: Figure, name: str, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        FigureCanvasAgg(figure)
        figure.savefig(run.figures / f"{name}.png", dpi=150)
        write_columns(run.figures / f"{name}.csv", columns)
        paths.append(run.figures / f"{name}.png")

    for name, columns in tables.items():
        figure = Figure(figsize=(4.2, 4.0), layout="constrained")
        _draw_parity(figure.add_subplot(), name, columns)
        save(figure, f"parity_{name}", columns)
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        centres, counts = _draw_histogram(figure.add_subplot(), name, columns)
        save(figure, f"errors_{name}", {f"error_{_UNITS[name][3]}": centres, "count": counts})
    if rows:
        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        save(figure, "learning_curve", _draw_learning(list(figure.subplots(1, 2)), rows))
    return paths


def _draw_parity(axes: Axes, name: str, columns: Mapping[str, np.ndarray]) -> None:
    label, unit, factor, small = _UNITS[name]
    reference, predicted, species = columns["reference"], columns["predicted"], columns["species"]
    low, high = (f(np.concatenate([reference, predicted])) for f in (np.min, np.max))
    axes.plot([low, high], [low, high], color="0.6", lw=1, zorder=0)
    kinds = list(dict.fromkeys(species.tolist()))
    for kind in kinds[:8]:
        mine = np.flatnonzero(species == kind)
        shown = mine[:: max(1, len(mine) // (_MOST_POINTS // len(kinds)))]
        mae = np.abs(predicted[mine] - reference[mine]).mean() * factor
        text = f"{kind}: {mae:.3g} {small}"
        axes.plot(reference[shown], predicted[shown], ".", ms=3, alpha=0.5, label=text, rasterized=True)
    axes.legend(fontsize=7, title="mean absolute error", title_fontsize=7)
    axes.set(xlabel=f"reference {label} ({unit})", ylabel=f"predicted {label} ({unit})")


def _draw_histogram(axes: Axes, name: str, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    label, _, factor, small = _UNITS[name]
    errors = (columns["predicted"] - columns["reference"]) * factor
    counts, edges = np.histogram(errors, bins=min(80, max(10, len(errors) // 5)))
    axes.stairs(counts, edges, fill=True)
    axes.set(xlabel=f"error of {label} ({small})", ylabel="count", yscale="log")
    return 0.5 * (edges[1:] + edges[:-1]), counts


def _draw_learning(axes: Sequence[Axes], rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Loss on the left, errors on the right; returns the columns drawn."""
    names = ["epoch", "train_loss", "valid_loss", "valid_energy_mae", "valid_forces_mae", "valid_stress_mae"]
    columns = {name: [row.get(name, float("nan")) for row in rows] for name in names if name in rows[-1]}
    for name in names[1:3]:
        if name in columns and np.nanmax(columns[name]) > 0:
            axes[0].semilogy(columns["epoch"], columns[name], label=name.replace("_", " "))
    for name in names[3:]:
        if name in columns:
            quantity = name.split("_")[1]
            values = np.array(columns[name]) * _UNITS[quantity][2]
            if np.nanmax(values) > 0:
                axes[1].semilogy(columns["epoch"], values, label=f"{quantity} ({_UNITS[quantity][3]})")
    axes[0].set(xlabel="epoch", ylabel="loss")
    axes[1].set(xlabel="epoch", ylabel="mean absolute error, validation")
    for one in axes:
        if one.lines:
            one.legend(fontsize=7)
    return columns


def judged_part(record: Mapping[str, Any]) -> tuple[str, str]:
    """Which frames a run's summary judges the potential by, as its key and in words."""
    words = {"test": "test", "valid": "validation", "train": "training"}
    return next((key, text) for key, text in words.items() if record.get(key) or key == "train")


def model_card(record: Mapping[str, Any]) -> str:
    """The model card, Markdown, from the run's summary."""
    part, which = judged_part(record)
    errors = record.get(part, {})
    lines = ["# Model card", "", f"Potential `model.asnq`, SHA-256 `{record['sha256']}`.", ""]
    facts = {
        "Species": ", ".join(record["species"]),
        "Units": "eV, Angstrom (forces eV/Angstrom, stress eV/Angstrom^3)",
        "Cutoff": f"{record['cutoff']:g} Angstrom",
        "Weights": record["parameters"],
        "Licence": record["licence"],
        "Frames": ", ".join(f"{name} {count}" for name, count in record["frames"].items()),
        "Data": ", ".join(record["data"]),
        "Temperatures, strains": "those of the data; nothing else was seen in training",
        "Best epoch": record["best_epoch"],
        "Training time": f"{record['seconds']:.0f} s",
        "Settings": f"config.json, SHA-256 {record['config_sha256']}",
    }
    lines += [f"* {name}: {value}" for name, value in facts.items()]
    lines += ["", f"## Errors on the {which} frames", "", "| quantity | MAE | RMSE |", "|---|---|---|"]
    for name, (label, _, factor, small) in _UNITS.items():
        if f"{name}_mae" in errors:
            mae, rmse = errors[f"{name}_mae"] * factor, errors[f"{name}_rmse"] * factor
            lines.append(f"| {label} | {mae:.3g} {small} | {rmse:.3g} {small} |")
    start = "forces_mae_"
    for key in [key for key in errors if key.startswith(start)]:
        kind, pair = key[len(start) :], (errors[key] * 1e3, errors[key.replace("_mae_", "_rmse_")] * 1e3)
        lines.append(f"| forces on {kind} | {pair[0]:.3g} meV/Å | {pair[1]:.3g} meV/Å |")
    for name, (label, _, factor, small) in _UNITS.items():
        for key in [key for key in errors if key.startswith(f"{name}_mae@")]:
            pair = (errors[key] * factor, errors[key.replace("_mae@", "_rmse@")] * factor)
            lines.append(f"| {label}, {key.split('@')[1]} | {pair[0]:.3g} {small} | {pair[1]:.3g} {small} |")
    lines += [
        "",
        "## Known limits",
        "",
        "* Structures unlike the training frames (other compositions, densities, shorter distances) are extrapolation.",
        "* Strictly local: no interaction reaches beyond the cutoff of one atom's neighbours.",
    ]
    return "\n".join(lines) + "\n"
