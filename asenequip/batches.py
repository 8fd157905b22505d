"""Many structures at once, in order; a bad one is named and does not stop the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from asenequip.errors import BAD_STRUCTURE


def evaluate_each(calculator: BaseCalculator, frames: Sequence[Atoms]) -> list[dict[str, Any] | Exception]:
    """Evaluate structures, together where the calculator can.

    Parameters
    ----------
    calculator : ASE calculator
        One with ``outcomes(frames)``, as `asenequip.AllegroCalculator`, takes them in batches; any other, one by one.
    frames : sequence of ase.Atoms
        Not changed.

    Returns
    -------
    list of dict or Exception
        For each structure, in order, its results (eV, eV/Angstrom, eV/Angstrom^3), or the error it caused.
    """
    together = getattr(calculator, "outcomes", None)
    if together is not None:
        return list(together(frames))
    return [_evaluate_one(calculator, atoms) for atoms in frames]


def _evaluate_one(calculator: BaseCalculator, atoms: Atoms) -> dict[str, Any] | Exception:
    known = getattr(calculator, "implemented_properties", ())
    wanted = [name for name in ("energy", "forces") if name in known]
    if "stress" in known and atoms.cell.rank == 3:
        wanted.append("stress")
    try:
        return {name: calculator.get_property(name, atoms) for name in wanted}  # type: ignore[attr-defined]
    except BAD_STRUCTURE as error:
        return error
