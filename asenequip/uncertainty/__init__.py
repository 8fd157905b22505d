"""How far a potential can be trusted: last-layer rigidity, ensembles, calibration, and a guard for dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asenequip.lazy import lazy_names

if TYPE_CHECKING:
    from asenequip.uncertainty.calibration import (
        Reliability,
        calibration_error,
        conformal_quantile,
        rank_correlation,
        reliability,
    )
    from asenequip.uncertainty.ensemble import Ensemble
    from asenequip.uncertainty.fit import add_uncertainty, fit_last_layer
    from asenequip.uncertainty.guard import Guard, GuardStop
    from asenequip.uncertainty.last_layer import LastLayer, Uncertainty
    from asenequip.uncertainty.posterior import frame_deviation

_HOMES = {
    "Ensemble": "ensemble",
    "Guard": "guard",
    "GuardStop": "guard",
    "LastLayer": "last_layer",
    "Reliability": "calibration",
    "Uncertainty": "last_layer",
    "add_uncertainty": "fit",
    "calibration_error": "calibration",
    "conformal_quantile": "calibration",
    "fit_last_layer": "fit",
    "frame_deviation": "posterior",
    "rank_correlation": "calibration",
    "reliability": "calibration",
}

__all__ = [
    "Ensemble",
    "Guard",
    "GuardStop",
    "LastLayer",
    "Reliability",
    "Uncertainty",
    "add_uncertainty",
    "calibration_error",
    "conformal_quantile",
    "fit_last_layer",
    "frame_deviation",
    "rank_correlation",
    "reliability",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
