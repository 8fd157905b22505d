"""Checkpoints: tensors and JSON in one safetensors file whose name carries its hash; atomic, the last two kept."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asenequip.files import replace_file

_NAME = re.compile(r"(?P<kind>[a-z]+)-(?P<step>\d{9})-(?P<hash>[0-9a-f]{64})\.safetensors")
KEEP = 2
"""Checkpoints of a kind that stay: the newest, and one in case it is damaged."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors and plain values of a moment of training.

    Attributes
    ----------
    tensors : dict of Tensor
    values : dict
        JSON-able; floats survive exactly.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save_checkpoint(folder: Path, kind: str, step: int, checkpoint: Checkpoint, keep: int = KEEP) -> Path:
    """Write a checkpoint, then remove all but the newest ``keep`` of its kind.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    kind : str
        Lower-case letters: "last", "best".
    step : int
        Optimiser steps taken.
    checkpoint : Checkpoint
    keep : int

    Returns
    -------
    Path
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
    content = save(tensors, metadata={"values": json.dumps(checkpoint.values)})
    path = folder / f"{kind}-{step:09d}-{hashlib.sha256(content).hexdigest()}.safetensors"
    replace_file(path, content)
    present = list_checkpoints(folder, kind)
    for old in [other for other in present if other != path][max(keep - 1, 0) :]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path, kind: str) -> list[Path]:
    """Checkpoints of a kind, most steps first; of one step, the latest written first."""
    found = []
    for path in folder.glob(f"{kind}-*.safetensors"):
        match = _NAME.fullmatch(path.name)
        if match and match["kind"] == kind:
            found.append((int(match["step"]), path.stat().st_mtime_ns, path))
    return [path for _, _, path in sorted(found, reverse=True)]


def load_checkpoint(folder: Path, kind: str) -> tuple[Checkpoint | None, list[Path]]:
    """The newest undamaged checkpoint of a kind, and the damaged ones that were passed over."""
    damaged: list[Path] = []
    for path in list_checkpoints(folder, kind):
        checkpoint = _read(path)
        if checkpoint is not None:
            return checkpoint, damaged
        damaged.append(path)
    return None, damaged


def _read(path: Path) -> Checkpoint | None:
    """The checkpoint of one file; None if its content is not what its name says."""
    from safetensors import safe_open

    match = _NAME.fullmatch(path.name)
    if match is None or hashlib.sha256(path.read_bytes()).hexdigest() != match["hash"]:
        return None
    with safe_open(str(path), framework="pt") as stream:
        values = json.loads(stream.metadata()["values"])
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a dict)
    return Checkpoint(tensors, values)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> Checkpoint:
    """State and settings of an optimizer: its tensors apart, everything else as plain values."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
    entries = {str(parameter): entries for parameter, entries in state["state"].items()}
    return Checkpoint(tensors, {"state": _take_tensors(entries, "state", tensors), "groups": groups})


def unpack_optimizer(optimizer: torch.optim.Optimizer, packed: Checkpoint) -> None:
    """Put a packed state into an optimizer of the same parameters."""
    entries = _put_tensors(packed.values["state"], packed.tensors)
    groups = [
        {**old, **saved}
        for old, saved in zip(optimizer.state_dict()["param_groups"], packed.values["groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": {int(k): v for k, v in entries.items()}, "param_groups": groups})


_TENSOR = "tensor "
"""How a plain value names the tensor that stood in its place."""


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A nest of dictionaries and lists with each tensor moved to ``tensors`` and its name in its place."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return _TENSOR + name
    if isinstance(value, dict):
        return {key: _take_tensors(inner, f"{name}.{key}", tensors) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_take_tensors(inner, f"{name}.{k}", tensors) for k, inner in enumerate(value)]
    return value


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The reverse of `_take_tensors`."""
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value.removeprefix(_TENSOR)]
    if isinstance(value, dict):
        return {key: _put_tensors(inner, tensors) for key, inner in value.items()}
    if isinstance(value, list):
        return [_put_tensors(inner, tensors) for inner in value]
    return value
