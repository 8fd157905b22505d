"""``asenequip compile``: make what a potential runs as on this machine now, and show how exact it is."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from asenequip.cli.common import Debug, Dtype, table


def compile_(
    model: Annotated[Path, typer.Argument(help="Potential, a .asnq file.")],
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:1.")] = "cpu",
    dtype: Dtype = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    debug: Debug = False,
) -> None:
    """Compile a potential for this machine's processor or GPU, and check it against the exact network.

    The form for the processor is kept in the cache, and kernels for a GPU in CuPy's. This happens by itself when a
    calculator is first used; the verb is for doing it beforehand, and for its numbers: largest deviations in eV,
    eV/atom and eV/Angstrom.
    """
    from asenequip.artifact import load_artifact
    from asenequip.compiling import COMPILED, CompileReport, compile_potential
    from asenequip.errors import parameter_error
    from asenequip.evaluate import resolve_device
    from asenequip.residentcheck import ResidentReport, check_resident
    from asenequip.rounding import PRECISIONS

    known = COMPILED if device == "cpu" else tuple(PRECISIONS)
    if dtype not in known:
        raise parameter_error("--dtype", "compile", "one of " + ", ".join(known), dtype)
    began = time.monotonic()
    report: CompileReport | ResidentReport
    if device == "cpu":
        report = compile_potential(load_artifact(model), dtype)
    else:
        report = check_resident(load_artifact(model), dtype, resolve_device(device))
    facts = dataclasses.asdict(report)
    facts["seconds"] = round(time.monotonic() - began, 1)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    rows = [
        (name.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
        for name, value in facts.items()
    ]
    typer.echo(table(rows))
