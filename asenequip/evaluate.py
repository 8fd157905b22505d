"""The stateless core: Atoms in, energies, forces and stress out; neighbour lists are kept where that is safe."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from asenequip.artifact import DTYPES, Potential, load_artifact, verify
from asenequip.compiling import CompilationError, fused_engine
from asenequip.errors import parameter_error
from asenequip.fused.engine import CoincidingAtomsError, FusedEngine
from asenequip.graph import (
    Graph,
    atom_types,
    check_geometry,
    coinciding_atoms,
    graph_of,
    input_errors,
    join_graphs,
)
from asenequip.model.derivatives import Derivatives, evaluate_derivatives
from asenequip.model.hessian import hessian
from asenequip.neighbors import VerletList

PROPERTIES = ("energy", "free_energy", "energies", "forces", "stress", "stresses")
"""Names, as in ASE, of what one evaluation gives."""

Results = dict[str, "float | np.ndarray"]


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:1" means on this machine.

    Raises
    ------
    ValueError
        For a device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise parameter_error("device", "Evaluator", '"auto", "cpu" or "cuda[:index]"', device) from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        remedy = 'Use device="auto" or "cpu", or install a torch build with CUDA on a machine with a GPU.'
        raise parameter_error("device", "Evaluator", "a device of this machine, which has no CUDA", device, remedy)
    if resolved.type not in ("cpu", "cuda"):
        raise parameter_error("device", "Evaluator", '"auto", "cpu" or "cuda[:index]"', device)
    return resolved


@dataclass
class _Kept:
    owner: weakref.ref[Atoms]
    verlet: VerletList


class ListCache:
    """Verlet lists of the structures seen last, so that several can take turns without losing theirs.

    A list is reused wherever the numbers allow it, whichever object they come in; an object whose list has expired gets
    a new one in the place of the old.

    Parameters
    ----------
    cutoff, skin : float
        Angstrom.
    capacity : int
        Lists kept.
    max_edges : int
        Edges kept in all lists together.
    """

    def __init__(self, cutoff: float, skin: float, capacity: int = 64, max_edges: int = 50_000_000) -> None:
        self.cutoff, self.skin = cutoff, skin
        self.capacity, self.max_edges = capacity, max_edges
        self._kept: list[_Kept] = []

    def list_for(self, atoms: Atoms) -> VerletList:
        """A list for this structure, valid or about to be rebuilt."""
        cell, pbc = np.asarray(atoms.cell, np.float64), np.asarray(atoms.pbc, bool)
        mine = [k for k, kept in enumerate(self._kept) if kept.owner() is atoms]
        others = [k for k in range(len(self._kept)) if k not in mine]
        for k in mine + others:
            if self._kept[k].verlet.is_valid(atoms.positions, cell, pbc):
                return self._use(k)
        if mine:
            return self._use(mine[0])
        self._kept.insert(0, _Kept(weakref.ref(atoms), VerletList(self.cutoff, self.skin)))
        self._trim()
        return self._kept[0].verlet

    @property
    def builds(self) -> int:
        """How many times the lists now kept were built."""
        return sum(kept.verlet.builds for kept in self._kept)

    def _use(self, k: int) -> VerletList:
        self._kept.insert(0, self._kept.pop(k))
        return self._kept[0].verlet

    def _trim(self) -> None:
        del self._kept[self.capacity :]
        while len(self._kept) > 1 and sum(kept.verlet.num_edges for kept in self._kept) > self.max_edges:
            self._kept.pop()


class Evaluator:
    """Evaluates a potential on structures, one or many at a time.

    Parameters
    ----------
    potential : Potential or path
        A loaded potential or a ``model.asnq`` file.
    device : str or torch.device
        "auto" takes CUDA if there is one.
    dtype : {"float32", "float64"}
        Precision of the network; positions, displacements and sums are float64 always.
    skin : float
        Verlet skin, Angstrom; 0 builds each list anew.
    max_edges : int
        Edges worked on at once: bounds the memory, does not change the numbers.
    compiled : bool, optional
        True: the fused CPU form or an error; False: the eager network; None: fused for float32 on a CPU where it can be
        built, else eager, said once.
    """

    def __init__(
        self,
        potential: Potential | str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: str = "float32",
        skin: float = 1.0,
        max_edges: int = 100_000,
        compiled: bool | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise parameter_error("dtype", "Evaluator", '"float32" or "float64"', dtype)
        if not (isinstance(skin, (int, float)) and 0 <= skin < float("inf")):
            raise parameter_error("skin", "Evaluator", "a float in [0, inf)", skin)
        if not (isinstance(max_edges, int) and max_edges > 0):
            raise parameter_error("max_edges", "Evaluator", "a positive integer", max_edges)
        self.device = resolve_device(device)
        self.dtype = dtype
        if not isinstance(potential, Potential):
            potential = load_artifact(potential, check=False)
        self.potential = potential
        self.model = potential.cast(dtype, self.device)
        self.cutoffs = np.asarray(self.model.spec.cutoff_table())
        self.lists = ListCache(float(self.cutoffs.max()), float(skin))
        self.max_edges = max_edges
        self.engine = self._choose_engine(compiled)

    def _choose_engine(self, compiled: bool | None) -> FusedEngine | None:
        if compiled is False or (compiled is None and (self.device.type != "cpu" or self.dtype != "float32")):
            verify(self.potential)
            return None
        if self.device.type != "cpu":
            raise parameter_error(
                "compiled", "Evaluator", "False or None on a GPU, whose kernels need no step", compiled
            )
        try:
            return fused_engine(self.potential, self.dtype)  # verifies the potential, now or when it was compiled
        except CompilationError as error:
            if compiled:
                raise
            verify(self.potential)
            warnings.warn(f"{error}\nThe eager network runs instead: the same numbers, slower.", stacklevel=3)
            return None

    def graph(self, atoms: Atoms) -> Graph:
        """The graph of one structure, on this evaluator's device."""
        check_geometry(atoms)
        with input_errors():
            verlet = self.lists.list_for(atoms)
        return graph_of(atoms, self.model.spec.type_names, self.cutoffs, verlet).to(self.device)

    def evaluate(self, frames: Sequence[Atoms], *, last_layer: bool = False) -> list[Results]:
        """Evaluate every structure; the order is kept.

        Parameters
        ----------
        frames : sequence of ase.Atoms
            Of any sizes; not changed.
        last_layer : bool
            Give "last_layer" too, (n, width) float64: the hidden units of the readout summed over the edges of each
            atom, from the same pass; see `asenequip.model.allegro.Allegro.last_layer`.

        Returns
        -------
        list of dict
            For each structure "energy" and "free_energy" (float, eV), "energies" (n,), "forces" (n, 3) eV/Angstrom, and
            where the cell has a volume "stress" (6,) and "stresses" (n, 6), eV/Angstrom^3, xx yy zz yz xz xy, tension
            positive.
        """
        results: list[Results] = []
        if self.engine is not None:
            return [self._evaluate_fused(atoms, self.engine, last_layer) for atoms in frames]
        for batch in self._batches(map(self.graph, frames)):
            results.extend(self._split(batch, self.derivatives(join_graphs(batch), last_layer)))
        return results

    def _evaluate_fused(self, atoms: Atoms, engine: FusedEngine, last_layer: bool = False) -> Results:
        check_geometry(atoms)
        types = atom_types(atoms, self.model.spec.type_names)
        cell, pbc = np.asarray(atoms.cell, np.float64), np.asarray(atoms.pbc, bool)
        layer = np.zeros((len(atoms), engine.padded_readout)) if last_layer else None
        with input_errors():
            rows = self.lists.list_for(atoms).rows(atoms.positions, cell, pbc)
            try:
                frames = np.zeros(len(atoms), np.int32)
                found = engine.run(atoms.positions, cell[None], frames, types, rows, last_layer=layer)
            except CoincidingAtomsError as error:
                center = int(np.searchsorted(rows.ptr, error.edge, side="right")) - 1
                raise coinciding_atoms(center, int(rows.neighbors[error.edge])) from None
        results = _results(*found, abs(float(np.linalg.det(cell))))
        if layer is not None:
            results["last_layer"] = layer[:, : self.model.spec.readout_width].copy()
        return results

    def derivatives(self, graph: Graph, last_layer: bool = False) -> Derivatives:
        """Energies, forces and virials of a batch as tensors."""
        return evaluate_derivatives(self.model, graph, max_edges=self.max_edges, last_layer=last_layer)

    def virials(self, atoms: Atoms) -> np.ndarray:
        """Strain derivative of each atom's energy, sum_z r_z (x) dE_n/dr_z, (n, 3, 3) float64, eV, not symmetrised."""
        return self.derivatives(self.graph(atoms)).virials.cpu().numpy()

    def hessian(self, atoms: Atoms, rows: Sequence[int] | None = None) -> np.ndarray:
        """Second derivatives of the energy with respect to the positions, (3m, 3n) float64, eV/Angstrom^2.

        Parameters
        ----------
        atoms : ase.Atoms
        rows : sequence of int, optional
            Atoms whose rows are wanted, m of them; all by default. A row costs the same in a large structure as in a
            small one.
        """
        found = hessian(self.model, self.graph(atoms), rows)
        return found.cpu().numpy().reshape(3 * found.shape[0], 3 * len(atoms))

    def descriptors(self, atoms: Atoms) -> np.ndarray:
        """Environment of each atom: the scalar features of its edges, summed and divided by sqrt(mean neighbours).

        Returns
        -------
        (n, S (L+1)) float64
        """
        graph = self.graph(atoms)
        with torch.no_grad():
            features = self.model(graph).features.to(torch.float64)
            total = features.new_zeros(graph.num_atoms, features.shape[1]).index_add(0, graph.centers, features)
            return (total * self.model.inverse_norm[graph.types].unsqueeze(1)).cpu().numpy()

    def _batches(self, graphs: Iterable[Graph]) -> Iterable[list[Graph]]:
        batch: list[Graph] = []
        edges = 0
        for graph in graphs:
            if batch and edges + graph.num_edges > self.max_edges:
                yield batch
                batch, edges = [], 0
            batch.append(graph)
            edges += graph.num_edges
        if batch:
            yield batch

    @staticmethod
    def _split(graphs: Sequence[Graph], derived: Derivatives) -> list[Results]:
        energies, forces, virials = (
            np.array(t.detach().cpu().numpy(), dtype=np.float64)
            for t in (derived.energies, derived.forces, derived.virials)
        )
        results, start = [], 0
        for graph in graphs:
            atoms = slice(start, start + graph.num_atoms)
            start = atoms.stop
            results.append(_results(energies[atoms], forces[atoms], virials[atoms], float(graph.volumes()[0])))
            if derived.last_layer is not None:
                results[-1]["last_layer"] = derived.last_layer[atoms].cpu().numpy().copy()
        return results


def _results(energies: np.ndarray, forces: np.ndarray, virials: np.ndarray, volume: float) -> Results:
    energy = float(energies.sum())
    found: Results = {
        "energy": energy,
        "free_energy": energy,
        "energies": energies.copy(),
        "forces": forces.copy(),
    }
    if volume > 0:
        symmetric = 0.5 * (virials + virials.transpose(0, 2, 1)) / volume
        found["stresses"] = np.ascontiguousarray(full_3x3_to_voigt_6_stress(symmetric).reshape(len(energies), 6))
        found["stress"] = full_3x3_to_voigt_6_stress(symmetric.sum(axis=0))
    return found


def predict(
    frames: Sequence[Atoms],
    potential: Potential | str | os.PathLike[str],
    *,
    device: str = "auto",
    dtype: str = "float32",
) -> list[Atoms]:
    """Copies of the structures that carry the potential's energy, forces and stress as single-point results.

    Parameters
    ----------
    frames : sequence of ase.Atoms
    potential : Potential or path
    device, dtype
        As for `Evaluator`.

    Returns
    -------
    list of ase.Atoms
    """
    from ase.calculators.singlepoint import SinglePointCalculator

    evaluator = Evaluator(potential, device=device, dtype=dtype, skin=0.0)
    labelled = []
    for atoms, results in zip(frames, evaluator.evaluate(frames), strict=True):
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, **results)
        labelled.append(copy)
    return labelled
