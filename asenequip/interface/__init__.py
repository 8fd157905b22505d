"""The solid-electrolyte interphase as a study: build the cell, run it, analyse the trajectory, report.

Atoms go in and come out; each step can be used alone.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Side": "build",
    "build_interface": "build",
    "exchange": "disorder",
    "find_matches": "matching",
    "make_crystal": "crystals",
    "occupy": "disorder",
    "orient": "slabs",
    "remove_atoms": "disorder",
    "terminations": "slabs",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing the subpackage costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
