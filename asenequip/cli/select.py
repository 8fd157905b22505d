"""``asenequip select``: which structures of a file are worth a label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asenequip.cli.common import (
    Debug,
    Device,
    Dtype,
    Index,
    Model,
    Output,
    check_output,
    open_calculator,
    read_frames,
    table,
    write_frames,
)


def select(
    frames: Annotated[Path, typer.Argument(help="Candidates, in any format of ASE's.", show_default=False)],
    output: Output,
    count: Annotated[int, typer.Option("--count", "-n", help="Structures to choose.")] = 10,
    model: Model = None,
    method: Annotated[
        str, typer.Option("--method", help="mixed, uncertain, diverse, novel, sparse or random.")
    ] = "mixed",
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

    The methods mixed and uncertain need a potential that carries an uncertainty ('uncertainty: {}' in the training).
    """
    import numpy as np

    from asenequip.active.cutouts import cut_out
    from asenequip.active.selection import select_frames
    from asenequip.uncertainty import frame_deviation

    check_output(output)
    candidates = read_frames(frames, index)
    calculator = open_calculator(model, device, dtype)
    found = select_frames(
        candidates,
        count,
        calculator.descriptors,
        method=method,
        uncertainty=lambda atoms: frame_deviation(calculator.evaluator, atoms),
        known=read_frames(known) if known is not None else [],
        seed=seed,
    )
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
