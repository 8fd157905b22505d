"""The conversion: read, rebuild, compare, write."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from torch import Tensor

from asenequip.artifact import save_artifact
from asenequip.convert.errors import ConversionError
from asenequip.convert.source import check_source, read_source
from asenequip.convert.weights import convert_weights
from asenequip.files import refuse_existing
from asenequip.graph import graph_of
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import evaluate_derivatives, stress
from asenequip.model.spec import AllegroSpec

EXACT = 1e-9
"""Largest difference in float64: eV per atom, eV/Angstrom, eV/Angstrom^3; times the largest force where over 1."""

SINGLE = 1e-3
"""The same against a float32 source as it stands, whose own rounding this leaves room for."""


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    trust_pickle: bool,
    python: str | None = None,
    symbols: Mapping[str, str] | None = None,
) -> Path:
    """Convert a nequip-allegro 0.8 checkpoint or package to ``model.asnq``.

    The file is opened by nequip's own code in a process of its own, from which weights come back as safetensors and
    everything else as JSON. The rebuilt model must reproduce energy, forces and stress of a test structure with all
    types, in float64, before anything is written. A float32 source is compared as the float64 model it approximates
    (same weights, exact constants), and more loosely as it stands; the result is stored for float32.
    The source is taken to be in eV and Angstrom.

    Parameters
    ----------
    source : path
        ``.ckpt`` of a training run (its averaged weights, where it keeps an average) or ``.nequip.zip``.
    destination : path
        New file, ``.asnq``.
    trust_pickle : bool
        Must be True: the source consists of pickles, which run code when they are opened.
    python : str, optional
        Interpreter that has nequip and nequip-allegro; the present one by default.
    symbols : mapping of str to str, optional
        Chemical symbol of each type whose name is none.

    Returns
    -------
    Path
        ``destination``.

    Raises
    ------
    FileNotFoundError
        If there is no source.
    FileExistsError
        If there is a destination.
    ConversionError
        Without permission, for a compiled model, for a model asenequip cannot represent (naming the part), if nequip
        is missing, or if the results differ.
    """
    source, destination = Path(source), Path(destination)
    check_source(source, trust_pickle)
    if destination.suffix != ".asnq":
        raise ConversionError(f"The destination must end in '.asnq'. Got '{destination}' instead.")
    refuse_existing(destination)
    read = read_source(source, python)
    model = build(read.description, read.weights, symbols)
    frame = frame_atoms(read.description, model.spec.type_names)
    deviations = compare(model, frame, read.description)
    provenance = {
        "converted_from": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "dtype": read.description["dtype"],
        "versions": read.description["versions"],
        "deviations": deviations,
    }
    if read.description["dtype"] == "float32":
        _store_single(model)
    return save_artifact(destination, model, golden=frame, provenance=provenance)


def build(
    description: Mapping[str, Any], weights: Mapping[str, Tensor], symbols: Mapping[str, str] | None = None
) -> Allegro:
    """The float64 model that a description and the reference's weights define.

    Raises
    ------
    ConversionError
        If the types have no chemical symbols, or the hyperparameters are out of asenequip's range.
    """
    names = type_symbols(description["type_names"], symbols or {})
    numbers = description["zbl_numbers"]
    if numbers is not None and [atomic_numbers[n] for n in names] != [int(z) for z in numbers]:
        raise ConversionError(
            f"The ZBL term takes the types {', '.join(names)} for the atomic numbers {numbers}.\n"
            "Give the symbols that belong to these numbers: symbols={'type': 'symbol', ...}."
        )
    try:
        spec = AllegroSpec.from_dict({"type_names": names, **description["spec"]})
        state = convert_weights(spec, weights, description["alphas"])
    except (ValueError, KeyError) as error:
        raise ConversionError(f"The model is outside what asenequip can represent: {error.args[0]}") from error
    model = Allegro(spec)
    model.load_state_dict(state)
    return model.requires_grad_(False).eval()


def type_symbols(type_names: list[str], symbols: Mapping[str, str]) -> list[str]:
    """The chemical symbol of each type: as mapped, or its own name.

    Raises
    ------
    ConversionError
        If a type has no symbol, or two share one.
    """
    unknown = sorted(set(symbols) - set(type_names))
    if unknown:
        raise ConversionError(f"The model has no type {', '.join(unknown)}; its types are {', '.join(type_names)}.")
    names = [symbols.get(name, name) for name in type_names]
    wrong = [t for t, n in zip(type_names, names, strict=True) if n not in atomic_numbers or n == "X"]
    if wrong:
        example = ", ".join(f"'{name}': 'Li'" for name in wrong)
        raise ConversionError(
            f"The types {', '.join(wrong)} are no chemical symbols, so atoms cannot be told their type.\n"
            f"Say which element each one is: symbols={{{example}}} (here with your elements)."
        )
    if len(set(names)) < len(names):
        raise ConversionError(
            f"Several types are one element: {dict(zip(type_names, names, strict=True))}.\n"
            "A model that tells apart atoms of one element cannot be converted."
        )
    return names


def frame_atoms(description: Mapping[str, Any], type_names: tuple[str, ...]) -> Atoms:
    """The test structure."""
    frame = description["frame"]
    chemical = [type_names[t] for t in frame["types"]]
    return Atoms(chemical, positions=frame["positions"], cell=frame["cell"], pbc=True)


def compare(model: Allegro, frame: Atoms, description: Mapping[str, Any]) -> dict[str, float]:
    """Hold the model against the reference results.

    Parameters
    ----------
    model : Allegro
        float64.
    frame : ase.Atoms
    description : mapping
        What the extraction says, with ``reference`` and ``reference_as_stored``.

    Returns
    -------
    dict
        Largest deviations from the float64 reference: ``energy_per_atom`` (eV), ``forces`` (eV/Angstrom), ``stress``
        (eV/Angstrom^3).

    Raises
    ------
    ConversionError
        If one is too large, or the source's results are not finite.
    """
    graph = graph_of(frame, model.spec.type_names, np.asarray(model.spec.cutoff_table()))
    result = evaluate_derivatives(model, graph)
    tensors = (result.energies.sum(), result.forces, stress(graph, result.virials)[0])
    ours = [t.detach().numpy() for t in tensors]
    deviations: dict[str, float] = {}
    for key, tolerance in (("reference_as_stored", SINGLE), ("reference", EXACT)):
        theirs = [np.asarray(description[key][name]) for name in ("energy", "forces", "stress")]
        if not all(np.isfinite(t).all() for t in theirs):
            raise ConversionError("The source's own energy or forces are not finite: its weights are useless.")
        off = [float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)]
        deviations = {"energy_per_atom": off[0] / len(frame), "forces": off[1], "stress": off[2]}
        limit = tolerance * max(1.0, float(np.abs(theirs[1]).max()))
        wrong = {k: v for k, v in deviations.items() if not v <= limit}
        if wrong:
            listed = ", ".join(f"{k} by {v:.1e}" for k, v in wrong.items())
            raise ConversionError(
                f"The rebuilt model does not reproduce the source ({listed}; allowed {limit:.1e}).\n"
                "Nothing was written. Please report this with the model's configuration."
            )
    return deviations


def _store_single(model: Allegro) -> None:
    """Keep in float32 every network weight that float32 holds exactly; tables a float32 model has in float64 stay."""
    for name, parameter in model.named_parameters():
        if name in ("scales", "shifts"):
            continue
        single = parameter.data.to(torch.float32)
        if torch.equal(single.to(torch.float64), parameter.data):
            parameter.data = single
