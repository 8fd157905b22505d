"""Energies, forces and stresses of many structures from any ASE calculator, in one batch where it can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculationFailed
from ase.calculators.singlepoint import SinglePointCalculator

from asenequip.batches import evaluate_each
from asenequip.interrupt import Interrupted, stop_on_signal
from asenequip.relax import relax


def results_of(frames: Sequence[Atoms], calculator: BaseCalculator, what: str) -> list[dict[str, Any]]:
    """Results of all structures.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Not changed.
    calculator : ASE calculator
        One with ``outcomes(frames)``, as `asenequip.AllegroCalculator`, gets them together.
    what : str
        What a structure is, for the message of a failure: "displaced supercell".

    Returns
    -------
    list of dict
        "energy" eV, "forces" (n, 3) eV/Angstrom, "stress" (6,) eV/Angstrom^3, as far as the calculator has them.

    Raises
    ------
    ase.calculators.calculator.CalculationFailed
        Naming the first structure that could not be evaluated.
    ValueError
        If the calculator has no energies or no forces.
    """
    found = []
    for number, outcome in enumerate(evaluate_each(calculator, frames)):
        if isinstance(outcome, Exception):
            raise CalculationFailed(f"The {what} {number} could not be evaluated: {outcome}") from outcome
        if not {"energy", "forces"} <= set(outcome):
            raise ValueError(
                f"{type(calculator).__name__} does not give energies and forces.\nUse a calculator with both."
            )
        found.append(outcome)
    return found


def labelled(frames: Sequence[Atoms], calculator: BaseCalculator, what: str) -> list[Atoms]:
    """Copies of the structures whose calculators hold the results; raises as `results_of`."""
    copies = [atoms.copy() for atoms in frames]
    for copy, results in zip(copies, results_of(frames, calculator, what), strict=True):
        copy.calc = SinglePointCalculator(copy, **results)
    return copies


def relaxed(
    frames: Sequence[Atoms],
    calculator: BaseCalculator,
    what: str,
    *,
    fmax: float,
    steps: int,
    cell: str = "fixed",
    keep_symmetry: bool = False,
) -> list[Atoms]:
    """The structures relaxed together; their calculators hold the results.

    Raises
    ------
    ase.calculators.calculator.CalculationFailed
        Naming the first structure that could not be evaluated or has not converged.
    asenequip.interrupt.Interrupted
        After Ctrl-C.
    """
    with stop_on_signal() as stop:
        done = relax(frames, calculator, fmax=fmax, steps=steps, cell=cell, keep_symmetry=keep_symmetry, stop=stop)
    if stop:
        raise Interrupted("Stopped before all structures were relaxed; nothing is written.")
    for number, entry in enumerate(done):
        if entry.error:
            raise CalculationFailed(f"The {what} {number} could not be relaxed: {entry.error}")
        if not entry.converged:
            raise CalculationFailed(
                f"The {what} {number} has not converged to {fmax:g} eV/A in {entry.steps} steps: its largest force is "
                f"{entry.max_force:.2g} eV/A.\nGive more steps or a larger fmax."
            )
    return [entry.atoms for entry in done]
