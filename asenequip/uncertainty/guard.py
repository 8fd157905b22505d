"""A guard for dynamics: warns, stops, or hands the frame over to labelling where a potential is unsure."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.calculators.singlepoint import SinglePointCalculator

from asenequip.errors import parameter_error
from asenequip.uncertainty.last_layer import Uncertainty

ACTIONS = ("warn", "stop", "hand over")


class GuardWarning(UserWarning):
    """The potential is unsure of a frame; the text names the atoms."""


class GuardStop(CalculationFailed):
    """The potential is unsure of a frame; the text names the atoms and where the frame was written.

    Attributes
    ----------
    atoms : ase.Atoms
        The frame, without calculator.
    """

    def __init__(self, text: str, atoms: Atoms) -> None:
        super().__init__(text)
        self.atoms = atoms


class Guard:
    """Looks at the force deviations of a structure and acts where the largest is over a limit.

    For ASE's dynamics and optimisers: ``dyn.attach(guard, interval=10, atoms=atoms)``; for `asenequip.md.run_md`:
    ``run_md(..., observe=guard)``.

    Parameters
    ----------
    limit : float
        eV/Angstrom, on the largest standard deviation of a force component; with ``confidence`` on the bound of the
        largest force error.
    action : {"warn", "stop", "hand over"}
        Warn and go on; raise `GuardStop`; append the frame to ``path`` and raise `GuardStop`.
    path : path, optional
        Where frames are handed over, extended XYZ.
    interval : int
        Look at every so-manieth step that `run_md` shows.
    confidence : float, optional
        Compare the conformal bound that holds for all atoms of a frame with this probability in place of the deviation
        (last-layer uncertainties only).

    Attributes
    ----------
    calls, alarms : int
        Structures looked at, and over the limit.
    last : Uncertainty or None
        Of the last structure.
    """

    def __init__(
        self,
        limit: float,
        action: str = "stop",
        *,
        path: str | os.PathLike[str] | None = None,
        interval: int = 1,
        confidence: float | None = None,
    ) -> None:
        if not (isinstance(limit, (int, float)) and limit > 0):
            raise parameter_error("limit", "Guard", "a positive float, eV/Angstrom", limit)
        if action not in ACTIONS:
            raise parameter_error("action", "Guard", "one of " + ", ".join(f'"{a}"' for a in ACTIONS), action)
        if action == "hand over" and path is None:
            raise parameter_error("path", "Guard", 'a file, for the action "hand over"', path)
        if not isinstance(interval, int) or interval < 1:
            raise parameter_error("interval", "Guard", "an integer >= 1", interval)
        self.limit, self.action, self.interval, self.confidence = limit, action, interval, confidence
        self.path = None if path is None else Path(path)
        self.calls = self.alarms = 0
        self.last: Uncertainty | None = None

    def __call__(self, atoms: Atoms, step: int | None = None) -> None:
        """Look at a structure whose calculator has a method ``uncertainty``.

        Raises
        ------
        GuardStop
            Over the limit, unless the action is "warn".
        """
        if step is not None and step % self.interval:
            return
        self.calls += 1
        self.last = found = atoms.calc.uncertainty(atoms)
        values = found.forces * (self._factor(atoms) if self.confidence is not None else 1.0)
        if float(values.max(initial=0.0)) <= self.limit:
            return
        self.alarms += 1
        text = self._sentence(atoms, values, step)
        if self.action == "warn":
            warnings.warn(text, GuardWarning, stacklevel=2)
            return
        if self.action == "hand over":
            self._write(atoms, found, step)
            text += f"\nThe frame is in '{self.path}', to be labelled."
        raise GuardStop(text, atoms.copy())

    def _factor(self, atoms: Atoms) -> float:
        rigidity = getattr(atoms.calc, "rigidity", None)
        if rigidity is None:
            remedy = "Leave it out, and set the limit on the standard deviation."
            raise parameter_error(
                "confidence", "Guard", "None for a calculator without bounds", self.confidence, remedy
            )
        return float(rigidity.force_bound(self.confidence, whole_frame=True))

    def _sentence(self, atoms: Atoms, values: np.ndarray, step: int | None) -> str:
        worst = [k for k in np.argsort(-values)[:5] if values[k] > self.limit]
        named = ", ".join(f"{k} ({atoms.symbols[k]}, {values[k]:.3g})" for k in worst)
        when = "" if step is None else f" at step {step}"
        return f"The forces on atoms {named} are uncertain by more than {self.limit:g} eV/A{when}."

    def _write(self, atoms: Atoms, found: Uncertainty, step: int | None) -> None:
        from ase.io import write

        frame = atoms.copy()
        frame.set_constraint()
        frame.info |= {"uncertainty": found.max_force, **({} if step is None else {"step": step})}
        frame.calc = SinglePointCalculator(frame)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write(str(self.path), frame, format="extxyz", append=True)
