"""What the potentials of examples/*.yaml reach: ``python benchmarks/bench_accuracy.py mlearn_li=RUN 3bpa=RUN ...``.

Takes finished run directories of asenequip-train, each under the name of its file of settings, and keeps in
benchmarks/results/accuracy.json what they say: size, frames, time, errors on the test frames, and the validation
errors along the way. Nothing is trained here; other runs that the file holds stay in it.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from asenequip.files import replace_file

RECORD = Path(__file__).resolve().parent / "results" / "accuracy.json"
MINUTES = (1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60)
"""At which the learning curve is kept."""
QUANTITIES = ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse")
SHAPE = ("l_max", "num_layers", "num_scalar_features", "num_tensor_features", "cutoff")


def errors_by_set(found: dict[str, float]) -> dict[str, dict[str, float]]:
    """Errors in eV/atom and eV/Angstrom by name of the test set; a run with one set says its numbers without a name."""
    names = sorted({key.split("@")[1] for key in found if "@" in key})
    if not names:
        return {"test": {name: found[name] for name in QUANTITIES}}
    return {name: {quantity: found[f"{quantity}@{name}"] for quantity in QUANTITIES} for name in names}


def learning_curve(run: Path) -> list[dict[str, float]]:
    """The latest validation errors at each of the minutes, and at the end."""
    epochs = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    epochs = [line for line in epochs if line["event"] == "epoch" and "valid_loss" in line]
    rows = []
    for minute in MINUTES:
        before = [line for line in epochs if line["seconds"] <= 60 * minute]
        if before and epochs[-1]["seconds"] > 61 * minute:  # the end has a row of its own
            rows.append({"minutes": float(minute), **_valid(before[-1])})
    return [*rows, {"minutes": epochs[-1]["seconds"] / 60, **_valid(epochs[-1])}]


def _valid(line: dict[str, Any]) -> dict[str, float]:
    return {name: line[f"valid_{name}"] for name in QUANTITIES}


def entry(run: Path) -> dict[str, Any]:
    """What one run directory says."""
    summary = json.loads((run / "summary.json").read_text())
    model = json.loads((run / "config.json").read_text())["settings"]["model"]
    with open(run / "metrics.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {
        "model": {name: model[name] for name in SHAPE},
        "weights": summary["parameters"],
        "frames": summary["frames"],
        "minutes": summary["seconds"] / 60,
        "steps": summary["steps"],
        "epochs": int(last["epoch"]),
        "test": errors_by_set(summary["test"]),
        "valid": learning_curve(run),
        "environment": json.loads((run / "environment.json").read_text()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="NAME=RUN")
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    for text in parser.parse_args().runs:
        name, run = text.split("=", 1)
        record[name] = entry(Path(run))
    replace_file(RECORD, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
