"""``asenequip compile``: make the fused form of a potential now, and show how exact it is."""

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
    dtype: Dtype = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    debug: Debug = False,
) -> None:
    """Compile a potential for this machine's processor, check it against the exact network, and keep it in the cache.

    This happens by itself when a calculator is first made; the verb is for doing it beforehand, and for its numbers:
    largest deviations in eV, eV/atom and eV/Angstrom.
    """
    from asenequip.artifact import load_artifact
    from asenequip.compiling import COMPILED, compile_potential
    from asenequip.errors import parameter_error

    if dtype not in COMPILED:
        raise parameter_error("--dtype", "compile", "one of " + ", ".join(COMPILED), dtype)
    began = time.monotonic()
    facts = dataclasses.asdict(compile_potential(load_artifact(model), dtype))
    facts["seconds"] = round(time.monotonic() - began, 1)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    rows = [
        (name.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
        for name, value in facts.items()
    ]
    typer.echo(table(rows))
