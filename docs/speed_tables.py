"""Sections of the tables on time and memory: inference, training, batches, dynamics, and their growth with size."""

from __future__ import annotations

from typing import Any

from table_text import company, machine, table

PEER_RATIO = "processor time of nequip-allegro's fastest mode, in that of this row"


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
        PEER_RATIO,
    )
    number = record["threads"]
    title = "## Speed on a CPU\n" if number == 1 else f"## Speed on a CPU, {number} threads\n"
    command = "benchmarks/bench_inference.py" + ("" if number == 1 else f" --threads {number}")
    text = f"Energy, forces and stress, same weights and structures (`{command}`).{company(record)}\n"
    return "\n".join([title, text, table(head, rows), machine(record)])


def training(record: dict[str, Any]) -> str:
    """A step of training against nequip-allegro, and what is left of it."""
    shape, found = record["shape"], record["l_max"]
    rows = (
        (
            int(l_max),
            r["contender"],
            r["cpu_ms_per_atom"],
            r["wall_ms_per_atom"],
            r["times_faster_than_best_peer_mode_cpu"],
        )
        for l_max, part in found.items()
        for r in part["rows"]
    )
    head = ("l_max", "step", "processor time (ms/atom)", "time (ms/atom)", PEER_RATIO)
    parts = list(next(iter(found.values()))["profile"]["parts"])
    shares = (
        (int(l), *(f"{100 * part['profile']['parts'][name]:.0f} %" for name in parts)) for l, part in found.items()
    )
    size = ", ".join(f"{name} {value}" for name, value in shape.items())
    return "\n".join(
        [
            "## Speed of training on a CPU\n",
            "Loss and all gradients of one batch, two frames of 108 atoms with 43 neighbours, same weights "
            f"({size}; `benchmarks/bench_training.py --compiled`).{company(record)}\n",
            table(head, rows),
            "Where the time of the eager step of asenequip goes.\n",
            table(("l_max", *parts), shares),
            machine(record),
        ]
    )


def others(record: dict[str, Any]) -> str:
    """Other potentials at their published sizes."""
    frames = dict.fromkeys(r["frame"] for r in record["rows"])
    head = ("structure", "potential", "weights", "neighbours", "processor time (ms/atom)", "time (ms/atom)")
    keys = ("frame", "contender", "weights", "neighbours", "cpu_ms_per_atom", "ms_per_atom")
    return "\n".join(
        [
            f"## Other potentials: {', '.join(frames)}\n",
            "Energy and forces through ASE, each potential with its own cutoff (`benchmarks/bench_others.py`)."
            f"{company(record)}\n",
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
    text = f"Structures per second of processor time (`{command}`).{company(record)}\n"
    return "\n".join([title, text, table(head, rows), machine(record)])


def dynamics(record: dict[str, Any]) -> str:
    """Steps of dynamics, the time to a first result, and memory: as many of the three as were measured."""
    head = ("ensemble", "driver", "ms per step", "of it in the model", "share beside the model")
    keys = ("ensemble", "driver", "ms_per_step", "model_ms_per_step", "fraction_beside_the_model")
    parts = ["## Dynamics\n"]
    if "steps" in record:
        parts += [
            "Processor time of steps of 256 copper atoms, ms, and the part of it that the model does not take "
            f"(`benchmarks/bench_dynamics.py`).{company(record)}\n",
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
