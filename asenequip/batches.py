"""Many structures at once, in order; a bad one is named and does not stop the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

Outcome = "dict[str, Any] | Exception"
"""Results of a structure, or why it has none."""

_BAD = (ValueError, RuntimeError, ArithmeticError)  # InputError and CalculationFailed are RuntimeErrors


def evaluate_each(calculator: BaseCalculator, frames: Sequence[Atoms]) -> list[dict[str, Any] | Exception]:
    """Evaluate structures together, and where that fails find the bad ones by halving.

    Parameters
    ----------
    calculator : ASE calculator
        One with ``evaluate(frames)``, as `asenequip.AllegroCalculator`, takes them in batches; any other, one by one.
    frames : sequence of ase.Atoms
        Not changed.

    Returns
    -------
    list of dict or Exception
        For each structure, in order, its results (eV, eV/Angstrom, eV/Angstrom^3), or the error it caused.
    """
    if not frames:
        return []
    try:
        return list(_evaluate(calculator, frames))
    except _BAD as error:
        if len(frames) == 1:
            return [error]
    middle = len(frames) // 2
    return evaluate_each(calculator, frames[:middle]) + evaluate_each(calculator, frames[middle:])


def _evaluate(calculator: BaseCalculator, frames: Sequence[Atoms]) -> Iterator[dict[str, Any]]:
    batch = getattr(calculator, "evaluate", None)
    if batch is not None:
        yield from batch(frames)
        return
    known = getattr(calculator, "implemented_properties", ())
    for atoms in frames:
        wanted = [name for name in ("energy", "forces") if name in known]
        if "stress" in known and atoms.cell.rank == 3:
            wanted.append("stress")
        yield {name: calculator.get_property(name, atoms) for name in wanted}  # type: ignore[attr-defined]
