"""What a trajectory's length and size do not support, in sentences."""

from __future__ import annotations

import numpy as np

from asenequip.interface.analysis import Analysis
from asenequip.interface.diffusion import DiffusionResult
from asenequip.interface.statistics import independent

ENOUGH = 20.0
"""Independent values below which an error is not to be trusted."""
FEW_BLOCKS = 5
FAR = 0.25
"""Share of the cell's height by which an atom may move between frames."""


def warnings_of(analysis: Analysis) -> list[str]:
    """Sentences for the report; an empty list means that nothing was found wanting.

    Parameters
    ----------
    analysis : Analysis

    Returns
    -------
    list of str
    """
    found = list(analysis.missing)
    duration = analysis.times[1] - analysis.times[0]
    if duration < 100:
        found.append(
            f"The trajectory is {duration:.3g} ps long. Reactions at a solid interface go on for nanoseconds and more: "
            "this is the first contact, and no law of growth is established by it."
        )
    if analysis.largest_step > FAR:
        found.append(
            f"An atom moved by {analysis.largest_step:.0%} of the cell between two frames. Beyond half of it, "
            "displacements are read wrongly: write frames more often."
        )
    if len(analysis.first) < 2000:
        found.append(
            f"The cell has {len(analysis.first)} atoms: both interfaces see each other, and diffusion may differ from "
            "that of a large cell."
        )
    for name, result in (("whole cell", analysis.diffusion), ("layers", analysis.layers)):
        if result is not None:
            found += _diffusion(name, result)
    found += _growth(analysis)
    if not np.isfinite(analysis.temperature):
        found.append(
            "The frames have no velocities, so neither temperature nor conductivity is known; say the temperature."
        )
    unnamed = [phase.group for phase in analysis.phases if not phase.crystal]
    if unnamed:
        found.append(f"Unlike all references: {', '.join(unnamed)}. Another crystal, a glass, or an average over both.")
    return found


def _diffusion(name: str, result: DiffusionResult) -> list[str]:
    found = []
    if result.blocks < FEW_BLOCKS:
        found.append(f"Diffusion ({name}) rests on {result.blocks} independent stretches; its errors are rough.")
    high = result.exponent.interval()[1]
    slow = [g for g, h in zip(result.names, np.atleast_1d(high), strict=True) if h < 0.9]
    if slow:
        found.append(
            f"Diffusion ({name}): the mean-squared displacement of {', '.join(slow)} grows slower than time in the fit "
            "window. These numbers are not diffusion coefficients but upper bounds of what longer runs give."
        )
    widths = result.isotropic.half_width()
    zero = [g for g, v, w in zip(result.names, result.isotropic.value, widths, strict=True) if v < w]
    if zero:
        found.append(f"Diffusion ({name}) of {', '.join(zero)} is not told from zero.")
    return found


def _growth(analysis: Analysis) -> list[str]:
    found = []
    if analysis.thickness is not None:
        for k, side in enumerate(("below", "above")):
            worth = independent(analysis.thickness[:, k])
            if worth < ENOUGH:
                found.append(
                    f"The thickness {side} the electrolyte is worth {worth:.0f} independent values: "
                    f"fewer than {ENOUGH:.0f} do not tell laws of growth apart."
                )
    for side, fits in analysis.growth.items():
        if len(fits) > 1 and fits[1].akaike - fits[0].akaike < 2:
            found.append(f"Growth {side}: '{fits[0].law}' and '{fits[1].law}' describe the thickness equally well.")
    return found
