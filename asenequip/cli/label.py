"""``asenequip label``: energies, forces and stress from another calculator, in parallel, none twice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asenequip.cli.common import (
    SOME_FAILED,
    Debug,
    Index,
    Output,
    Progress,
    check_output,
    number_in_file,
    read_frames,
    write_frames,
)


def label(
    frames: Annotated[Path, typer.Argument(help="Structures, in any format of ASE's.", show_default=False)],
    output: Output,
    calculator: Annotated[
        str,
        typer.Option(
            "--calculator",
            "-c",
            help="emt, tblite:GFN1-xTB, espresso ..., or package.module:factory.",
            show_default=False,
        ),
    ],
    store: Annotated[
        Path | None, typer.Option("--store", help="ASE database that keeps all labels; else beside the output.")
    ] = None,
    options: Annotated[str, typer.Option("--options", help="Keyword arguments of the calculator, as JSON.")] = "{}",
    workers: Annotated[int, typer.Option("--workers", "-j", min=1, help="Processes at a time.")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of each process.")] = 1,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds per structure.", show_default=False)
    ] = None,
    retries: Annotated[int, typer.Option("--retries", min=0, help="After a crash or an error.")] = 1,
    max_force: Annotated[
        float | None, typer.Option("--max-force", help="eV/A; labels beyond are set apart.", show_default=False)
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Try those again that failed before.")] = False,
    index: Index = ":",
    debug: Debug = False,
) -> None:
    """Label structures. What was labelled before is taken from the store; each label is there as soon as it is made.

    Structures that crash the calculator, hang, or do not converge are left out of the output, and kept in the store
    with the reason.
    """
    import json

    from asenequip.active import LabelStore, label_frames, make_labeller, structure_key

    check_output(output)
    for flag, value in (("--timeout", timeout), ("--max-force", max_force)):
        if value is not None and not value > 0:
            raise ValueError(f"{flag} must be a positive number. Got {value:g} instead.\nLeave it out for no limit.")
    try:
        keywords = json.loads(options)
        if not isinstance(keywords, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise ValueError(f"--options must be a JSON object such as '{{\"kpts\": [2, 2, 2]}}': {error}") from None
    structures = read_frames(frames, index)
    labeller = make_labeller(calculator, **keywords)
    database = LabelStore(output.with_suffix(".db") if store is None else store)
    with Progress("Labels", len(structures)) as progress:
        found = label_frames(
            structures,
            labeller,
            database,
            workers=workers,
            threads=threads,
            timeout=timeout,
            retries=retries,
            max_force=max_force,
            again=again,
            watch=lambda done, total: progress.show(done),
        )
    if found.frames:
        write_frames(output, found.frames)
    typer.echo(f"{len(found.frames)} labelled ({found.known} known before), {len(found.failures)} failed")
    places = {structure_key(atoms, labeller.identity): k for k, atoms in reversed([*enumerate(structures)])}
    for failure in found.failures:
        number = number_in_file(index, places[failure.atoms.info["structure"]])
        formula = failure.atoms.get_chemical_formula()
        typer.echo(f"structure {number} ({formula}): {failure.reason}: {failure.detail}", err=True)
    if found.failures:
        raise typer.Exit(SOME_FAILED)
