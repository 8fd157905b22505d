"""ASE calculators of compiled Allegro potentials, their trainer, and the analysis of what atoms became."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asenequip.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOME)
