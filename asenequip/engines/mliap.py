"""LAMMPS builds that have the Python side of the ML-IAP package: ``pair_style mliap unified``.

The pair style of `asenequip.engines.lammps` needs less of LAMMPS and should be the first choice; this class is for
builds that know ``mliap unified`` only, or its Kokkos form, whose arrays never leave the GPU.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asenequip.artifact import DTYPES, Potential, load_artifact
from asenequip.errors import parameter_error
from asenequip.evaluate import resolve_device
from asenequip.model.derivatives import edge_blocks

try:
    from lammps.mliap.mliap_unified_abc import MLIAPUnified
except (ImportError, OSError) as error:
    raise ImportError(
        f"This needs a LAMMPS whose ML-IAP package was built with Python ({error}).\n"
        "Build LAMMPS with PKG_ML-IAP, PKG_PYTHON and MLIAP_ENABLE_PYTHON, or use asenequip.engines.lammps."
    ) from error


class AllegroMLIAP(MLIAPUnified):
    """An Allegro potential as a unified ML-IAP model.

    Hand it to LAMMPS with ``lammps.mliap.load_unified`` and ``pair_style mliap unified EXISTS``, or as a file:
    ``AllegroMLIAP("model.asnq").pickle("model.pkl")`` and ``pair_style mliap unified model.pkl``; then
    ``pair_coeff * * ELEMENT ...``. The file names the potential, which must stay where it is.

    Parameters
    ----------
    model : path
        A ``model.asnq`` file.
    elements : sequence of str, optional
        Those that LAMMPS will name, in any order; all that the potential knows by default.
    device : str
        As for `asenequip.evaluate.Evaluator`.
    dtype : {"float32", "float64"}
        Precision of the network.
    max_edges : int
        Edges worked on at once: bounds the memory, does not change the numbers.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        elements: Sequence[str] | None = None,
        *,
        device: str = "auto",
        dtype: str = "float32",
        max_edges: int = 200_000,
    ) -> None:
        self._open(load_artifact(model), elements, device, dtype, max_edges)

    def _open(
        self, potential: Potential, elements: Sequence[str] | None, device: str, dtype: str, max_edges: int
    ) -> None:
        spec = potential.spec
        elements = list(spec.type_names if elements is None else elements)
        if not elements or not set(elements) <= set(spec.type_names):
            known = f"some of the potential's elements, {', '.join(spec.type_names)}"
            raise parameter_error("elements", "AllegroMLIAP", known, elements)
        if dtype not in DTYPES:
            raise parameter_error("dtype", "AllegroMLIAP", "one of " + ", ".join(map(repr, DTYPES)), dtype)
        super().__init__(element_types=elements, ndescriptors=1, nparams=1, rcutfac=0.5 * spec.cutoff)
        self.potential, self.max_edges = potential, max_edges
        self.model = potential.cast(dtype, resolve_device(device))
        self._types = torch.tensor([spec.type_names.index(name) for name in elements], device=self.model.device)
        self._cutoffs = torch.tensor(spec.cutoff_table(), dtype=torch.float64, device=self.model.device)
        self._asked = {"device": device, "dtype": dtype, "max_edges": max_edges}

    def compute_forces(self, data: Any) -> None:
        """Energies and forces of the atoms that LAMMPS lists, from its pairs.

        Parameters
        ----------
        data : MLIAPDataPy
            ``rij`` (pairs, 3) from atom ``pair_i`` to atom ``pair_j``, within the largest cutoff; ``elems`` of all
            atoms, ghosts included. Gets ``eatoms``, ``energy`` and dE/dr of each pair.
        """
        device = self.model.device
        centers, neighbors = (_tensor(array, device, torch.int64) for array in (data.pair_i, data.pair_j))
        vectors = _tensor(data.rij, device, torch.float64)
        types = self._types[_tensor(data.elems, device, torch.int64)]
        reach = self._cutoffs[types[centers], types[neighbors]]
        near = torch.nonzero((vectors * vectors).sum(1) < reach * reach).squeeze(1)
        near = near[torch.argsort(centers[near], stable=True)]
        pairs = torch.zeros_like(vectors)
        energies, gradients = self._evaluate(
            data.nlistatoms, types, centers[near], types[neighbors[near]], vectors[near]
        )
        pairs[near] = gradients
        _give(data, energies, pairs)

    def _evaluate(
        self, num_centers: int, types: Tensor, centers: Tensor, neighbor_types: Tensor, vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Energies of the centres, (n,), and their gradients with respect to the edge vectors, (z, 3); float64."""
        counts = torch.bincount(centers, minlength=num_centers)
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        energies, gradients = [vectors.new_zeros(0)], [vectors.new_zeros(0, 3)]
        for atoms, edges in edge_blocks(ptr.cpu().numpy(), self.max_edges):
            leaf = vectors[edges].requires_grad_(True)
            local = ptr[atoms.start : atoms.stop + 1] - ptr[atoms.start]
            output = self.model.local(leaf, types[atoms], neighbor_types[edges], centers[edges] - atoms.start, local)
            (gradient,) = torch.autograd.grad(output.energies.sum(), leaf)
            energies.append(output.energies.detach())
            gradients.append(gradient)
        return torch.cat(energies), torch.cat(gradients)

    def compute_descriptors(self, data: Any) -> None:
        """Nothing: the energies need none."""

    def compute_gradients(self, data: Any) -> None:
        """Nothing: `compute_forces` gives them."""

    def __getstate__(self) -> dict[str, Any]:
        if self.potential.path is None:
            raise TypeError("A potential without a file cannot be pickled. Save it with save_artifact.")
        named = {"model": str(self.potential.path.resolve()), "sha256": self.potential.sha256}
        return {**named, "elements": self.element_types, **self._asked}

    def __setstate__(self, state: dict[str, Any]) -> None:
        path = Path(state.pop("model"))
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != state.pop("sha256"):
            raise ValueError(
                f"The potential '{path}' is not there any more, or is another one.\n"
                "Put it back, or write the pickle again from its new place."
            )
        self._open(load_artifact(path), **state)


def _tensor(array: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor of a NumPy or CuPy array of LAMMPS', without a copy where type and device agree."""
    return torch.as_tensor(array, device=device).to(dtype)


def _give(data: Any, energies: Tensor, pairs: Tensor) -> None:
    """Hand the results over, as the form of the interface wants them."""
    data.energy = float(energies.sum())
    if hasattr(data, "update_pair_forces_gpu"):  # Kokkos: tensors on the device
        torch.as_tensor(data.eatoms, device=energies.device)[: len(energies)].copy_(energies)
        data.update_pair_forces_gpu(pairs)
        return
    data.eatoms = energies.cpu().numpy()
    if len(pairs):
        data.update_pair_forces(np.ascontiguousarray(pairs.cpu().numpy()))
