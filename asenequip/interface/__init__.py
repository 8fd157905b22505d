"""The solid-electrolyte interphase as a study: build the cell, run it, analyse the trajectory, report.

Atoms go in and come out; each step can be used alone.
"""

from __future__ import annotations

from asenequip.lazy import lazy_names

_HOMES = {
    "ARGYRODITE": "environments",
    "Analysis": "analysis",
    "Arrhenius": "conductivity",
    "Bonds": "reactions",
    "Choices": "choices",
    "Creep": "creep",
    "Diffusion": "diffusion",
    "Environments": "environments",
    "Estimate": "statistics",
    "NeighbourSearch": "pairs",
    "Order": "structure",
    "Phases": "phases",
    "Populations": "reactions",
    "Profiles": "profiles",
    "Radial": "structure",
    "Rule": "environments",
    "Side": "build",
    "Snapshot": "snapshots",
    "Stage": "run",
    "analyse": "analysis",
    "block_average": "statistics",
    "bond_order": "structure",
    "build_interface": "build",
    "by_cluster": "environments",
    "by_layer": "snapshots",
    "by_species": "snapshots",
    "exchange": "disorder",
    "find_fronts": "profiles",
    "find_matches": "matching",
    "fit_arrhenius": "conductivity",
    "fit_growth": "growth",
    "interphase_thickness": "profiles",
    "make_crystal": "crystals",
    "make_references": "phases",
    "nernst_einstein": "conductivity",
    "occupy": "disorder",
    "orient": "slabs",
    "remove_atoms": "disorder",
    "render": "report",
    "run_stages": "run",
    "short_range_order": "structure",
    "stream": "snapshots",
    "summarise": "tables",
    "terminations": "slabs",
    "usual_rules": "environments",
    "usual_stages": "run",
    "write_report": "report",
    "write_tables": "tables",
}

__all__ = sorted(_HOMES)

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
