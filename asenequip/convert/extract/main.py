"""Open a nequip-allegro checkpoint or package and leave its weights, description and reference results in a folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .describe import UnsupportedError, check_modules, describe, network
from .frame import evaluate, random_frame
from .promote import promote


def main(arguments: list[str]) -> None:
    """Entry point: ``source folder``."""
    source, folder = arguments[0], Path(arguments[1])
    warnings.filterwarnings("ignore")
    try:
        model = open_model(source)
        description, weights = extract(model)
    except UnsupportedError as refusal:
        (folder / "refusal.json").write_text(json.dumps({"message": str(refusal)}))
        return
    description["versions"] = {name: _version(name) for name in ("nequip", "nequip-allegro", "torch", "e3nn")}
    write_safetensors(folder / "weights.safetensors", weights)
    (folder / "description.json").write_text(json.dumps(description))


def open_model(source: str) -> torch.nn.Module:
    """The eager model of a checkpoint or package, with the averaged weights where the training kept an average."""
    from nequip.model.saved_models.load_utils import load_saved_model
    from nequip.utils.global_state import set_global_state

    set_global_state()
    models = load_saved_model(source, compile_mode="eager", model_key=None)
    if len(models) != 1:
        raise UnsupportedError(
            f"The file holds {len(models)} models ({', '.join(models)}); exactly one can be converted."
        )
    return next(iter(models.values()))


def extract(model: Any, seed: int = 0) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Description and weights of a model; it is taken to float64 on the way.

    Parameters
    ----------
    model : nequip.nn.GraphModel
    seed : int
        Seed of the test structure.

    Returns
    -------
    description : dict
        What `describe` gives, and ``dtype``, ``frame``, ``reference`` (float64) and ``reference_as_stored``.
    weights : dict of str to Tensor
        Every tensor of the network, by its name inside the sequence of parts.
    """
    check_modules(model)
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    model.eval().requires_grad_(False)
    model.model.do_derivatives = True
    stored = str(model.model_dtype).removeprefix("torch.")
    norm = network(model).edge_norm
    cutoffs = _cutoff_table(norm, len(model.type_names))
    frame = random_frame(cutoffs, seed)
    try:
        as_stored = evaluate(model, frame, cutoffs)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UnsupportedError(f"Its own code fails on a test structure: {reason}") from error
    promote(model)
    reference = evaluate(model, frame, cutoffs) if stored == "float32" else as_stored
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained[name])
    description = describe(model)
    description.update(
        dtype=stored,
        frame={k: v.tolist() for k, v in frame.items()},
        reference=reference,
        reference_as_stored=as_stored,
    )
    return description, {k: v.detach().cpu() for k, v in network(model).state_dict().items()}


def _cutoff_table(norm: Any, num_types: int) -> np.ndarray:
    radii = 1.0 / norm._rmax_recip.double().reshape(-1).numpy()
    return np.broadcast_to(radii if len(radii) == 1 else radii.reshape(num_types, num_types), (num_types, num_types))


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """The safetensors format, all float64: header length, JSON header, data. Needs no package but torch."""
    header, blocks, offset = {}, [], 0
    for name, tensor in tensors.items():
        block = np.ascontiguousarray(tensor.double().numpy(), dtype="<f8").tobytes()
        header[name] = {"dtype": "F64", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(block)]}
        offset += len(block)
        blocks.append(block)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blocks))
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main(sys.argv[1:])
