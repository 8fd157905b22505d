"""One self-contained HTML page of a run: errors, figures, settings; it opens without a network."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from asenequip.train.config_errors import flatten
from asenequip.train.rundir import RunDirectory

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: .5rem 0; } td, th { padding: .15rem .7rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f6f6f6; }
figure { display: inline-block; margin: .5rem; vertical-align: top; } img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .85rem; } code { font-size: .9em; }
"""
_SHOWN = {"energy": (1e3, "meV/atom"), "forces": (1e3, "meV/Å"), "stress": (1e3, "meV/Å³")}
_MOST_ROWS = 12
"""Epochs in the table; metrics.csv has all."""


def write_page(run: RunDirectory) -> Path:
    """Write ``report.html`` from the files of a run, finished or not.

    Parameters
    ----------
    run : RunDirectory

    Returns
    -------
    Path
    """
    record = run.read_json("summary.json") if run.finished else None
    config = run.read_json("config.json")
    title = f"Training run {run.path.name}"
    body = [f"<h1>{escape(title)}</h1>", _facts(run, record)]
    if record is not None:
        for part, words in (("test", "test"), ("valid", "validation"), ("train", "training")):
            if record.get(part):
                body += [f"<h2>Errors on the {words} frames</h2>", _errors(record[part])]
    body += ["<h2>Figures</h2>", *(_figure(path) for path in sorted(run.figures.glob("*.png")))]
    body += ["<h2>Epochs</h2>", _epochs(run)]
    settings = [(name, json.dumps(value)) for name, value in flatten(config["settings"]).items()]
    body += ["<h2>Settings</h2>", "<details><summary>All settings</summary>", _table(("setting", "value"), settings)]
    body += ["</details>", "<h2>Environment</h2>", _table(("", ""), run.read_json("environment.json").items())]
    html = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )
    return run.write_text("report.html", html)


def _facts(run: RunDirectory, record: Mapping[str, Any] | None) -> str:
    if record is None:
        return f"<p>Not finished. Go on with <code>asenequip-train resume {escape(str(run.path))}</code>.</p>"
    rows = [
        ("species", ", ".join(record["species"])),
        ("cutoff", f"{record['cutoff']:g} Å"),
        ("weights", record["parameters"]),
        ("frames", ", ".join(f"{name} {count}" for name, count in record["frames"].items())),
        ("data", ", ".join(record["data"])),
        ("best epoch", record["best_epoch"]),
        ("steps", record["steps"]),
        ("training time", f"{record['seconds']:.0f} s"),
        ("licence", record["licence"]),
        ("model.asnq, SHA-256", record["sha256"]),
    ]
    return _table(("", ""), rows)


def _errors(errors: Mapping[str, float]) -> str:
    """Errors by quantity, species and data set."""
    rows = []
    for name in errors:
        for quantity, (factor, unit) in _SHOWN.items():
            start = f"{quantity}_mae"
            if name.startswith(start):
                rest = name[len(start) :]
                what = quantity + (f", {rest[1:]}" if rest else "")
                rmse = errors.get(f"{quantity}_rmse{rest}")
                values = [f"{v * factor:.4g}" if v is not None else "" for v in (errors[name], rmse)]
                rows.append((what, *values, unit))
    return _table(("", "MAE", "RMSE", ""), rows)


def _epochs(run: RunDirectory) -> str:
    path = run.path / "metrics.csv"
    if not path.exists():
        return "<p>No epoch is done.</p>"
    with open(path) as stream:
        rows = list(csv.DictReader(stream))
    columns = [name for name in rows[0] if name.endswith(("epoch", "_loss", "energy_mae", "forces_mae", "stress_mae"))]
    step = max(1, -(-len(rows) // _MOST_ROWS))
    shown = [*rows[::step], *(rows[-1:] if (len(rows) - 1) % step else [])]
    return _table(columns, [[_short(row[name]) for name in columns] for row in shown])


def _short(text: str) -> str:
    return f"{float(text):.4g}" if text else ""


def _figure(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    name = escape(path.stem.replace("_", " "))
    return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{name}</figcaption></figure>'


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def line(cells: Iterable[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    top = line(head, "th") if any(head) else ""
    return "<table>" + top + "".join(line(row, "td") for row in rows) + "</table>"
