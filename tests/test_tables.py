"""The tables of the documentation are made of the benchmarks' files, and of nothing else."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("tables")


def test_numbers_come_from_the_files(tables, tmp_path, monkeypatch):
    record = json.loads((ROOT / "benchmarks" / "results" / "growth.json").read_text())
    record["rows"][0]["evaluation_us_per_atom"] = 4711.0
    (tmp_path / "growth.json").write_text(json.dumps(record))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert "| 4711 |" in tables.page()
    assert "Properties of crystals" not in tables.page()  # no file, no section


def test_there_is_a_table_for_each_section_with_results(tables):
    text = tables.page()
    for name, section in tables.SECTIONS.items():
        path = tables.RESULTS / f"{name}.json"
        if path.is_file():
            assert section(json.loads(path.read_text())) in text


def test_small_and_large_numbers_stay_readable(tables):
    assert tables.table(("a",), [(1.23456,), (1.5e-9,), (None,), (0.0,)]) == (
        "| a |\n|---|\n| 1.235 |\n| 1.5·10^-9 |\n|  |\n| 0 |\n"
    )


def test_the_tables_of_the_study_come_from_its_record(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    study_tables = importlib.import_module("study_tables")
    record = json.loads((ROOT / "benchmarks" / "results" / "interphase.json").read_text())
    record["mechanics"]["Li"]["lattice_parameter_A"] = 4711.0
    (tmp_path / "interphase.json").write_text(json.dumps(record))
    monkeypatch.setattr(study_tables, "RESULTS", tmp_path)
    assert "| Li | 4711 |" in study_tables.page()


def test_the_tables_of_active_learning_come_from_their_records(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    active_tables = importlib.import_module("active_tables")
    record = json.loads((ROOT / "benchmarks" / "results" / "active_curve.json").read_text())
    record["mean force rmse, eV/A"]["1200 K"]["active"][1] = 4.711
    record["labels for random's least error"]["1200 K"]["active"] = None
    (tmp_path / "active_curve.json").write_text(json.dumps(record))
    monkeypatch.setattr(active_tables, "RESULTS", tmp_path)
    row = next(line for line in active_tables.page("curve").splitlines() if line.startswith("| 1200 K | active"))
    assert "| 4711 |" in row
    assert row.endswith("| not reached |")
    assert active_tables.page("pool") == ""  # no file, no tables
