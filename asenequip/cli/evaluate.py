"""``asenequip evaluate``: energies, forces and stress of every structure of a file, and errors where it has labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asenequip.cli.common import (
    SOME_FAILED,
    Debug,
    Device,
    Dtype,
    Index,
    Model,
    Output,
    Progress,
    check_output,
    number_in_file,
    open_calculator,
    read_frames,
    table,
    write_frames,
)
from asenequip.interrupt import Interrupted, stop_on_signal

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from asenequip.calculator import AllegroCalculator

_ATOMS_AT_ONCE = 2000
"""Atoms between two looks at the clock; the evaluator divides them further where memory asks for it."""


def evaluate(
    frames: Annotated[Path, typer.Argument(help="Structures, in any format of ASE's.")],
    output: Output,
    model: Model = None,
    index: Index = ":",
    energy_key: Annotated[
        str, typer.Option("--energy-key", help="Label: a calculator result or atoms.info.")
    ] = "energy",
    forces_key: Annotated[
        str, typer.Option("--forces-key", help="Label: a calculator result or atoms.arrays.")
    ] = "forces",
    stress_key: Annotated[
        str, typer.Option("--stress-key", help="Label: a calculator result or atoms.info.")
    ] = "stress",
    device: Device = "auto",
    dtype: Dtype = "float32",
    debug: Debug = False,
) -> None:
    """Evaluate structures; where they have labels, show the errors by species.

    The output holds the potential's energy, forces and stress; labels go to reference_energy, reference_forces and
    reference_stress. A structure that cannot be evaluated is named and left out.
    """
    check_output(output)
    structures = read_frames(frames, index)
    keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    labels = [take_labels(atoms, keys) for atoms in structures]
    calculator = open_calculator(model, device, dtype, skin=0.0)
    outcomes = _evaluate(calculator, structures)
    good: list[Atoms] = []
    errors = ErrorTable()
    for k, outcome in enumerate(outcomes):
        if isinstance(outcome, Exception):
            typer.echo(f"{frames}, structure {number_in_file(index, k)}: {outcome}", err=True)
            continue
        errors.add(structures[k], labels[k], outcome)
        good.append(_labelled(structures[k], labels[k], outcome))
    if not good:
        raise ValueError(
            f"None of the {len(outcomes)} structures of '{frames}' could be evaluated; nothing is written."
        )
    write_frames(output, good)
    typer.echo(f"{len(good)} of {len(structures)} structures are in {output}.")
    if errors.rows:
        typer.echo(errors.text())
    if len(outcomes) < len(structures):
        rest = number_in_file(index, len(outcomes))
        raise Interrupted(f"Stopped. The rest begins at structure {rest}: give --index {rest}: and another --output.")
    if len(good) < len(structures):
        raise typer.Exit(SOME_FAILED)


def _evaluate(calculator: AllegroCalculator, structures: Sequence[Atoms]) -> list[dict[str, Any] | Exception]:
    """Outcomes in order; fewer than structures where a signal has stopped the work."""
    from asenequip.batches import evaluate_each

    outcomes: list[dict[str, Any] | Exception] = []
    with Progress("Structures", len(structures)) as progress, stop_on_signal() as stop:
        while len(outcomes) < len(structures) and not stop:
            end, atoms = len(outcomes), 0
            while end < len(structures) and (atoms == 0 or atoms + len(structures[end]) <= _ATOMS_AT_ONCE):
                atoms += max(1, len(structures[end]))
                end += 1
            outcomes += evaluate_each(calculator, structures[len(outcomes) : end])
            progress.show(len(outcomes))
    return outcomes


def take_labels(atoms: Atoms, keys: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Labels a structure came with, by name: energy (), forces (n, 3), stress (6,); other shapes are passed over."""
    import numpy as np

    shapes = {"energy": (), "forces": (len(atoms), 3), "stress": (6,)}
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    found = {}
    for name, key in keys.items():
        value = results.get(key, atoms.info.get(key, atoms.arrays.get(key)))
        if value is not None and np.shape(value) == shapes[name]:
            found[name] = np.array(value, dtype=float)
    return found


def _labelled(atoms: Atoms, labels: Mapping[str, np.ndarray], outcome: Mapping[str, Any]) -> Atoms:
    from ase.calculators.singlepoint import SinglePointCalculator

    copy = atoms.copy()
    for name, value in labels.items():
        if name == "forces":
            copy.arrays["reference_forces"] = value
        else:
            copy.info[f"reference_{name}"] = float(value) if name == "energy" else value
    copy.calc = SinglePointCalculator(copy, **{k: outcome[k] for k in ("energy", "forces", "stress") if k in outcome})
    return copy


class ErrorTable:
    """Differences between results and labels, gathered by quantity and species."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[np.ndarray]] = {}

    def add(self, atoms: Atoms, labels: Mapping[str, np.ndarray], outcome: Mapping[str, Any]) -> None:
        """Take in one structure."""
        import numpy as np

        if "energy" in labels and len(atoms):
            self._put("energy", "meV/atom", np.atleast_1d((outcome["energy"] - labels["energy"]) * 1000 / len(atoms)))
        if "forces" in labels:
            difference = (outcome["forces"] - labels["forces"]) * 1000
            self._put("forces", "meV/A", difference)
            for symbol in sorted(set(atoms.symbols)):
                self._put(f"forces on {symbol}", "meV/A", difference[atoms.symbols == symbol])
        if "stress" in labels and "stress" in outcome:
            self._put("stress", "meV/A^3", (outcome["stress"] - labels["stress"]) * 1000)

    def _put(self, name: str, unit: str, values: np.ndarray) -> None:
        self.rows.setdefault((name, unit), []).append(values.ravel())

    def text(self) -> str:
        """The table: mean and root-mean-square of the differences, per component for vectors and tensors."""
        import numpy as np

        lines: list[tuple[str, ...]] = [("", "unit", "MAE", "RMSE", "max", "numbers")]
        for (name, unit), parts in sorted(self.rows.items()):
            values = np.concatenate(parts)
            errors = np.abs(values).mean(), np.sqrt(np.square(values).mean()), np.abs(values).max()
            lines.append((name, unit, *(f"{error:.3f}" for error in errors), str(len(values))))
        return table(lines)
