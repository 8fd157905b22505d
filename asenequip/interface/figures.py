"""Figures of an interface study, drawn from its summary."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from asenequip.interface.growth import LAWS

WIDTH, HEIGHT = 6.4, 3.6
"""Inches."""
Summary = Mapping[str, Any]


def draw(summary: Summary) -> dict[str, tuple[str, bytes]]:
    """Draw all figures that a summary allows.

    Parameters
    ----------
    summary : mapping
        From `asenequip.interface.tables.summarise`.

    Returns
    -------
    dict of str to (str, bytes)
        Name of the figure: its caption and its SVG.
    """
    found = {}
    for name, (caption, wanted, function) in FIGURES.items():
        if all(summary[key] for key in wanted):
            axes = _axes()
            function(summary, axes)
            found[name] = (caption, _svg(axes))
    return found


def _axes() -> Any:
    """Axes of a figure of its own, without pyplot and its global state."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _svg(axes: Any) -> bytes:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)
    buffer = io.BytesIO()
    axes.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _array(values: Any) -> np.ndarray:
    """Numbers with NaN in the place of None."""
    return np.array(values, dtype=float)


def _band(axes: Any, x: Any, estimate: Mapping[str, Any], row: int, label: str) -> None:
    value, width = _array(estimate["value"][row]), _array(estimate["half_width"][row])
    (line,) = axes.plot(x, value, label=label, lw=1.2)
    axes.fill_between(x, value - width, value + width, color=line.get_color(), alpha=0.25, lw=0)


def _density(summary: Summary, axes: Any) -> None:
    profile = summary["species"]
    for row, name in enumerate(profile["names"]):
        _band(axes, profile["heights"], profile["density"], row, name)
    axes.set(xlabel="height / Angstrom", ylabel="atoms / Angstrom$^3$")


def _classes(summary: Summary, axes: Any) -> None:
    profile = summary["classes"]
    first, last = _array(profile["slices"][0]), _array(profile["slices"][-1])
    for row, name in enumerate(profile["names"]):
        (line,) = axes.plot(profile["heights"], last[row], lw=1.3, label=name)
        axes.plot(profile["heights"], first[row], lw=0.8, ls=":", color=line.get_color())
    axes.set(xlabel="height / Angstrom", ylabel="atoms / Angstrom$^3$")


def _thickness(summary: Summary, axes: Any) -> None:
    times = _array(summary["thickness"]["times"])
    for side in ("below", "above"):
        (line,) = axes.plot(times, summary["thickness"][side], lw=0.8, alpha=0.7, label=f"{side} the electrolyte")
        fits = summary["growth"].get(side)
        if fits:
            values = LAWS[fits[0]["law"]].thickness(times - times[0], _array(fits[0]["parameters"]["value"]))
            axes.plot(times, values, color=line.get_color(), ls="--", label=f"{side}: {fits[0]['formula']}")
    axes.set(xlabel="time / ps", ylabel="thickness / Angstrom")


def _populations(summary: Summary, axes: Any) -> None:
    populations = summary["populations"]
    counts = _array(populations["counts"])
    for row, name in enumerate(populations["names"]):
        axes.plot(populations["times"], counts[:, row] - counts[0, row], lw=1.2, label=name)
    axes.set(xlabel="time / ps", ylabel="change of the number of atoms")


def _bonds(summary: Summary, axes: Any) -> None:
    for name, bond in summary["bonds"].items():
        label = f"{name}: {bond['broken']} broken, {bond['formed']} formed"
        axes.plot(bond["times"], bond["bonds"], lw=1.2, label=label)
    axes.set(xlabel="time / ps", ylabel="bonds")


def _msd(summary: Summary, axes: Any) -> None:
    diffusion = summary["diffusion"]
    for row, name in enumerate(diffusion["names"]):
        _band(axes, diffusion["lags"], diffusion["msd"], row, name)
    axes.axvspan(*diffusion["window"], color="0.9", zorder=0, label="fit window")
    axes.set(
        xlabel="time difference / ps", ylabel="mean-squared displacement / Angstrom$^2$", xscale="log", yscale="log"
    )


def _layers(summary: Summary, axes: Any) -> None:
    layers = summary["layers"]
    places = np.arange(len(layers["names"]))
    for shift, part in ((-0.15, "along"), (0.15, "across")):
        value, width = (_array(layers[part][key]) for key in ("value", "half_width"))
        axes.errorbar(places + shift, value, width, fmt="o", ms=4, capsize=3, label=f"{part} the layers")
    axes.set_xticks(places, layers["names"], fontsize=7, rotation=15)
    axes.axhline(0.0, color="0.7", lw=0.8, zorder=0)
    axes.set(ylabel="D / (Angstrom$^2$/ps)")


def _radial(summary: Summary, axes: Any) -> None:
    radial = summary["radial"]
    for row, (one, two) in enumerate(radial["pairs"]):
        if one <= two:
            _band(axes, radial["radii"], radial["g"], row, f"{one}-{two}")
    axes.axhline(1.0, color="0.7", lw=0.8, zorder=0)
    axes.set(xlabel="distance / Angstrom", ylabel="g", ylim=(0, 12))


def _creep(summary: Summary, axes: Any) -> None:
    creep = summary["creep"]
    value, width = (_array(creep["velocity"][key]) for key in ("value", "half_width"))
    for axis, name in enumerate(("x, in the plane", "y, in the plane", "z, across")):
        axes.errorbar(creep["heights"], value[:, axis], width[:, axis], fmt="o-", ms=3, lw=0.8, capsize=2, label=name)
    axes.axhline(0.0, color="0.7", lw=0.8, zorder=0)
    axes.set(xlabel="height of the layer at the start / Angstrom", ylabel="drift / (Angstrom/ps)")


FIGURES: dict[str, tuple[str, tuple[str, ...], Callable[[Summary, Any], None]]] = {
    "density": (
        "Number density across the cell, mean over time; bands are 95 percent intervals.",
        ("species",),
        _density,
    ),
    "classes": ("Classes across the cell, at the start (dotted) and at the end (full).", ("classes",), _classes),
    "thickness": (
        "What lies between electrode and electrolyte, and the best law of growth.",
        ("thickness",),
        _thickness,
    ),
    "populations": ("Atoms of each class since the start.", ("populations",), _populations),
    "bonds": ("Bonds over time.", ("bonds",), _bonds),
    "msd": ("Mean-squared displacement; bands are 95 percent intervals.", ("diffusion",), _msd),
    "layers": ("Diffusion by layer; bars are 95 percent intervals.", ("layers",), _layers),
    "radial": ("Partial radial distribution functions.", ("radial",), _radial),
    "creep": ("Steady drift of the electrode's layers; bars are 95 percent intervals.", ("creep",), _creep),
}
"""Name: caption, what of the summary it needs, and the function that draws it."""
