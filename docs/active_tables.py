"""Make the tables of what active learning saves from benchmarks/results/active_*.json.

No figure of theirs is written by hand: ``python docs/active_tables.py`` prints what the page will say, and
benchmarks/bench_active.py fills the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from table_text import table

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
NAMES = {"active": "active (`mixed`)", "farthest point": "farthest points", "random": "random"}
"""What the strategies are called on the page."""
TAKEN = "mean labels trained on, of each part of the pool"
RECORDS = ("curve", "molecules", "pool")


def errors(found: dict[str, Any]) -> str:
    """Errors by number of labels, and the labels that random's least error takes."""
    sizes, rows = found["sizes"], []
    for test, means in found["mean force rmse, eV/A"].items():
        needed = found["labels for random's least error"].get(test, {})
        for k, strategy in enumerate(name for name in NAMES if name in means):
            values = [round(1e3 * value) for value in means[strategy]]
            labels = "not reached" if needed.get(strategy) is None else round(needed[strategy])
            rows.append((test if k == 0 else "", NAMES[strategy], *values, labels))
    head = ("force rmse, meV/Å, at labels", "", *map(str, sizes), "labels for random's least error")
    return table(head, rows)


def origins(found: dict[str, Any]) -> str:
    """From which parts of the pool the labels are; nothing where the record does not tell."""
    if TAKEN not in found:
        return ""
    parts = found["pool"]
    rows = [("frames in the pool", *parts.values())]
    taken = found[TAKEN]
    rows += [(NAMES[name], *(round(count, 1) for count in taken[name].values())) for name in NAMES if name in taken]
    return table((f"labels trained on, of {found['sizes'][-1]}", *parts), rows)


def page(name: str) -> str:
    """The tables of one record, with the seeds that they are means of; nothing without one."""
    path = RESULTS / f"active_{name}.json"
    if not path.is_file():
        return ""
    found = json.loads(path.read_text())
    seeds = ", ".join(map(str, found["seeds"]))
    return f"Geometric mean over the seeds {seeds}:\n\n{errors(found)}\n{origins(found)}"


if __name__ == "__main__":
    print("\n".join(page(name) for name in RECORDS))
