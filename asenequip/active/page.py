"""The state of a campaign as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

from asenequip.active.rounds import STEPS, Round, read_json
from asenequip.files import replace_file

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%}th,td{padding:.3em .6em;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}img{max-width:100%}code{background:#f4f4f4;padding:0 .2em}"""


def summary(folder: Path) -> list[dict[str, Any]]:
    """One row per round: number, steps done, labels, failures, errors."""
    rows = []
    number = 0
    while (present := Round(folder, number)).folder.exists():
        done = [step for step in STEPS if present.done(step)]
        row: dict[str, Any] = {"round": number, "step": "done" if len(done) == len(STEPS) else f"{_next(done)} ..."}
        if present.done("label"):
            keys = read_json(present.labelled)
            row |= {"new labels": len(keys["train"]) + len(keys["fresh"]), "failed": len(keys["failures"])}
        if present.done("judge"):
            found = read_json(present.judged)
            row |= {k: found.get(k) for k in ("labels", "force_rmse", "bound", "energy_rmse", "rank_correlation")}
            row |= {k: found.get(k) for k in ("calibration_error", "coverage")}
        rows.append(row)
        number += 1
    return rows


def _next(done: list[str]) -> str:
    return next((step for step in STEPS if step not in done), "")


_COLUMNS = {
    "round": ("round", 1, "d"),
    "step": ("step", 1, ""),
    "new labels": ("new labels", 1, "d"),
    "failed": ("failed", 1, "d"),
    "labels": ("labels in all", 1, "d"),
    "force_rmse": ("force rmse, meV/&Aring;", 1e3, ".1f"),
    "bound": ("bound, meV/&Aring;", 1e3, ".1f"),
    "energy_rmse": ("energy rmse, meV/atom", 1e3, ".2f"),
    "rank_correlation": ("rank correlation", 1, ".2f"),
    "calibration_error": ("calibration error", 1, ".3f"),
    "coverage": ("coverage", 1, ".2f"),
}


def write_page(folder: Path) -> Path:
    """Write ``index.html``; errors are those of the round's earlier potential on its fresh frames."""
    rows = summary(folder)
    settings = read_json(folder / "campaign.json")
    head = "".join(f"<th>{label}</th>" for label, _, _ in _COLUMNS.values())
    body = "".join(f"<tr>{''.join(f'<td>{_cell(row.get(k), k)}</td>' for k in _COLUMNS)}</tr>" for row in rows)
    ended = folder / "outcome.json"
    state = "Running, or stopped: the same command goes on."
    if ended.exists():
        found = read_json(ended)
        state = f"Ended: {html.escape(found['reason'])}. Potential: <code>{html.escape(found['model'])}</code>"
    stop = settings["stop"]
    target = (
        f"Ends when the force rmse of a fresh frame stays below {1e3 * stop['force_error']:g} meV/&Aring; with a "
        f"confidence of {stop['confidence']:g}, after {stop['rounds']} rounds"
        + (f", or after {stop['labels']} labels." if stop["labels"] else ".")
    )
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Campaign</title><style>{_STYLE}</style>'
        f"<h1>Active learning: {html.escape(folder.resolve().name)}</h1><p>{state}</p><p>{target} Labels by "
        f"<code>{html.escape(settings['label']['calculator'])}</code>.</p>"
        f"{_figure(rows, stop['force_error'])}<table><tr>{head}</tr>{body}</table></html>\n"
    )
    path = folder / "index.html"
    replace_file(path, page.encode())
    return path


def _cell(value: Any, column: str) -> str:
    if value is None:
        return ""
    _, factor, style = _COLUMNS[column]
    return html.escape(str(value)) if not style else format(value * factor, style)


def _figure(rows: list[dict[str, Any]], target: float) -> str:
    """Error against number of labels, as an image inside the page."""
    points = [(row["labels"], row["force_rmse"], row["bound"]) for row in rows if row.get("force_rmse") is not None]
    if not points:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    labels = [point[0] for point in points]
    axes.plot(labels, [1e3 * point[1] for point in points], marker="o", label="rmse of all fresh frames")
    bounded = [(point[0], 1e3 * point[2]) for point in points if point[2] is not None]
    if bounded:
        axes.plot(*zip(*bounded, strict=True), marker="s", ls="--", label="bound of one frame")
    axes.axhline(1e3 * target, color="0.6", lw=1, label="target")
    axes.set(xlabel="labels", ylabel="force error, meV/Å", yscale="log")
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return f'<p><img alt="errors" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"></p>'
