"""A new element with few frames: fine-tuning against training from scratch.

    python examples/extend_species.py OLD.extxyz NEW.extxyz TEST.extxyz --frames 20 --minutes 5

A potential is trained on OLD; then the same number of frames of NEW, which has an element more, is learnt twice for the
same time: by the potential that is there already, extended by the element, and by a fresh one. Both are judged on TEST.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from asenequip.train import fit, parse_config

MODEL = {"cutoff": 5.0, "l_max": 2, "num_layers": 2, "num_scalar_features": 32, "num_tensor_features": 16}


def settings(folder: Path, name: str, train: str, minutes: float, **sections: Any) -> dict[str, Any]:
    """Settings that the three trainings share."""
    base: dict[str, Any] = {
        "data": {"train": train, "split": {"valid": 0.1, "test": 0}},
        "training": {"epochs": 100000, "minutes": minutes, "batch_size": 4, "learning_rate": 0.01, "valid_every": 5},
        "threads": 1,
        "output": str(folder / name),
    }
    for section, values in sections.items():
        base[section] = {**base[section], **values} if isinstance(values, dict) and section in base else values
    return base


def errors_of(potential_path: Path) -> dict[str, float]:
    """Errors on the test frames, from the summary of a run."""
    return json.loads((potential_path.parent / "summary.json").read_text())["test"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="frames without the new element")
    parser.add_argument("new", help="frames with it")
    parser.add_argument("test", help="frames with it to judge on")
    parser.add_argument("--frames", type=int, default=20, help="frames of NEW that are learnt")
    parser.add_argument("--minutes", type=float, default=5.0, help="time of each of the three trainings")
    parser.add_argument("--output", type=Path, default=Path("runs/extend_species"))
    options = parser.parse_args()
    first = fit(None, settings(options.output, "old", options.old, options.minutes, model=MODEL), quiet=False)
    few = {"max_frames": options.frames, "test": options.test, "split": {"valid": 5, "test": 0}}
    few["train"] = [{"path": options.new, "index": f"::{max(1, 60 // options.frames)}"}]
    step = {"batch_size": 1, "valid_every": 1}
    runs = {
        "from scratch": settings(options.output, "scratch", options.new, options.minutes, model=MODEL),
        "fine-tuned": settings(options.output, "tuned", options.new, options.minutes, start=str(first.path)),
    }
    runs["fine-tuned"]["training"] = {**runs["fine-tuned"]["training"], "learning_rate": 0.003}
    print(f"{'':<14}{'E meV/atom':>12}{'F meV/A':>10}   (mean absolute errors on the test frames)")
    lines = []
    for name, values in runs.items():
        values["data"], values["training"] = few, {**values["training"], **step}
        potential = fit(None, parse_config(values), quiet=False)
        errors = errors_of(Path(str(potential.path)))
        lines.append(f"{name:<14}{errors['energy_mae'] * 1e3:12.2f}{errors['forces_mae'] * 1e3:10.1f}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
