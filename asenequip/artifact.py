"""``model.asnq``: one file per potential; no pickle, hashes, limits, and a golden frame that is replayed on loading.

A zip of stored entries: ``model.json`` (spec, precision, provenance, versions, SHA-256 of the other entries),
``weights.safetensors``, ``golden.json`` (a structure with its float64 energy, forces and stress), and, where an
uncertainty was fitted, ``uncertainty.json`` and ``uncertainty.safetensors``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

import asenequip
from asenequip.files import refuse_existing, write_new
from asenequip.golden import MAX_ATOMS, default_golden, golden_record, golden_structure, replay
from asenequip.model.allegro import Allegro
from asenequip.model.spec import AllegroSpec

FORMAT_VERSION = 1
DTYPES = {"float32": torch.float32, "float64": torch.float64}
_REQUIRED = {"model.json": 16 << 20, "golden.json": 64 << 20, "weights.safetensors": 4 << 30}
_OPTIONAL = {"uncertainty.json": 1 << 20, "uncertainty.safetensors": 256 << 20}
_LIMITS = {**_REQUIRED, **_OPTIONAL}
_MAX_DEPTH = 64
"""Hidden layers of any one network: more than any potential has, fewer than would exhaust the memory."""


UncertaintyPart = tuple[dict[str, Any], dict[str, np.ndarray]]
"""JSON-able record and arrays of a fitted uncertainty."""


class ArtifactError(ValueError):
    """A file that is no intact ``model.asnq``; the message names the file, the fault and the remedy."""


@dataclass(frozen=True)
class Potential:
    """A loaded potential.

    Attributes
    ----------
    model : Allegro
        In evaluation form: no parameter requires a gradient.
    provenance : dict
        Where it came from, as its maker wrote it.
    dtype : str
        Precision it was stored for, "float32" or "float64".
    path : Path or None
        File it was read from.
    sha256 : str
        Hash of that file.
    uncertainty : (dict, dict of ndarray), optional
        Record and arrays of a fitted uncertainty; `asenequip.uncertainty` makes sense of them.
    """

    model: Allegro
    provenance: dict[str, Any]
    dtype: str
    path: Path | None
    sha256: str
    uncertainty: UncertaintyPart | None = None

    @property
    def spec(self) -> AllegroSpec:
        """Hyperparameters."""
        return self.model.spec

    def cast(self, dtype: str, device: torch.device | str) -> Allegro:
        """The network in a precision ("float32" or "float64") and on a device; this potential is left as it is."""
        model = Allegro(self.spec, seed=None)
        model.load_state_dict(self.model.state_dict())
        return model.requires_grad_(False).eval().to(DTYPES[dtype]).to(device)


def save_artifact(
    path: str | os.PathLike[str],
    model: Allegro,
    *,
    golden: Atoms | None = None,
    provenance: Mapping[str, Any] | None = None,
    uncertainty: UncertaintyPart | None = None,
) -> Path:
    """Write a potential to one file, atomically; an existing file is never overwritten.

    Parameters
    ----------
    path : path
        Must end in ``.asnq``.
    model : Allegro
    golden : ase.Atoms, optional
        Structure whose energy, forces and stress are stored and replayed on loading; a small crystal by default, and
        where this one has no atoms or more than 4096.
    provenance : mapping, optional
        JSON-able account of the training.
    uncertainty : (dict, dict of ndarray), optional
        As `asenequip.uncertainty.LastLayer.to_part` gives it.

    Returns
    -------
    Path

    Raises
    ------
    FileExistsError
        If the file is there already.
    ValueError
        If a weight is not finite, or the name does not end in ``.asnq``.
    """
    path = Path(path)
    if path.suffix != ".asnq":
        raise ValueError(f"The file of a potential must end in '.asnq'. Got '{path}' instead.")
    refuse_existing(path)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    _check_finite(state, str(path))
    fits = golden is not None and 1 <= len(golden) <= MAX_ATOMS
    frame = golden if golden is not None and fits else default_golden(model.spec)
    entries = {
        "weights.safetensors": save_tensors(state),
        "golden.json": _json(golden_record(model, frame)),
    }
    if uncertainty is not None:
        record, arrays = uncertainty
        tensors = {name: torch.from_numpy(np.array(array, np.float64)) for name, array in arrays.items()}
        entries |= {"uncertainty.json": _json(record), "uncertainty.safetensors": save_tensors(tensors)}
    header = {
        "format": "asnq",
        "format_version": FORMAT_VERSION,
        "spec": model.spec.to_dict(),
        "dtype": "float64" if model.dtype == torch.float64 else "float32",
        "units": {"energy": "eV", "length": "Angstrom"},
        "provenance": dict(provenance or {}),
        "versions": {
            "asenequip": asenequip.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in entries.items()},
    }
    write_new(path, _zip({"model.json": _json(header), **entries}))
    return path


def load_artifact(
    path: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    device: str | torch.device = "cpu",
    check: bool = True,
) -> Potential:
    """Read and verify a potential.

    Parameters
    ----------
    path : path
    dtype : {"float32", "float64"}, optional
        Precision of the network; the stored one by default.
    device : str or torch.device
    check : bool
        Replay the golden frame in float64 and compare.

    Raises
    ------
    FileNotFoundError
    ArtifactError
        If the file is damaged, foreign, hostile, of a newer format, or does not reproduce its golden frame.
    """
    path = Path(path)
    if not path.is_file():
        inside = path / "model.asnq"
        remedy = "Check the path, or train one with asenequip-train."
        if inside.is_file():
            remedy = f"Did you mean '{inside}'?"
        raise FileNotFoundError(f"There is no potential at '{path}'. {remedy}")
    if path.stat().st_size > sum(_LIMITS.values()):
        raise _fault(path, f"it has {path.stat().st_size} bytes, over the limit")
    data = path.read_bytes()
    entries = _unzip(data, path)
    header = _parse_header(entries, path)
    state = _parse_weights(entries["weights.safetensors"], path)
    model = _build(header, state, path)
    if check:
        record = _parse_json(entries["golden.json"], "golden.json", path)
        try:
            replay(model.to(torch.float64), record)
        except ValueError as error:
            raise _fault(path, str(error)) from error
    stored = header["dtype"]
    wanted = dtype or stored
    if wanted not in DTYPES:
        raise ValueError(f'The dtype of a potential must be "float32" or "float64". Got {wanted!r} instead.')
    model = model.to(DTYPES[wanted]).to(device)
    uncertainty = _parse_uncertainty(entries, path)
    return Potential(model, header["provenance"], stored, path, hashlib.sha256(data).hexdigest(), uncertainty)


def verify(potential: Potential) -> None:
    """Replay the golden frame of a potential's file in float64, as loading with ``check=True`` does.

    Raises
    ------
    ArtifactError
        If the file is damaged or its numbers are not reproduced.
    """
    if potential.path is not None:
        load_artifact(potential.path, check=True)


def golden_atoms(path: str | os.PathLike[str]) -> Atoms:
    """The golden structure of a potential's file."""
    path = Path(path)
    try:
        return golden_structure(_parse_json(_unzip(path.read_bytes(), path)["golden.json"], "golden.json", path))
    except ArtifactError:
        raise
    except ValueError as error:
        raise _fault(path, str(error)) from error


# -- reading, one distrust after another ------------------------------------------------------------------------------


def _fault(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"'{path}' is not an intact potential: {what}.\nFetch the file again, or train or convert anew."
    )


def _unzip(data: bytes, path: Path) -> dict[str, bytes]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
        raise _fault(path, f"it is no zip archive ({error})") from error
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if any(name.endswith(".pkl") for name in names):
        raise ArtifactError(
            f"'{path}' is a file of PyTorch's and no potential.\nCheckpoints and packages of nequip-allegro become one "
            f"with: asenequip convert {path} model.asnq --trust-pickle"
        )
    if len(infos) > 16 or len(set(names)) != len(names):
        raise _fault(path, "it has too many or duplicate entries")
    entries = {}
    for info in infos:
        if info.filename not in _LIMITS:
            raise _fault(path, f"it holds an unknown entry {info.filename!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise _fault(path, f"its entry {info.filename} is compressed or encrypted")
        if info.file_size > _LIMITS[info.filename]:
            raise _fault(path, f"its entry {info.filename} has {info.file_size} bytes, over the limit")
        try:
            entries[info.filename] = archive.read(info)
        except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, NotImplementedError) as error:
            raise _fault(path, f"its entry {info.filename} cannot be read ({error})") from error
    missing = set(_REQUIRED) - set(entries)
    if len(set(_OPTIONAL) - set(entries)) == 1:
        missing = set(_OPTIONAL) - set(entries)
    if missing:
        raise _fault(path, f"it lacks {', '.join(sorted(missing))}")
    return entries


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _parse_json(data: bytes, name: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"its {name} cannot be parsed ({error})") from error
    if not isinstance(value, dict):
        raise _fault(path, f"its {name} is no object")
    return value


def _parse_header(entries: Mapping[str, bytes], path: Path) -> dict[str, Any]:
    header = _parse_json(entries["model.json"], "model.json", path)
    if header.get("format") != "asnq":
        raise _fault(path, "its model.json names another format")
    version = header.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ArtifactError(
            f"'{path}' has format version {version!r}; this asenequip reads up to {FORMAT_VERSION}.\n"
            "Update asenequip: pip install --upgrade asenequip."
        )
    if header.get("dtype") not in list(DTYPES) or not isinstance(header.get("provenance"), dict):
        raise _fault(path, "its model.json has no valid dtype or provenance")
    hashes = header.get("sha256")
    for name in sorted(set(entries) - {"model.json"}):
        wanted = hashes.get(name) if isinstance(hashes, dict) else None
        if wanted != hashlib.sha256(entries[name]).hexdigest():
            raise _fault(path, f"its {name} does not match its SHA-256")
    return header


def _parse_weights(data: bytes, path: Path) -> dict[str, Tensor]:
    try:
        state = load_tensors(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise _fault(path, f"its weights cannot be read ({error})") from error
    for name, tensor in state.items():
        if tensor.dtype not in DTYPES.values():
            raise _fault(path, f"its weight '{name}' has type {tensor.dtype}")
    _check_finite(state, str(path))
    return state


def _parse_uncertainty(entries: Mapping[str, bytes], path: Path) -> UncertaintyPart | None:
    if "uncertainty.json" not in entries:
        return None
    record = _parse_json(entries["uncertainty.json"], "uncertainty.json", path)
    arrays = _parse_weights(entries["uncertainty.safetensors"], path)
    return record, {name: tensor.numpy() for name, tensor in arrays.items()}


def _check_finite(state: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ArtifactError(
                f"Weight '{name}' of '{where}' is not finite: the potential is useless.\n"
                "The training that made it diverged; take an earlier checkpoint."
            )


def _build(header: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> Allegro:
    try:
        spec = AllegroSpec.from_dict(header["spec"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _fault(path, f"its spec is wrong ({error})") from error
    depths = (spec.num_layers, spec.two_body_depth, spec.latent_depth, spec.readout_depth)
    if max(depths) > min(len(state), _MAX_DEPTH):
        raise _fault(path, "its spec and its weights disagree about the number of layers")
    try:
        with torch.device("meta"):  # shapes first: a hostile spec must not allocate
            expected = {k: v.shape for k, v in Allegro(spec, seed=None).state_dict().items()}
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise _fault(path, f"its spec is wrong ({str(error)[:200]})") from error
    for name, shape in expected.items():
        if name not in state or state[name].shape != shape:
            found = tuple(state[name].shape) if name in state else "missing"
            raise _fault(path, f"its weight '{name}' should have shape {tuple(shape)} and is {found}")
    surplus = set(state) - set(expected)
    if surplus:
        raise _fault(path, f"it holds unknown weights {sorted(surplus)[:3]}")
    model = Allegro(spec, seed=None)
    model.load_state_dict(dict(state))
    return model.requires_grad_(False).eval()


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _zip(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()
