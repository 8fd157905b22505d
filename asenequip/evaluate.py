"""The stateless core: Atoms in, energies, forces and stress out; neighbour lists are kept where that is safe."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from ase import Atoms

from asenequip.artifact import Potential, load_artifact, verify
from asenequip.compiledgraph import compiled_graph, kept_graph
from asenequip.compiling import CompilationError, fused_engine
from asenequip.errors import BAD_STRUCTURE, parameter_error
from asenequip.fused.batch import FusedBatch
from asenequip.fused.engine import FusedEngine
from asenequip.graph import Graph, atom_types, check_geometry, graph_of, input_errors, join_graphs
from asenequip.listcache import ListCache
from asenequip.memory import in_parts_that_fit
from asenequip.model.derivatives import Derivatives, Slopes, evaluate_derivatives, local_blocks
from asenequip.model.hessian import hessian
from asenequip.resident import ResidentEngine
from asenequip.results import PROPERTIES, Outcome, Results, results_of
from asenequip.rounding import PRECISIONS, products_in

__all__ = ["PROPERTIES", "Evaluator", "ListCache", "Outcome", "Results", "predict", "resolve_device"]


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
    if resolved.type == "cuda" and resolved.index is not None and resolved.index >= torch.cuda.device_count():
        there = ", ".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        raise parameter_error("device", "Evaluator", f"a GPU of this machine: {there}", device)
    if resolved.type not in ("cpu", "cuda"):
        raise parameter_error("device", "Evaluator", '"auto", "cpu" or "cuda[:index]"', device)
    return resolved


class Evaluator:
    """Evaluates a potential on structures, one or many at a time.

    Parameters
    ----------
    potential : Potential or path
        A loaded potential or a ``model.asnq`` file.
    device : str or torch.device
        "auto" takes CUDA if there is one.
    dtype : {"float32", "float64", "bfloat16", "tf32"}
        Precision of the network; positions, displacements and sums are float64 always. The last two are float32 but for
        the operands of matrix products; on a CPU "bfloat16" needs AVX512-BF16, and "tf32" is for CUDA only.
    skin : float
        Verlet skin, Angstrom; 0 builds each list anew.
    max_edges : int, optional
        Edges worked on at once: bounds the memory, does not change the numbers. 100,000 by default, on a GPU four times
        as many.
    compiled : bool, optional
        True: the compiled form or an error; False: the eager network; None: on a CPU fused for float32 where it can be
        built (else eager, said once), fused for bfloat16, and eager for float64. On a GPU, where compiling takes a
        minute, None takes the compiled graph that ``asenequip compile`` has made, else the eager network. Hessians and
        descriptors come from the eager network always, on a CPU virials too.
    """

    def __init__(
        self,
        potential: Potential | str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        dtype: str = "float32",
        skin: float = 1.0,
        max_edges: int | None = None,
        compiled: bool | None = None,
    ) -> None:
        if dtype not in PRECISIONS:
            raise parameter_error("dtype", "Evaluator", "one of " + ", ".join(map(repr, PRECISIONS)), dtype)
        if not (isinstance(skin, (int, float, np.number)) and 0 <= skin < float("inf")):
            raise parameter_error("skin", "Evaluator", "a float in [0, inf)", skin)
        self.device = resolve_device(device)
        if max_edges is None:
            max_edges = 400_000 if self.device.type == "cuda" else 100_000
        if not (isinstance(max_edges, (int, np.integer)) and max_edges > 0):
            raise parameter_error("max_edges", "Evaluator", "a positive integer", max_edges)
        if dtype == "tf32" and self.device.type != "cuda":
            remedy = 'Take dtype="float32".'
            raise parameter_error("dtype", "Evaluator", "a type of the CPU's: TF32 is one of CUDA's", dtype, remedy)
        self.dtype = dtype
        if not isinstance(potential, Potential):
            potential = load_artifact(potential, check=False)
        self.potential = potential
        self.model = potential.cast(PRECISIONS[dtype], self.device)
        self.cutoffs = np.asarray(self.model.spec.cutoff_table())
        self.lists = ListCache(float(self.cutoffs.max()), float(skin))
        self.max_edges = max_edges
        self.engine = self._choose_engine(compiled) if self.device.type == "cpu" else None
        self.slopes: Slopes | None = None
        self.resident: ResidentEngine | None = None
        if self.device.type == "cuda":
            self.slopes = self._choose_slopes(compiled)
            self.resident = ResidentEngine(self.model, float(skin), max_edges=max_edges, slopes=self.slopes)

    def _choose_engine(self, compiled: bool | None) -> FusedEngine | None:
        if compiled is False or (compiled is None and self.dtype == "float64"):
            verify(self.potential)
            return None
        try:
            return fused_engine(self.potential, self.dtype)  # verifies the potential, now or when it was compiled
        except CompilationError as error:
            if compiled or self.dtype == "bfloat16":
                raise
            verify(self.potential)
            warnings.warn(f"{error}\nThe eager network runs instead: the same numbers, slower.", stacklevel=3)
            return None

    def _choose_slopes(self, compiled: bool | None) -> Slopes | None:
        if compiled:
            return compiled_graph(self.potential, self.dtype, self.device)[0]
        verify(self.potential)
        found = None if compiled is False else kept_graph(self.potential, self.dtype, self.device)
        return None if found is None else found[0]

    def graph(self, atoms: Atoms) -> Graph:
        """The graph of one structure, on this evaluator's device."""
        check_geometry(atoms)
        with input_errors():
            verlet = self.lists.list_for(atoms)
        return graph_of(atoms, self.model.spec.type_names, self.cutoffs, verlet).to(self.device)

    def evaluate(self, frames: Iterable[Atoms], *, last_layer: bool = False) -> list[Results]:
        """Evaluate every structure; the order is kept.

        Parameters
        ----------
        frames : iterable of ase.Atoms
            Structures of any sizes; not changed.
        last_layer : bool
            Give "last_layer" too, (n, width) float64: the hidden units of the readout summed over the edges of each
            atom, from the same pass; see `asenequip.model.allegro.Allegro.last_layer`.

        Returns
        -------
        list of dict
            For each structure "energy" and "free_energy" (float, eV), "energies" (n,), "forces" (n, 3) eV/Angstrom, and
            where the cell has a volume "stress" (6,) and "stresses" (n, 6), eV/Angstrom^3, xx yy zz yz xz xy, tension
            positive.

        Raises
        ------
        ase.calculators.calculator.InputError
            For the first structure that cannot be evaluated.
        """
        results: list[Results] = []
        for outcome in self.outcomes(frames, last_layer=last_layer):
            if isinstance(outcome, Exception):
                raise outcome
            results.append(outcome)
        return results

    def outcomes(self, frames: Iterable[Atoms], *, last_layer: bool = False) -> list[Outcome]:
        """As `evaluate`, but a structure that cannot be evaluated gives its error in place of results.

        Where memory does not suffice for the structures of a batch, they are evaluated in halves.
        """
        frames = _as_list(frames, "Evaluator")
        if self.engine is not None:
            return FusedBatch(self.engine, self.lists, self.max_edges).outcomes(frames, last_layer)
        if self.resident is not None and len(frames) == 1 and not last_layer:
            return [self._on_device(frames[0], self.resident)]
        found: list[Outcome | None] = [None] * len(frames)
        for places, graphs in self._batches(frames, found):
            results = in_parts_that_fit(partial(self._split, last_layer=last_layer), graphs)
            for k, outcome in zip(places, results, strict=True):
                found[k] = outcome
        return [outcome for outcome in found if outcome is not None]

    def _on_device(self, atoms: Atoms, resident: ResidentEngine) -> Outcome:
        cell, pbc = np.asarray(atoms.cell, np.float64), np.asarray(atoms.pbc, bool)
        try:
            check_geometry(atoms)
            types = atom_types(atoms, self.model.spec.type_names)
            with input_errors(), products_in(self.dtype, self.device):
                found = resident.run(atoms.positions, cell, pbc, types)
            if not all(np.isfinite(array).all() for array in found):
                graph_of(atoms, self.model.spec.type_names, self.cutoffs)  # names atoms that coincide
        except BAD_STRUCTURE as error:
            return error
        return results_of(np.array([0, len(atoms)]), *found, np.abs(np.linalg.det(cell[None])))[0]

    def derivatives(self, graph: Graph, last_layer: bool = False) -> Derivatives:
        """Energies, forces and virials of a batch as tensors."""
        with products_in(self.dtype, self.device):
            return evaluate_derivatives(
                self.model, graph, max_edges=self.max_edges, last_layer=last_layer, slopes=self.slopes
            )

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
        vectors = graph.vectors()
        found = []
        with torch.no_grad():
            for edges, inputs in local_blocks(graph, self.max_edges):
                types, _, centers, _ = inputs
                features = self.model.local(vectors[edges], *inputs).features.to(torch.float64)
                total = features.new_zeros(len(types), features.shape[1]).index_add(0, centers, features)
                found.append(total * self.model.inverse_norm[types].unsqueeze(1))
        return torch.cat(found).cpu().numpy()

    def _batches(self, frames: Sequence[Atoms], found: list[Outcome | None]) -> Iterator[tuple[list[int], list[Graph]]]:
        """Places and graphs of structures to be joined; errors of the others go to ``found``."""
        places: list[int] = []
        graphs: list[Graph] = []
        edges = 0
        for k, atoms in enumerate(frames):
            try:
                graph = self.graph(atoms)
            except BAD_STRUCTURE as error:
                found[k] = error
                continue
            if graphs and edges + graph.num_edges > self.max_edges:
                yield places, graphs
                places, graphs, edges = [], [], 0
            places.append(k)
            graphs.append(graph)
            edges += graph.num_edges
        if graphs:
            yield places, graphs

    def _split(self, graphs: Sequence[Graph], last_layer: bool) -> list[Results]:
        joined = join_graphs(graphs)
        derived = self.derivatives(joined, last_layer)
        tensors = (derived.energies, derived.forces, derived.virials, joined.volumes())
        energies, forces, virials, volumes = (t.detach().cpu().numpy() for t in tensors)
        layer = None if derived.last_layer is None else derived.last_layer.cpu().numpy()
        starts = np.cumsum([0, *(graph.num_atoms for graph in graphs)])
        return results_of(starts, energies, forces, virials, volumes, layer)


def _as_list(frames: Iterable[Atoms], owner: str) -> list[Atoms]:
    """The structures as a list; a single one is refused, since the elements of Atoms are atoms."""
    if isinstance(frames, Atoms):
        raise parameter_error("frames", owner, "a list of structures", frames, "Put the structure into one: [atoms].")
    return list(frames)


def predict(
    frames: Iterable[Atoms],
    potential: Potential | str | os.PathLike[str],
    *,
    device: str = "auto",
    dtype: str = "float32",
) -> list[Atoms]:
    """Copies of the structures that carry the potential's energy, forces and stress as single-point results.

    Parameters
    ----------
    frames : iterable of ase.Atoms
    potential : Potential or path
    device, dtype
        As for `Evaluator`.

    Returns
    -------
    list of ase.Atoms
    """
    from ase.calculators.singlepoint import SinglePointCalculator

    frames = _as_list(frames, "predict")
    evaluator = Evaluator(potential, device=device, dtype=dtype, skin=0.0)
    labelled = []
    for atoms, results in zip(frames, evaluator.evaluate(frames), strict=True):
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, **results)
        labelled.append(copy)
    return labelled
