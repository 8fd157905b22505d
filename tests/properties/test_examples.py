"""The examples on crystals run and say what they promise."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

for package in ("phonopy", "seekpath", "spglib"):
    pytest.importorskip(package)
EXAMPLES = Path(__file__).parents[2] / "examples"


def output(script: str, words: list[str], monkeypatch, capsys) -> str:
    monkeypatch.setattr(sys, "argv", [script, *words])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return capsys.readouterr().out


def test_phonons(monkeypatch, capsys, tmp_path):
    text = output("phonons.py", [str(tmp_path / "phonons")], monkeypatch, capsys)
    away = [float(number) for number in re.findall(r"([\d.e-]+) THz away", text)]
    assert away[0] > away[1] > away[2]
    assert away[2] < 1e-6
    assert (tmp_path / "phonons" / "quasiharmonic.csv").is_file()


def test_elastic_constants(monkeypatch, capsys):
    lines = output("elastic_constants.py", ["Cu"], monkeypatch, capsys).splitlines()[1:]
    potential, emt = ([float(word) for word in line.split()[2:]] for line in lines)
    assert potential == pytest.approx(emt, rel=0.05)  # what the potential was trained on


def test_surfaces_and_vacancies(monkeypatch, capsys):
    text = output("surfaces_and_vacancies.py", ["Ag"], monkeypatch, capsys)
    assert re.search(r"Ag: surfaces .*\(111\) 0\.\d+, \(100\) 0\.\d+, \(110\) 0\.\d+; vacancy \d\.\d+ eV", text)
