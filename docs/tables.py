"""Make the tables of docs/tables.md from benchmarks/results/*.json; the documentation runs it before it is built.

No figure of that page is written by hand: ``python docs/tables.py`` prints what it will say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown, numbers to four digits."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_text(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·10^{int(exponent)}"


def machine(record: dict[str, Any]) -> str:
    """One line about where the numbers come from."""
    found = record.get("machine", record.get("hardware", {}))
    versions = found.get("versions", record.get("versions", {}))
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "nequip", "nequip-allegro") if name in versions)
    threads = record.get("threads", found.get("threads", 1))
    return f"{found.get('cpu', 'CPU')}, {threads} thread(s); {named}.\n".replace(
        ", nequip absent, nequip-allegro absent", ""
    )


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


def inference(record: dict[str, Any]) -> str:
    """Energy, forces and stress against nequip-allegro."""
    rows = (
        (
            r["shape"],
            r["atoms"],
            r["contender"],
            r["cpu_us_per_atom"],
            r["wall_us_per_atom"],
            r["times_faster_than_best_peer_mode_cpu"],
        )
        for r in record["rows"]
    )
    head = (
        "network",
        "atoms",
        "contender",
        "processor time (µs/atom)",
        "time (µs/atom)",
        "processor time of nequip-allegro's fastest mode, in that of this row",
    )
    number = record["threads"]
    title = "## Speed on a CPU\n" if number == 1 else f"## Speed on a CPU, {number} threads\n"
    command = "benchmarks/bench_inference.py" + ("" if number == 1 else f" --threads {number}")
    text = f"Energy, forces and stress, same weights and structures (`{command}`).{_company(record)}\n"
    return "\n".join([title, text, table(head, rows), machine(record)])


def _company(record: dict[str, Any]) -> str:
    """A sentence, where other programs ran beside the benchmark."""
    found = record["machine"]
    load = max(found["load_before"], found.get("load_after", 0.0) - record.get("threads", 1))
    return f" Other programs ran beside, load up to {load:.0f}." if load > 1.5 * found["cores"] else ""


def others(record: dict[str, Any]) -> str:
    """Other potentials at their published sizes."""
    frames = dict.fromkeys(r["frame"] for r in record["rows"])
    head = ("structure", "potential", "weights", "neighbours", "processor time (ms/atom)", "time (ms/atom)")
    keys = ("frame", "contender", "weights", "neighbours", "cpu_ms_per_atom", "ms_per_atom")
    return "\n".join(
        [
            f"## Other potentials: {', '.join(frames)}\n",
            "Energy and forces through ASE, each potential with its own cutoff (`benchmarks/bench_others.py`)."
            f"{_company(record)}\n",
            table(head, ([r.get(key) for key in keys] for r in record["rows"])),
            machine(record),
        ]
    )


def batches(record: dict[str, Any]) -> str:
    """Many small structures together and one by one."""
    number = record["threads"]
    title = "## Many small structures\n" if number == 1 else f"## Many small structures, {number} threads\n"
    command = "benchmarks/bench_batches.py" + ("" if number == 1 else f" --threads {number}")
    head = ("", "structures", "together", "one by one", "times faster", "together, by the clock")
    rows = (
        (
            name,
            r["structures"],
            r.get("together_per_processor_second"),
            r.get("one_by_one_per_processor_second"),
            r["times_faster"],
            r["together_per_second"],
        )
        for name, r in record["rows"].items()
    )
    text = f"Structures per second of processor time (`{command}`).{_company(record)}\n"
    return "\n".join([title, text, table(head, rows), machine(record)])


def dynamics(record: dict[str, Any]) -> str:
    """Steps of dynamics, the time to a first result, and memory: as many of the three as were measured."""
    head = ("ensemble", "driver", "ms per step", "of it in the model", "share beside the model")
    keys = ("ensemble", "driver", "ms_per_step", "model_ms_per_step", "fraction_beside_the_model")
    parts = ["## Dynamics\n"]
    if "steps" in record:
        parts += [
            "Processor time of steps of 256 copper atoms, ms, and the part of it that the model does not take "
            f"(`benchmarks/bench_dynamics.py`).{_company(record)}\n",
            table(head, ([r[key] for key in keys] for r in record["steps"])),
        ]
    if "first_forces_seconds" in record:
        first = record["first_forces_seconds"].items()
        parts += [
            "From the start of a process to its first energy and forces, seconds.\n",
            table(("", "processor time", "time"), ((name, t["processor"], t["clock"]) for name, t in first)),
        ]
    if "resident_kB" in record:
        marks = record["resident_kB"]
        early, late = marks[max(1, len(marks) // 10)], marks[-1]
        parts.append(
            f"Memory of a run of 32 atoms: {early[1] / 1024:.1f} MB after {early[0]} steps, "
            f"{late[1] / 1024:.1f} MB after {late[0]}.\n"
        )
    return "\n".join([*parts, machine(record)])


def growth(record: dict[str, Any]) -> str:
    """Time and memory against size."""
    head = (
        "atoms",
        "evaluation, list kept (µs/atom)",
        "with a new list (µs/atom)",
        "step of dynamics (µs/atom)",
        "kB/atom",
    )
    rows = (
        (
            r["atoms"],
            r["evaluation_us_per_atom"],
            r["first_evaluation_us_per_atom"],
            r["dynamics_step_us_per_atom"],
            r["memory_kB_per_atom"],
        )
        for r in record["rows"]
    )
    return "\n".join(["## Growth with size\n", "`benchmarks/bench_growth.py`.\n", table(head, rows), machine(record)])


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


def cluster_accuracy(record: dict[str, Any]) -> str:
    """Log densities of sets whose density is known."""
    names = [key for key in record["rows"][0] if key not in ("set", "points")]
    rows = []
    for r in record["rows"]:
        pairs = ((r[name]["mean absolute error"], r[name].get("pull")) for name in names)
        rows.append((r["set"], r["points"], *(f"{e:.3f}" + ("" if p is None else f" ({p:.2f})") for e, p in pairs)))
    return "\n".join(
        [
            "## Log densities\n",
            "Mean absolute error of the log density and, in brackets, the spread of the errors in units of those "
            "predicted: 1 is right (`benchmarks/bench_cluster.py accuracy`). Rotated sets are given by 20 coordinates, "
            "of which 2, 6 or 9 matter; KDE has the best of ten widths for the coordinates it is given.\n",
            table(("set", "points", *names), rows),
        ]
    )


def cluster_speed(record: dict[str, Any]) -> str:
    """Neighbours to density peaks beside DADApy: totals, ratios, steps."""
    rows = record["rows"]
    contenders = [key for key in rows[0] if isinstance(rows[0][key], dict)]
    ratios = [key for key in rows[0] if " / " in key]
    threads = record.get("threads", 1)
    seconds = "on one thread: processor seconds" if threads == 1 else f"on {threads} threads: seconds"
    totals = ((r["points"], r["dimensions"], *((r.get(k) or {}).get("total") for k in contenders)) for r in rows)
    times = ((r["points"], r["dimensions"], *(r.get(k) for k in ratios)) for r in rows)
    ks, steps = ("mean k*", "largest k*"), tuple(rows[0][contenders[0]]["steps"])
    parts = (
        (r["points"], r["dimensions"], name, *(r[name][key] for key in ks), *(r[name]["steps"][key] for key in steps))
        for r in rows
        for name in contenders
        if r.get(name)
    )
    return "\n".join(
        [
            f"## Density peaks beside DADApy, {threads} thread(s)\n",
            f"Neighbours, dimension, k*, BMTI and density peaks {seconds}, the better of two runs "
            f"(`benchmarks/bench_cluster.py speed --threads {threads}`).\n",
            table(("points", "dimensions", *contenders), totals),
            "The same as ratios.\n",
            table(("points", "dimensions", *ratios), times),
            "Where the time goes (s).\n",
            table(("points", "dimensions", "", *ks, *steps), parts),
        ]
    )


def cluster_recall(record: dict[str, Any]) -> str:
    """Approximate neighbours beside exact ones."""
    rows = (
        (r["points"], r["dimensions"], r["auto"]["seconds"], r["approximate"]["seconds"], r["approximate"]["recall"])
        for r in record["rows"]
    )
    return "\n".join(
        [
            "## Approximate neighbours\n",
            'Fifty neighbours by the exact search and by `method="approximate"`, with the share of the true neighbours '
            "that is found (`benchmarks/bench_cluster.py recall`).\n",
            table(("points", "dimensions", "exact (s)", "approximate (s)", "recall"), rows),
        ]
    )


def cluster_figures(record: dict[str, Any]) -> str:
    """Sets of known clusters at the default settings."""
    names = [key for key, value in record["rows"][0].items() if isinstance(value, dict)]
    rows = (
        (r["set"], r["true clusters"], *(f"{r[n]['clusters']} ({r[n]['adjusted Rand index']:.3f})" for n in names))
        for r in record["rows"]
    )
    return "\n".join(
        [
            "## Known clusters\n",
            "Clusters found with every setting at its default and, in brackets, the adjusted Rand index over the "
            "points whose cluster is known (`benchmarks/bench_cluster.py figures`).\n",
            table(("set", "true clusters", *names), rows),
        ]
    )


def environments(record: dict[str, Any]) -> str:
    """Classes of environments beside what is known of them."""
    head = ("set", "descriptor", "environments", "kinds known", "classes", "adjusted Rand index", "outside the halo")
    more = ("share outside the halo", "homogeneity", "completeness")
    return "\n".join(
        [
            "## Classes of environments\n",
            "`benchmarks/bench_environments.py`.\n",
            table((*head, *more), ([r[key] for key in (*head, *more)] for r in record["rows"])),
        ]
    )


SECTIONS = {
    "properties": properties,
    "inference": inference,
    "inference_2_threads": inference,
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
