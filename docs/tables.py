"""Make the tables of docs/tables.md from benchmarks/results/*.json; the documentation runs it before it is built.

No figure of that page is written by hand: ``python docs/tables.py`` prints what it will say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster_tables import (
    cluster_accuracy,
    cluster_figures,
    cluster_recall,
    cluster_speed,
    environments,
)
from speed_tables import batches, dynamics, growth, inference, others, training
from table_text import machine, table

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def properties(record: dict[str, Any]) -> str:
    """Phonons, elasticity, equation of state; the two ways to force constants; batches."""
    rows = [(r["system"], r["quantity"], r["unit"], r["found"], r["reference"], r["source"]) for r in record["rows"]]
    parts = [
        "## Properties of crystals\n",
        "Potentials of silicon, lithium and rock salt, trained for minutes each (`benchmarks/bench_properties.py`).\n",
        table(("", "quantity", "unit", "potential", "reference", "reference from"), rows),
        "Exact force constants and finite differences, one potential, float64: largest difference of a frequency.\n",
        table(
            (
                "",
                "atoms",
                "displacement (Å)",
                "order",
                "supercells",
                "largest difference (THz)",
                "time (s)",
                "Hessian (s)",
            ),
            (
                (
                    p["system"],
                    p["atoms"],
                    p["distance_A"],
                    n,
                    p[f"order_{n}"]["supercells"],
                    p[f"order_{n}"]["largest_difference_THz"],
                    p[f"order_{n}"]["seconds"],
                    p["hessian_s"],
                )
                for p in record["paths"]
                for n in (2, 4, 6)
            ),
        ),
        "Displaced supercells in one batch against one by one, each after a first round that is not timed.\n",
        table(
            ("", "supercells", "atoms", "network", "one by one (s)", "together (s)", "ratio"),
            (
                (b["system"], b["supercells"], b["atoms"], b["dtype"], b["one_by_one_s"], b["together_s"], b["ratio"])
                for b in record["batches"]
            ),
        ),
        machine(record),
    ]
    return "\n".join(parts)


def precision(record: dict[str, Any]) -> str:
    """Errors of each precision against the float64 network."""
    head = ("network", "precision", "energy, largest (meV/atom)", "forces, rms (meV/Å)", "forces, largest (meV/Å)")
    rows = (
        (name, e["precision"], e["energy_max_meV_per_atom"], e["force_rms_meV_A"], e["force_max_meV_A"])
        for name, errors in record["errors"].items()
        for e in errors
    )
    return "\n".join(
        [
            "## Precision\n" if record["device"] == "cpu" else "## Precision on a GPU\n",
            "Against the same network in float64 without compilation (`benchmarks/bench_precision.py`).\n",
            table(head, rows),
            machine(record),
        ]
    )


def active_cost(record: dict[str, Any]) -> str:
    """Forces with and without their uncertainty."""
    head = tuple(record["rows"][0])
    return "\n".join(
        [
            "## Cost of the uncertainty\n",
            "Forces alone, and forces with their uncertainty (`benchmarks/bench_uncertainty.py`).\n",
            table(head, (tuple(row.values()) for row in record["rows"])),
        ]
    )


SECTIONS = {
    "properties": properties,
    "inference": inference,
    "inference_2_threads": inference,
    "training": training,
    "batches": batches,
    "batches_2_threads": batches,
    "others": others,
    "others_electrolyte": others,
    "dynamics": dynamics,
    "precision": precision,
    "precision_cuda": precision,
    "growth": growth,
    "active_cost": active_cost,
    "cluster_accuracy": cluster_accuracy,
    "cluster_figures": cluster_figures,
    "cluster_speed": cluster_speed,
    "cluster_speed_2_threads": cluster_speed,
    "cluster_recall": cluster_recall,
    "environments": environments,
}


def page() -> str:
    """All tables for which there are results."""
    files = {name: RESULTS / f"{name}.json" for name in SECTIONS}
    return "\n".join(
        section(json.loads(files[name].read_text())) for name, section in SECTIONS.items() if files[name].is_file()
    )


if __name__ == "__main__":
    print(page())
