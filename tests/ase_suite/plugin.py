"""Pytest plugin: ``ase.calculators.emt.EMT`` is the Allegro potential before any test of ASE is collected."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import ase.calculators.emt
from allegro_emt import replace

replace(ase.calculators.emt)


def pytest_report_header() -> str:
    """Say what is under test."""
    return f"EMT is replaced by {ase.calculators.emt.EMT.__mro__[1].__name__} for this run"
