"""Sections of the tables on clustering: densities, peaks, neighbours, and classes of environments."""

from __future__ import annotations

from typing import Any

from table_text import table


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
