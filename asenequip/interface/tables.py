"""What the analyses found as plain numbers: one JSON file, and a CSV file per table."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

import asenequip
from asenequip.files import write_new
from asenequip.interface.analysis import Analysis
from asenequip.interface.conductivity import nernst_einstein
from asenequip.interface.growth import LAWS
from asenequip.interface.profiles import ProfileResult
from asenequip.interface.statistics import Estimate

SLICES = 6
"""Times at which profiles are kept."""


def summarise(analysis: Analysis, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All numbers of an analysis, JSON-able.

    Parameters
    ----------
    analysis : Analysis
    provenance : mapping, optional
        What else is known: file, potential, settings of the run.

    Returns
    -------
    dict
        Every estimate is {"value", "half_width"} at the 95 percent level; None stands for what is not known.
    """
    from asenequip.interface.limits import warnings_of

    first = analysis.first
    found: dict[str, Any] = {
        "provenance": {
            "asenequip": asenequip.__version__,
            "formula": first.symbols.get_chemical_formula(),
            "atoms": len(first),
            "frames": analysis.frames,
            "time_ps": list(analysis.times),
            "temperature_K": analysis.temperature,
            "built": {k: v for k, v in first.info.items() if isinstance(v, (str, int, float))},
            "choices": _choices(analysis),
            **(provenance or {}),
        },
        "warnings": warnings_of(analysis),
        "species": _profile(analysis.species),
        "classes": _profile(analysis.classes),
        "fronts": {k: _fields(v, ("times", "lower", "upper", "faces", "widths")) for k, v in analysis.fronts.items()},
        "thickness": None
        if analysis.thickness is None
        else {"times": analysis.classes.times, "below": analysis.thickness[:, 0], "above": analysis.thickness[:, 1]},
        "growth": {side: [_fit(fit) for fit in fits] for side, fits in analysis.growth.items()},
        "diffusion": None if analysis.diffusion is None else _fields(analysis.diffusion),
        "layers": None if analysis.layers is None else _fields(analysis.layers),
        "conductivity": _conductivity(analysis),
        "radial": _fields(analysis.radial),
        "order": _fields(analysis.order),
        "populations": _fields(analysis.populations),
        "bonds": {name: _fields(bond, ("times", "bonds", "broken", "formed")) for name, bond in analysis.bonds.items()},
        "phases": [{**_fields(phase), "name": phase.name} for phase in analysis.phases],
        "creep": None if analysis.creep is None else _fields(analysis.creep),
    }
    plain: dict[str, Any] = _plain(found)
    return plain


def write_tables(summary: Mapping[str, Any], folder: str | os.PathLike[str]) -> list[Path]:
    """Write ``analysis.json`` and the tables as CSV into a folder; nothing there is overwritten.

    Returns
    -------
    list of Path
    """
    folder = Path(folder)
    tables = {name: rows for name, rows in _tables(summary).items() if len(rows) > 1}
    paths = [folder / "analysis.json", *(folder / f"{name}.csv" for name in tables)]
    taken = [path for path in paths if path.exists()]
    if taken:
        raise FileExistsError(f"'{taken[0]}' exists and is not overwritten. Choose another folder.")
    write_new(paths[0], (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode())
    for path, rows in zip(paths[1:], tables.values(), strict=True):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_new(path, text.getvalue().encode())
    return paths


# -- to plain numbers -------------------------------------------------------------------------------------------------


def _fields(result: Any, names: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = names or [entry.name for entry in dataclasses.fields(result)]
    return {name: getattr(result, name) for name in chosen}


def _profile(profile: ProfileResult) -> dict[str, Any]:
    """A profile with its mean over time, and a few times of it."""
    parts = np.array_split(np.arange(len(profile.times)), min(SLICES, len(profile.times)))
    return {
        "names": profile.names,
        "heights": profile.heights,
        "length": profile.length,
        "density": profile.density,
        "share": profile.share(),
        "slice_times": [profile.times[part].mean() for part in parts],
        "slices": [profile.series[part].mean(axis=0) for part in parts],
    }


def _fit(fit: Any) -> dict[str, Any]:
    law = LAWS[fit.law]
    return {**_fields(fit), "formula": law.formula, "names": law.parameters}


def _conductivity(analysis: Analysis) -> list[dict[str, Any]]:
    """Nernst-Einstein conductivity of each carrier: inside the electrolyte where there are layers, else of the cell."""
    result = analysis.layers or analysis.diffusion
    if result is None or not analysis.temperature > 0:
        return []
    volume = analysis.volume * analysis.electrolyte_share
    found = []
    for symbol, charge in analysis.choices.carriers.items():
        group = symbol if analysis.layers is None else f"{symbol}, electrolyte"
        if group in result.names:
            row = result.names.index(group)
            number, speed = float(result.atoms[row]), result.isotropic[row]
            value = nernst_einstein(speed, number, volume, analysis.temperature, charge)
            found.append({"group": group, "charge": charge, "conductivity": value})
    return found


def _choices(analysis: Analysis) -> dict[str, Any]:
    kept = _fields(analysis.choices)
    kept["rules"] = [dataclasses.asdict(rule) for rule in analysis.choices.rules or ()] or "by species and bonds"
    kept["classes"] = "given" if analysis.choices.classes else "by rules"
    return kept


def _plain(value: Any) -> Any:
    """Lists, dicts, numbers of six digits and None in the place of arrays, estimates and NaN."""
    if isinstance(value, Estimate):
        return {"value": _plain(value.value), "half_width": _plain(value.half_width())}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(_fields(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Atoms):
        return value.symbols.get_chemical_formula()
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{float(value):.6g}") if math.isfinite(value) else None
    return value if value is None or isinstance(value, str) else str(value)


# -- tables -----------------------------------------------------------------------------------------------------------

Rows = list[list[Any]]


def _tables(summary: Mapping[str, Any]) -> dict[str, Rows]:
    tables = {f"profile_{name}": _profile_rows(summary[name]) for name in ("species", "classes")}
    for name in ("diffusion", "layers"):
        if summary[name] is not None:
            tables[name] = _diffusion_rows(summary[name])
            tables[f"{name}_msd"] = _msd_rows(summary[name])
    thickness = summary["thickness"]
    if thickness is not None:
        columns = zip(thickness["times"], thickness["below"], thickness["above"], strict=True)
        tables["thickness"] = [["time_ps", "below_A", "above_A"], *map(list, columns)]
    tables["growth"] = [["side", "law", "parameter", "value", "half_width", "akaike", "weight"]]
    for side, fits in summary["growth"].items():
        for fit in fits:
            for name, v, w in zip(fit["names"], *fit["parameters"].values(), strict=True):
                tables["growth"].append([side, fit["law"], name, v, w, fit["akaike"], fit["weight"]])
    populations = summary["populations"]
    rows = zip(populations["times"], populations["counts"], strict=True)
    tables["populations"] = [["time_ps", *populations["names"]], *([t, *row] for t, row in rows)]
    tables.update(_more_tables(summary))
    radial = summary["radial"]
    head = ["radius_A", *(f"g {a}-{b}" for a, b in radial["pairs"])]
    tables["radial"] = [
        head,
        *([r, *g] for r, g in zip(radial["radii"], zip(*radial["g"]["value"], strict=True), strict=True)),
    ]
    tables["phases"] = [["class", "atoms", "name", "crystal", "site", "similarity", "strain", "mixed", "composition"]]
    for phase in summary["phases"]:
        shares = " ".join(f"{k}:{v}" for k, v in phase["composition"].items())
        tables["phases"].append(
            [phase[k] for k in ("group", "atoms", "name", "crystal", "site", "similarity", "strain", "mixed")]
            + [shares]
        )
    if summary["creep"] is not None:
        creep = summary["creep"]
        head = ["height_A", "atoms", *(f"v{a}_A_ps" for a in "xyz"), *(f"v{a}_half_width" for a in "xyz"), "D2min_A2"]
        tables["creep"] = [head]
        for k, height in enumerate(creep["heights"]):
            velocity = creep["velocity"]
            other = creep["nonaffine"][-1][k] if creep["nonaffine"] else None
            tables["creep"].append(
                [height, creep["atoms"][k], *velocity["value"][k], *velocity["half_width"][k], other]
            )
    return tables


def _more_tables(summary: Mapping[str, Any]) -> dict[str, Rows]:
    """Fronts and bonds over time, conductivities, and the bond order of the classes."""
    tables: dict[str, Rows] = {}
    fronts = summary["fronts"]
    if fronts:
        faces = [front[face] for front in fronts.values() for face in ("lower", "upper")]
        times = next(iter(fronts.values()))["times"]
        head = ["time_ps", *(f"{side} {face} A" for side in fronts for face in ("lower", "upper"))]
        tables["fronts"] = [head, *map(list, zip(times, *faces, strict=True))]
    bonds = summary["bonds"]
    if bonds:
        times = next(iter(bonds.values()))["times"]
        tables["bonds"] = [
            ["time_ps", *bonds],
            *map(list, zip(times, *(b["bonds"] for b in bonds.values()), strict=True)),
        ]
    tables["conductivity"] = [["group", "charge", "S/cm", "half_width"]]
    for entry in summary["conductivity"]:
        tables["conductivity"].append([entry["group"], entry["charge"], *entry["conductivity"].values()])
    order = summary["order"]
    tables["order"] = [["class", *(f"q{d}{what}" for what in ("", " half_width") for d in order["degrees"])]]
    columns = zip(order["names"], *order["order"].values(), strict=True)
    tables["order"] += [[name, *values, *widths] for name, values, widths in columns]
    return tables


def _profile_rows(profile: Mapping[str, Any]) -> Rows:
    names = profile["names"]
    rows: Rows = [["height_A", *(f"{n} A-3" for n in names), *(f"{n} half_width" for n in names)]]
    density = profile["density"]
    for k, height in enumerate(profile["heights"]):
        rows.append([height, *(row[k] for row in density["value"]), *(row[k] for row in density["half_width"])])
    return rows


def _diffusion_rows(result: Mapping[str, Any]) -> Rows:
    head = ["group", "atoms"]
    for name in ("D", "D along", "D across", "exponent"):
        head += [f"{name}{'' if name == 'exponent' else ' A2/ps'}", "half_width"]
    rows: Rows = [head + [f"D{c} A2/ps" for c in ("xx", "yy", "zz", "yz", "xz", "xy")]]
    for k, name in enumerate(result["names"]):
        row = [name, result["atoms"][k]]
        for part in ("isotropic", "along", "across", "exponent"):
            row += [result[part]["value"][k], result[part]["half_width"][k]]
        rows.append(row + result["tensor"]["value"][k])
    return rows


def _msd_rows(result: Mapping[str, Any]) -> Rows:
    rows: Rows = [["lag_ps", *(f"{n} A2" for n in result["names"]), *(f"{n} half_width" for n in result["names"])]]
    msd = result["msd"]
    for k, lag in enumerate(result["lags"]):
        rows.append([lag, *(row[k] for row in msd["value"]), *(row[k] for row in msd["half_width"])])
    return rows
