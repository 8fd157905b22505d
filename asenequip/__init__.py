"""ASE calculators of compiled Allegro potentials, their trainer, and the analysis of what atoms became."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["AllegroCalculator", "Evaluator", "load_artifact", "predict", "save_artifact"]

if TYPE_CHECKING:
    from asenequip.artifact import load_artifact, save_artifact
    from asenequip.calculator import AllegroCalculator
    from asenequip.evaluate import Evaluator, predict

_HOME = {
    "AllegroCalculator": "calculator",
    "Evaluator": "evaluate",
    "predict": "evaluate",
    "load_artifact": "artifact",
    "save_artifact": "artifact",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: ``import asenequip`` alone loads neither torch nor ASE."""
    if name not in _HOME:
        raise AttributeError(f"module 'asenequip' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"asenequip.{_HOME[name]}"), name)
