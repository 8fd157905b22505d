"""``asenequip compile``: make what a potential runs as on this machine now, and show how exact it is."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asenequip.cli.common import Debug, Dtype, table

if TYPE_CHECKING:
    import torch

    from asenequip.artifact import Potential


def compile_(
    model: Annotated[Path, typer.Argument(help="Potential, a .asnq file.")],
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")] = "cpu",
    dtype: Dtype = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    debug: Debug = False,
) -> None:
    """Compile a potential for this machine's processor or GPU, and check it against the exact network.

    What is made is kept in the cache. On a processor this happens by itself when a calculator is first used, and the
    verb is for doing it beforehand; on a GPU, where it takes about a minute, calculators take the compiled graph of the
    network from then on, and run the network itself as long as there is none. Printed are the largest deviations in
    eV, eV/atom and eV/Angstrom.
    """
    from asenequip.artifact import load_artifact
    from asenequip.compiling import COMPILED, compile_potential
    from asenequip.errors import parameter_error
    from asenequip.evaluate import resolve_device
    from asenequip.rounding import PRECISIONS

    place = resolve_device(device)
    known = COMPILED if place.type == "cpu" else tuple(PRECISIONS)
    if dtype not in known:
        raise parameter_error("--dtype", "compile", "one of " + ", ".join(known), dtype)
    began = time.monotonic()
    potential = load_artifact(model, check=False)  # replayed below, before anything is made
    if place.type == "cpu":
        facts = dataclasses.asdict(compile_potential(potential, dtype))
    else:
        facts = _compile_graph(potential, dtype, place)
    facts["seconds"] = round(time.monotonic() - began, 1)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    rows = [
        (name.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
        for name, value in facts.items()
    ]
    typer.echo(table(rows))


def _compile_graph(potential: Potential, dtype: str, device: torch.device) -> dict[str, Any]:
    """Compile the network's graph and run it as a calculator does, lists and captured steps included."""
    from asenequip.compiledgraph import compiled_graph
    from asenequip.residentcheck import check_resident

    graph, report = compiled_graph(potential, dtype, device)
    steps = dataclasses.asdict(check_resident(potential, dtype, device, graph))
    return {**dataclasses.asdict(report), **{f"steps_{name}": value for name, value in steps.items()}}
