"""Fitted clusters in one file of arrays and JSON, readable anywhere, without pickle."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import asenequip
from asenequip.cluster.density_peaks import DensityPeaks
from asenequip.cluster.descriptors import CallableDescriptor, descriptor_config, descriptor_from_config
from asenequip.cluster.estimator import EnvironmentClusters
from asenequip.cluster.estimators import BMTI, KNN, KStarNN, PAk
from asenequip.cluster.landscape import Landscape
from asenequip.cluster.lists import NeighbourLists
from asenequip.cluster.neighbourhoods import Neighbourhoods
from asenequip.cluster.support import Support
from asenequip.files import replace_file

__all__ = ["load_clusters", "save_clusters"]

FORMAT = 2
KINDS = {"BMTI": BMTI, "KNN": KNN, "KStarNN": KStarNN, "PAk": PAk}
PARAMETERS = ("z", "species", "window", "sample", "components", "resolution", "random_state")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def save_clusters(model: EnvironmentClusters, path: str | Path) -> Path:
    """Write a fitted model to one file.

    Parameters
    ----------
    model : EnvironmentClusters
    path : path
        A file that is there is replaced once the new one is complete.

    Returns
    -------
    Path
    """
    path = Path(path)
    arrays: dict[str, NDArray] = {}
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": asenequip.__version__,
        "descriptor": descriptor_config(model.descriptor),
        "parameters": {name: _plain(getattr(model, name)) for name in PARAMETERS},
        "models": {},
    }
    for key, peaks in model.models_.items():
        density = peaks.density_
        landscape = density.landscape_
        parameters = {name: _plain(value) for name, value in density.get_params().items()}
        hood = landscape.neighbourhoods
        header["models"][str(key)] = {
            "offset": model.offsets_[key],
            "density": type(density).__name__,
            "parameters": parameters,
            "significance": landscape.significance,
            "resolution": landscape.resolution,
            "hood": None if hood is None else {"dimension": hood.dimension, "saturated": hood.saturated},
        }
        held = {
            "points": landscape.support.points,
            "counts": landscape.support.counts,
            "inverse": landscape.support.inverse,
            "first": landscape.support.first,
            "log_density": landscape.log_density,
            "error": landscape.error,
            "period": landscape.period,
            "gradient": landscape.gradient,
            "projection_mean": model.projections_[key][0],
            "projection_axes": model.projections_[key][1],
            "sample_frames": model.sample_frames_[key],
            "sample_atoms": model.sample_atoms_[key],
        }
        if hood is not None:
            lists = hood.neighbours
            held["start"] = np.concatenate([[0], np.cumsum(lists.size + 1)])
            held["distances"] = lists.gather(lists.distances, 0, lists.size + 1)
            held["indices"] = lists.gather(lists.indices, 0, lists.size + 1)
            held["k_star"] = hood.k_star
        arrays.update({f"{key}/{name}": value for name, value in held.items() if value is not None})
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **cast(dict[str, Any], arrays))
    replace_file(path, buffer.getvalue())
    return path


def load_clusters(path: str | Path, descriptor: Any = None) -> EnvironmentClusters:
    """Read a model that `save_clusters` wrote; peaks are found again from the stored density.

    Parameters
    ----------
    path : path
    descriptor : callable, optional
        Needed where the descriptor was a function of the user's own; a `CallableDescriptor` must have the name of the
        one that the clusters were fitted with.

    Returns
    -------
    EnvironmentClusters

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is none of these, the descriptor is missing, or it is another one.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays["header"].tobytes().decode())
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"'{path}' holds no clusters of environments.\nGive a file that EnvironmentClusters.save wrote."
        ) from error
    if header["format"] != FORMAT:
        raise ValueError(
            f"'{path}' has format {header['format']}, this version reads {FORMAT}.\n"
            f"Read it with asenequip {header['version']}."
        )
    model = EnvironmentClusters(_descriptor(descriptor, header["descriptor"], path), **header["parameters"])
    for name in ("models_", "offsets_", "projections_", "sample_frames_", "sample_atoms_"):
        setattr(model, name, {})
    for text, info in header["models"].items():
        key = int(text)
        held = {name.split("/", 1)[1]: value for name, value in arrays.items() if name.startswith(f"{key}/")}
        model.models_[key] = _peaks(info, held, model.z)
        model.offsets_[key] = info["offset"]
        model.projections_[key] = (held["projection_mean"], held["projection_axes"])
        model.sample_frames_[key], model.sample_atoms_[key] = held["sample_frames"], held["sample_atoms"]
    model.n_clusters_ = sum(peaks.n_clusters_ for peaks in model.models_.values())
    return model


def _descriptor(given: Any, config: str, path: str | Path) -> Any:
    """The descriptor of stored clusters: the one that was given, or that of the file."""
    name = json.loads(config).get("name", "SOAP")
    if isinstance(given, CallableDescriptor) and given.name != name:
        raise ValueError(
            f"'{path}' was fitted with the descriptor '{name}', and '{given.name}' was given.\n"
            "Give the one of the fit, or fit the clusters anew."
        )
    found = given or descriptor_from_config(config)
    if found is None:
        raise ValueError(
            f"'{path}' was fitted with the function '{name}' as descriptor, which a file cannot hold.\n"
            "Give it: EnvironmentClusters.load(path, descriptor=...)."
        )
    return found


def _peaks(info: dict[str, Any], held: dict[str, NDArray], z: float) -> DensityPeaks:
    """Rebuild one fitted model from its arrays."""
    hood = None
    if info["hood"] is not None:
        neighbours = NeighbourLists.packed(held["distances"], held["indices"], held["start"])
        hood = Neighbourhoods(neighbours, held["k_star"], info["hood"]["dimension"], info["hood"]["saturated"])
    support = Support(held["points"], held["counts"], held["inverse"], held["first"])
    landscape = Landscape(
        support,
        held.get("period"),
        hood,
        info["significance"],
        held["log_density"],
        held["error"],
        held.get("gradient"),
        info["resolution"],
    )
    density = KINDS[info["density"]](**info["parameters"])
    density.n_features_in_ = support.points.shape[1]
    density._adopt(landscape)
    return DensityPeaks(z, density)._adopt(density)
