"""The study as one HTML page: figures, tables, methods, provenance, and what the data do not support."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from asenequip.files import write_new
from asenequip.interface.figures import draw

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; width: 30rem; max-width: 100%; vertical-align: top; }
img { width: 100%; } figcaption { font-size: .85rem; color: #555; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .87rem; }
th, td { border-bottom: 1px solid #e4e4e4; padding: .2rem .7rem .2rem 0; text-align: right; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
.limits { background: #fff6e0; border-left: 4px solid #d99a00; padding: .6rem 1rem; }
pre { font-size: .8rem; overflow-x: auto; background: #f6f6f6; padding: .8rem; }
"""

_METHODS = (
    "Positions are unwrapped by minimum-image displacements from frame to frame, and the drift of the reference's "
    "centre of mass is taken off. All intervals are of the 95 percent level: Student's t over independent blocks.",
    "Diffusion: in stretches of time that share no displacement, half the slope of a straight line with intercept "
    "through the mean-squared displacement in the fit window; groups are those at each time origin. Conductivity: "
    "Nernst-Einstein, without correlations between ions.",
    "Fronts: the density of a side's classes, fitted by a layer with faces of the form of tanh; over time, equimolar "
    "dividing surfaces. The interphase is what lies between the two fronts. Laws of growth are compared by Akaike's "
    "criterion, counting independent values only.",
    "Classes are named by the cosine of their mean surroundings with those in reference crystals strained by up to 6 "
    "percent, in which all metals count as one kind and all non-metals as another; a class with several elements on a "
    "site is a mixed crystal.",
    "Creep: layers of the atoms that the electrode had at the start; their drift is the mean over stretches of time of "
    "the slope of their displacement.",
)


def render(summary: Mapping[str, Any], title: str = "Interface study") -> str:
    """Make the page from a summary; it asks for nothing from the network and runs no script.

    Parameters
    ----------
    summary : mapping
        From `asenequip.interface.tables.summarise`, or its ``analysis.json``.
    title : str

    Returns
    -------
    str
        HTML.
    """
    figures = draw(summary)
    used: set[str] = set()

    def show(*names: str) -> str:
        used.update(names)
        return "\n".join(_figure(name, *figures[name]) for name in names if name in figures)

    given = summary["provenance"]
    sections = [
        f"<h1>{escape(title)}</h1>",
        _subject(given),
        _limits(summary["warnings"]),
        "<h2>Across the cell</h2>" + show("density", "classes") + _fronts(summary),
        "<h2>Growth</h2>" + show("thickness") + _growth(summary),
        "<h2>Classes and reactions</h2>" + show("populations", "bonds") + _phases(summary) + _order(summary),
        "<h2>Diffusion</h2>" + show("msd", "layers") + _diffusion(summary),
        "<h2>Structure</h2>" + show("radial"),
        "<h2>Creep</h2>" + show("creep") + _creep(summary),
        "<h2>Methods</h2>" + "".join(f"<p>{escape(text)}</p>" for text in _METHODS),
        "<h2>Provenance</h2><pre>" + escape(json.dumps(given, indent=1)) + "</pre>",
    ]
    body = "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def write_report(summary: Mapping[str, Any], path: str | os.PathLike[str], title: str = "Interface study") -> Path:
    """Write the page; a file that exists is not overwritten."""
    path = Path(path)
    write_new(path, render(summary, title).encode())
    return path


# -- parts of the page ------------------------------------------------------------------------------------------------


def _figure(name: str, caption: str, svg: bytes) -> str:
    data = base64.b64encode(svg).decode()
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(caption)}">'
    return f'<figure id="{name}">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def _subject(given: Mapping[str, Any]) -> str:
    begin, end = given["time_ps"]
    kelvin = "" if given["temperature_K"] is None else f", {given['temperature_K']:.0f} K on average"
    size = f"{escape(given['formula'])}, {given['atoms']} atoms, {given['frames']} frames"
    return f"<p>{size} from {begin:g} to {end:g} ps{kelvin}.</p>"


def _limits(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<div class="limits"><b>What these data do not support</b><ul>{items}</ul></div>'


def _number(value: float | None, width: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if width is None else f"{value:.3g} &plusmn; {width:.2g}"


def _pick(estimate: Mapping[str, Any], row: int) -> str:
    return _number(estimate["value"][row], estimate["half_width"][row])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>" if lines else ""


def _fronts(summary: Mapping[str, Any]) -> str:
    rows = [
        [escape(side), *(_pick(front["faces"], k) for k in (0, 1)), *(_pick(front["widths"], k) for k in (0, 1))]
        for side, front in summary["fronts"].items()
    ]
    return _table(("front of the", "lower / A", "upper / A", "lower width / A", "upper width / A"), rows)


def _growth(summary: Mapping[str, Any]) -> str:
    rows = []
    for side, fits in summary["growth"].items():
        for fit in fits:
            values = ", ".join(
                f"{escape(name)} = {_number(v, w)}"
                for name, v, w in zip(fit["names"], *fit["parameters"].values(), strict=True)
            )
            rows.append([side, escape(fit["formula"]), values, _number(fit["residual"]), f"{fit['weight']:.2f}"])
    return _table(("side", "law", "parameters", "residual / A", "weight"), rows)


def _phases(summary: Mapping[str, Any]) -> str:
    rows = []
    for phase in summary["phases"]:
        shares = " ".join(f"{symbol} {share:.2f}" for symbol, share in phase["composition"].items())
        row = (escape(phase["group"]), f"{phase['atoms']:.0f}", escape(shares), escape(phase["name"]))
        rows.append((*row, _number(phase["similarity"]), f"{phase['strain']:+.0%}"))
    return _table(("class", "atoms", "composition", "most like", "similarity", "strain"), rows)


def _order(summary: Mapping[str, Any]) -> str:
    order = summary["order"]
    rows = []
    for k, name in enumerate(order["names"]):
        values, widths = order["order"]["value"][k], order["order"]["half_width"][k]
        if None not in values:
            rows.append([escape(name), *(_number(v, w) for v, w in zip(values, widths, strict=True))])
    return _table(("bond order of", *(f"q{degree}" for degree in order["degrees"])), rows)


def _diffusion(summary: Mapping[str, Any]) -> str:
    head = ("group", "atoms", "D / (A^2/ps)", "along", "across", "exponent")
    text = ""
    for name in ("diffusion", "layers"):
        result = summary[name]
        if result is None:
            continue
        rows = [
            [escape(group), f"{result['atoms'][k]:.0f}"]
            + [_pick(result[part], k) for part in ("isotropic", "along", "across", "exponent")]
            for k, group in enumerate(result["names"])
        ]
        text += _table(head, rows)
    for entry in summary["conductivity"]:
        value = entry["conductivity"]
        text += (
            f"<p>Nernst-Einstein conductivity of {escape(entry['group'])}: "
            f"{_number(value['value'], value['half_width'])} S/cm.</p>"
        )
    return text


def _creep(summary: Mapping[str, Any]) -> str:
    creep = summary["creep"]
    if creep is None:
        return ""
    names = ("shear xz", "shear yz", "stretch zz")
    rows = [[name, _pick(creep["strain_rate"], k)] for k, name in enumerate(names)]
    text = _table(("rate", "1/ps"), rows)
    if creep["nonaffine"]:
        last = zip(creep["heights"], creep["atoms"], creep["nonaffine"][-1], strict=True)
        cells = [[f"{height:.1f}", str(atoms), _number(motion)] for height, atoms, motion in last]
        text += _table(("layer at / A", "atoms", "non-affine motion at the end, D2min / A^2"), cells)
    return text
