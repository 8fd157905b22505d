"""Make the tables of what trained potentials reach, from benchmarks/results/accuracy.json, beside published errors.

No figure of ours is written by hand: ``python docs/accuracy_tables.py`` prints what the page will say, and
benchmarks/bench_accuracy.py fills the file. Footnotes are those of docs/training.md, which includes the tables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tables import RESULTS, table


@dataclass(frozen=True)
class Protocol:
    """How the errors of a configuration are quoted by others.

    Attributes
    ----------
    data : str
        Name of the data set, with its footnote.
    tests : dict
        What each test set of the run holds, by its name in the record.
    measure : {"rmse", "mae"}
        Root of the mean square, or mean absolute.
    atoms : int
        Energies are those of so many atoms.
    published : dict
        Energy / force errors of others, by the name of the test set.
    """

    data: str
    tests: dict[str, str]
    measure: str = "rmse"
    atoms: int = 1
    published: dict[str, str] = field(default_factory=dict)


PROTOCOLS = {
    "mlearn_li": Protocol(
        "lithium, mlearn[^mlearn]",
        {"test": "other frames"},
        published={"test": "SNAP 1.31 / 37.9, qSNAP 0.85 / 44.3[^mlearn]"},
    ),
    "3bpa": Protocol(
        "3BPA[^3bpa], 300 K",
        {"test_300K": "300 K", "test_600K": "600 K"},
        atoms=27,
        published={
            "test_300K": "Allegro[^allegro] 3.84 / 12.98, NequIP[^nequip] 3.3 / 10.8, MACE[^mace] 3.0 / 8.8",
            "test_600K": "Allegro 12.07 / 29.17, NequIP 11.2 / 26.4, MACE 9.7 / 21.8",
        },
    ),
    "aspirin": Protocol(
        "aspirin, revised MD17[^rmd17]",
        {"test": "other frames"},
        "mae",
        atoms=21,
        published={"test": "Allegro[^allegro] 2.3 / 7.3, NequIP 2.3 / 8.2, MACE[^mace] 2.2 / 6.6"},
    ),
    "lpscl": Protocol(
        "Li6PS5Cl, 600 K",
        {"test": "1200 K"},
        published={"test": "SevenNet[^sevennet] from scratch, its training set: 3.6 / 208"},
    ),
    "lipscl_joint": Protocol(
        "Li-P-S[^lips], Li6PS5Cl and lithium in one",
        {"lips": "Li-P-S, sixteen systems", "lpscl": "Li6PS5Cl, 1200 K", "li": "lithium"},
        "mae",
    ),
}
SPELT = {"rmse": "rms", "mae": "mean absolute"}


def errors(record: dict[str, Any]) -> str:
    """A row for each test set."""
    rows = []
    for name, protocol in PROTOCOLS.items():
        found = record.get(name)
        if found is None:
            continue
        frames, trained = found["frames"], f"{found['minutes']:.0f} min, {found['steps']} steps"
        run = (f"{protocol.data}: `{name}.yaml`", f"{frames['train']} + {frames['valid']}", trained)
        for test, title in protocol.tests.items():
            energy, forces = (1e3 * found["test"][test][f"{of}_{protocol.measure}"] for of in ("energy", "forces"))
            found_here = (f"{energy * protocol.atoms:.2f}", f"{forces:.1f}")
            rows.append((*run, f"{title}; {SPELT[protocol.measure]}", *found_here, protocol.published.get(test, "")))
            run = ("", "", "")
    head = ("set, configuration", "frames", "trained for", "tested on; errors", "energy", "forces", "published")
    return table(head, rows)


def curves(record: dict[str, Any]) -> str:
    """Validation errors along the way, rms of the forces."""
    known = {name: record[name] for name in PROTOCOLS if name in record}
    minutes = sorted({point["minutes"] for found in known.values() for point in found["valid"][:-1]})
    rows = []
    for name, found in known.items():
        along = {point["minutes"]: point for point in found["valid"][:-1]}
        cells = [f"{1e3 * along[minute]['forces_rmse']:.0f}" if minute in along else "" for minute in minutes]
        rows.append((f"`{name}.yaml`", *cells, f"{1e3 * found['valid'][-1]['forces_rmse']:.1f}"))
    return table(("minutes", *(f"{minute:g}" for minute in minutes), "end"), rows)


def page() -> str:
    """Both tables."""
    record = json.loads((RESULTS / "accuracy.json").read_text())
    caption = "Validation force errors along the way, rms, meV/Å:\n"
    return "\n".join((errors(record), caption, curves(record)))


if __name__ == "__main__":
    print(page())
