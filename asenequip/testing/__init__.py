"""Public test kit: hold any ASE calculator against what ASE, its drivers and physics expect of one.

>>> from asenequip.testing import check_calculator
>>> print(check_calculator(calc, ["Cu", "O"], cutoff=5.0))  # doctest: +SKIP
"""

from __future__ import annotations

from asenequip.testing.differences import finite_difference_forces, finite_difference_stress
from asenequip.testing.potential import emt_artifact
from asenequip.testing.report import CalculatorCheckError, Outcome, Report
from asenequip.testing.run import check_calculator, check_names
from asenequip.testing.subject import DOUBLE, SINGLE, Tolerances
from asenequip.testing.systems import systems

__all__ = [
    "DOUBLE",
    "SINGLE",
    "CalculatorCheckError",
    "Outcome",
    "Report",
    "Tolerances",
    "check_calculator",
    "check_names",
    "emt_artifact",
    "finite_difference_forces",
    "finite_difference_stress",
    "systems",
]
