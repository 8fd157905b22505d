"""What benchmarks/bench_accuracy.py takes from a run, and what docs/accuracy_tables.py says of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench():
    return load(ROOT / "benchmarks" / "bench_accuracy.py")


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return load(ROOT / "docs" / "accuracy_tables.py")


def errors(value, name=""):
    return {f"{what}_{how}{name}": value for what in ("energy", "forces") for how in ("mae", "rmse")}


def test_errors_of_each_test_set_are_told_apart(bench):
    both = {**errors(0.5), **errors(0.1, "@cold"), **errors(0.3, "@hot")}
    assert bench.errors_by_set(both) == {"cold": errors(0.1), "hot": errors(0.3)}
    assert bench.errors_by_set(errors(0.5)) == {"test": errors(0.5)}


def test_the_curve_takes_the_last_epoch_before_each_minute(bench, tmp_path):
    lines = [{"event": "start"}]
    for seconds, error in ((30, 0.9), (55, 0.8), (100, 0.7), (290, 0.5), (400, 0.4)):
        found = {f"valid_{name}": value for name, value in errors(error).items()}
        lines.append({"event": "epoch", "seconds": seconds, "valid_loss": 1.0, **found})
    lines.append({"event": "trained", "seconds": 400})
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    curve = bench.learning_curve(tmp_path)
    assert [(point["minutes"], point["forces_rmse"]) for point in curve] == [
        (1.0, 0.8),
        (2.0, 0.7),
        (5.0, 0.5),
        (pytest.approx(400 / 60), 0.4),
    ]


def test_energies_of_molecules_are_per_molecule(tables):
    run = {
        "frames": {"train": 450, "valid": 50},
        "minutes": 55.0,
        "steps": 10,
        "test": {"test_300K": errors(1e-3), "test_600K": errors(2e-3)},
    }
    first, second = tables.errors({"3bpa": run}).splitlines()[2:]
    assert "| 27.00 | 1.0 | Allegro" in first
    assert "| 54.00 | 2.0 | Allegro" in second
