"""``asenequip info``: what a potential's file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asenequip.cli.common import Debug, table

if TYPE_CHECKING:
    from asenequip.artifact import Potential


def info(
    model: Annotated[Path, typer.Argument(help="Potential, a .asnq file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    debug: Debug = False,
) -> None:
    """Show species, cutoff, size, origin and hash of a potential; its golden frame is replayed on the way."""
    from asenequip.artifact import golden_atoms, load_artifact

    facts = describe(load_artifact(model, check=True))
    facts["golden frame"] = f"{golden_atoms(model).get_chemical_formula()}: energy, forces and stress reproduced"
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    typer.echo(table([(f"{name}:", _text(value)) for name, value in facts.items()], left=True))


def describe(potential: Potential) -> dict[str, Any]:
    """What is to be known of a loaded potential, by name, JSON-able."""
    spec, path = potential.spec, potential.path
    weights = sum(tensor.numel() for tensor in potential.model.state_dict().values())
    pairs = spec.pair_cutoffs
    facts: dict[str, Any] = {
        "file": str(path),
        "size": f"{0 if path is None else path.stat().st_size:,} bytes",
        "sha256": potential.sha256,
        "species": list(spec.type_names),
        "cutoff": f"{spec.cutoff:g} Angstrom",
        "units": "eV, Angstrom, eV/Angstrom^3",
        "precision": potential.dtype,
        "l_max": spec.l_max,
        "parity": spec.parity,
        "layers": spec.num_layers,
        "scalar features": spec.num_scalar_features,
        "tensor channels": spec.num_tensor_features,
        "radial basis": spec.radial,
        "pair potential": "none" if spec.pair is None else spec.pair.kind,
        "weights": f"{weights:,}",
    }
    if pairs is not None:
        names = spec.type_names
        facts["pair cutoffs"] = {f"{a}-{b}": pairs[i][j] for i, a in enumerate(names) for j, b in enumerate(names)}
    for name, value in potential.provenance.items():
        facts[f"origin: {name}"] = value
    return facts


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
