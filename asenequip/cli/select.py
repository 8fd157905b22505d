"""``asenequip select``: which structures of a file are worth a label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from asenequip.cli.common import (
    Debug,
    Device,
    Dtype,
    Index,
    Model,
    Output,
    check_output,
    number_in_file,
    open_calculator,
    read_frames,
    table,
    write_frames,
)

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from asenequip.calculator import AllegroCalculator

Method = Annotated[
    Literal["mixed", "uncertain", "diverse", "novel", "sparse", "random"],
    typer.Option("--method", help="What makes a structure worth a label."),
]


def select(
    frames: Annotated[Path, typer.Argument(help="Candidates, in any format of ASE's.", show_default=False)],
    output: Output,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Structures to choose.")] = 10,
    model: Model = None,
    method: Method = "mixed",
    known: Annotated[
        Path | None, typer.Option("--known", help="Structures that have labels already.", show_default=False)
    ] = None,
    radius: Annotated[
        float | None,
        typer.Option(
            "--radius", help="Cut a sphere of this radius (A) about the most uncertain atom.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the method random.")] = 0,
    index: Index = ":",
    device: Device = "auto",
    dtype: Dtype = "float32",
    debug: Debug = False,
) -> None:
    """Choose structures to label: uncertain, unlike the known ones, unlike one another, none twice.

    The methods mixed and uncertain need a potential that carries an uncertainty ('uncertainty: {}' in the training);
    novel and sparse need known structures.
    """
    import numpy as np

    from asenequip.active.cutouts import cut_out
    from asenequip.active.selection import select_frames
    from asenequip.uncertainty import frame_deviation

    check_output(output)
    candidates = read_frames(frames, index)
    calculator = open_calculator(model, device, dtype)
    _check(method, known, radius, calculator)
    labelled = read_frames(known) if known is not None else []
    found = select_frames(
        candidates,
        count,
        _describer(calculator, (frames, index, candidates), (known, ":", labelled)),
        method=method,
        uncertainty=lambda atoms: frame_deviation(calculator.evaluator, atoms),
        known=labelled,
        seed=seed,
    )
    if not len(found.indices):
        raise ValueError(f"Every structure of '{frames}' is a copy of a known one.\nGive others; nothing was written.")
    chosen = []
    for k, reason in zip(found.indices, found.reasons, strict=True):
        atoms = candidates[k].copy()
        if radius is not None:
            center = int(np.argmax(calculator.uncertainty(candidates[k]).forces))
            atoms = cut_out(atoms, center, radius, cutoff=calculator.evaluator.model.spec.cutoff).atoms
        atoms.info |= {"candidate": int(k), "reason": reason}
        chosen.append(atoms)
    write_frames(output, chosen)
    rows = [["candidate", "atoms", "reason"]]
    rows += [[str(k), str(len(a)), r] for k, a, r in zip(found.indices, chosen, found.reasons, strict=True)]
    typer.echo(table(rows, left=True))


def _describer(
    calculator: AllegroCalculator, *groups: tuple[Path | None, str, list[Atoms]]
) -> Callable[[Atoms], np.ndarray]:
    """The potential's descriptors, with errors that name the structure by its file (path, index, what was read)."""
    from asenequip.errors import BAD_STRUCTURE

    names = {
        id(atoms): f"{path}, structure {number_in_file(index, k)}"
        for path, index, structures in groups
        for k, atoms in enumerate(structures)
    }

    def describe(atoms: Atoms) -> np.ndarray:
        try:
            return calculator.descriptors(atoms)
        except BAD_STRUCTURE as error:
            raise ValueError(f"{names[id(atoms)]}: {error}") from error

    return describe


def _check(method: str, known: Path | None, radius: float | None, calculator: AllegroCalculator) -> None:
    """Refuse what the potential or the known structures cannot give, before any work is done."""
    from asenequip.active.selection import JUDGES, UNSURE

    remedy = "Train with 'uncertainty:' in the settings, or "
    if method in UNSURE and calculator.rigidity is None:
        raise ValueError(
            f"--method {method} goes by the uncertainty of forces, and this potential carries none.\n"
            f"{remedy}choose by --method diverse."
        )
    if method in JUDGES and known is None:
        raise ValueError(f"--method {method} compares with known structures, and none are given.\nAdd --known FILE.")
    if radius is None:
        return
    if calculator.rigidity is None:
        raise ValueError(
            "--radius cuts about the most uncertain atom, and this potential carries no uncertainty.\n"
            f"{remedy}leave --radius out."
        )
    cutoff = calculator.evaluator.model.spec.cutoff
    if not radius >= cutoff:
        raise ValueError(
            f"--radius must be at least the potential's cutoff, {cutoff:g} A. Got {radius:g} instead.\n"
            "A smaller sphere holds no whole environment."
        )
