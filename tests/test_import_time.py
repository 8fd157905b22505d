"""The command answers at once: what is loaded by ``--help`` and by ``import asenequip``, and how long it takes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "cupy", "ase", "numpy", "scipy", "sklearn", "matplotlib", "e3nn", "vesin", "safetensors")
HELP = "import sys; sys.argv = ['asenequip', '--help']; from asenequip.cli import main; main()"
LIMIT = 0.3
"""Seconds of processor time of ``asenequip --help``, interpreter included."""


def imported(code: str) -> list[str]:
    """Modules that ``python -X importtime`` lists for a piece of code."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]


@pytest.mark.parametrize("code", ["import asenequip", HELP], ids=["package", "help"])
def test_nothing_heavy_is_imported(code):
    modules = imported(code)
    assert "asenequip" in modules
    assert {name.partition(".")[0] for name in modules} & set(HEAVY) == set()


@pytest.mark.parametrize(
    "verb", ["info", "convert", "evaluate", "relax", "md", "phonons", "cluster", "compile", "interface"]
)
def test_help_of_a_verb_imports_nothing_heavy(verb):
    modules = imported(HELP.replace("'--help'", f"'{verb}', '--help'"))
    assert {name.partition(".")[0] for name in modules} & set(HEAVY) == set()


def test_help_takes_less_than_a_third_of_a_second():
    # processor time, the least of five: a busy machine does not make the command slower
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", HELP], check=True, capture_output=True, env=os.environ, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < LIMIT
