"""Energies and their gradient as one graph, compiled ahead of time for a device: what runs in the network's place.

The network and its derivative are traced into one flat graph (make_fx), which is exported with the numbers of atoms
and edges left open and compiled by AOTInductor; the kernels of the tensor track stay in it as the operator they are.
AOTInductor checks neither sizes nor weights when it runs, so everything is checked here: two traces at different sizes
must be the same graph, the package is compared with the exact network before it is kept, a kept one is named by
everything it depends on, and its hash and the golden frame are looked at again whenever it is loaded.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from asenequip.artifact import Potential, verify
from asenequip.compiling import (
    RELATIVE_TOLERANCES,
    Arrays,
    CompilationError,
    cache_name,
    check_frames,
    difference_error,
    distance,
    exact_derivatives,
    network_sources,
    worst_of,
)
from asenequip.files import replace_file
from asenequip.graph import graph_of
from asenequip.kernels import cuda, native
from asenequip.kernels.native import cache_directory
from asenequip.kernels.ops import use_backend
from asenequip.model.allegro import Allegro
from asenequip.model.derivatives import Derivatives, Slopes, evaluate_derivatives, slopes_of
from asenequip.rounding import PRECISIONS, products_in

FEWEST, MOST = 2, 2**20
"""Atoms, and edges, of one call of a package: sizes of 0 and 1 would be built in, and beyond the second an index into
the widest array (2048 numbers for an edge) would not fit in 32 bits. Others go through the network."""

_ROUNDING = {"float64": 1e-10}
"""eV and eV/Angstrom: what a package may be off by even where the network itself is not; 2e-5 in other precisions."""

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Edge vectors (z, 3) float64, types of the centres (n,), types of the neighbours (z,), centres (z,), ptr (n+1,)."""


@dataclass(frozen=True)
class GraphReport:
    """What the check of a package measured, on frames of different sizes.

    Attributes
    ----------
    force_error, energy_error : float
        Largest deviation from the exact float64 network on the CPU: eV/Angstrom, eV/atom.
    eager_force_error, eager_energy_error : float
        The same of the network on the package's device and in its precision.
    difference_error : float
        Largest deviation of the package's forces from central differences of the exact network's energy, eV/Angstrom.
    largest_force : float
        On the frames, eV/Angstrom.
    """

    force_error: float
    energy_error: float
    eager_force_error: float
    eager_energy_error: float
    difference_error: float
    largest_force: float

    def limits(self, dtype: str) -> dict[str, float]:
        """The largest errors that a right package can have: about the network's own rounding."""
        rounding = _ROUNDING.get(dtype, 2e-5)
        force = min(4 * self.eager_force_error + rounding, RELATIVE_TOLERANCES[dtype] * (1.0 + self.largest_force))
        return {
            "force_error": force,
            "energy_error": 4 * self.eager_energy_error + rounding,
            "difference_error": force + 1e-5,
        }


class CompiledGraph:
    """A package as an `asenequip.model.derivatives.Slopes`, for any number of atoms and edges.

    Parameters
    ----------
    package : Path
        Read now; may be gone afterwards.
    model : Allegro
        The network that it was made of, on its device.
    """

    def __init__(self, package: Path, model: Allegro) -> None:
        from torch._inductor import aoti_load_package

        index = -1 if model.device.index is None else model.device.index
        with _no_warnings():
            # its own bookkeeping between threads would not survive the capture of a CUDA graph: the lock is ours
            self._run = aoti_load_package(str(package), run_single_threaded=True, device_index=index)
        self._eager, self._lock = slopes_of(model), threading.Lock()

    def __call__(
        self, vectors: Tensor, types: Tensor, neighbor_types: Tensor, centers: Tensor, ptr: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Energies (n,) eV and gradient (z, 3) eV/Angstrom, float64."""
        inputs = (vectors.detach(), types, neighbor_types, centers, ptr)
        if not all(FEWEST <= size <= MOST for size in (len(types), len(vectors))):
            return self._eager(*inputs)
        with self._lock:
            energies, gradient = self._run(*map(_aligned, inputs))
        return energies, gradient


def compiled_graph(potential: Potential, dtype: str, device: torch.device) -> tuple[CompiledGraph, GraphReport]:
    """The compiled graph of a potential, from the user's cache or made and checked now (about a minute).

    Parameters
    ----------
    potential : Potential
    dtype : str
        One of `asenequip.rounding.PRECISIONS`.
    device : torch.device

    Raises
    ------
    CompilationError
        If it cannot be made here, or its numbers are not the network's.
    """
    found = kept_graph(potential, dtype, device)
    if found is not None:
        return found
    verify(potential)
    model, frames = potential.cast(PRECISIONS[dtype], device), check_frames(potential)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "network.pt2"
        try:
            _build(model, [_inputs(atoms, model) for atoms in (frames[0], frames[-1])], dtype, package)
            graph = CompiledGraph(package, model)
        except CompilationError:
            raise
        except Exception as error:  # torch's compilers raise of every kind
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CompilationError(f"The network could not be compiled for '{device}': {reason}") from error
        report = _check(potential, graph, dtype, device)
        _judge(report, dtype)
        _keep(_record_path(potential, dtype, device), package.read_bytes(), report)
    return graph, report


def kept_graph(potential: Potential, dtype: str, device: torch.device) -> tuple[CompiledGraph, GraphReport] | None:
    """The compiled graph of a potential from the user's cache; None, and a warning if it is unfit, where there is none.

    One that was made of other weights, by other versions or for another device has another name and is not found. The
    hash of the package is compared, and forces on the golden frames with the exact network's.
    """
    try:
        record_path = _record_path(potential, dtype, device)
        record = json.loads(record_path.read_text(encoding="utf-8"))
    except OSError:  # nothing there, or no compiler to have made it
        return None
    except ValueError:
        record = {}
    try:
        report, package = GraphReport(**record["report"]), record_path.with_name(record["package"])
        if hashlib.sha256(package.read_bytes()).hexdigest() != record["sha256"]:
            raise ValueError("its SHA-256 is another one")
        graph = CompiledGraph(package, potential.cast(PRECISIONS[dtype], device))
        error = _deviations(potential, graph, dtype, device, check_frames(potential)[:-1])[0]
        if not error <= report.limits(dtype)["force_error"]:
            raise ValueError(f"its forces on the golden frame are off by {error:.1e} eV/Angstrom")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        warnings.warn(
            f"The compiled network '{record_path}' is not used: {error}.\n"
            f"Make it anew with: asenequip compile MODEL --device {device.type} --dtype {dtype}",
            stacklevel=2,
        )
        return None
    return graph, report


# -- tracing and compiling --------------------------------------------------------------------------------------------


def trace(model: Allegro, examples: Sequence[Inputs], dtype: str) -> torch.fx.GraphModule:
    """Energies and gradient as one flat graph, which is the same whichever of the examples it is traced with.

    Raises
    ------
    CompilationError
        If it is not: a size was built in.
    """
    from torch.fx.experimental import _config
    from torch.fx.experimental.proxy_tensor import make_fx

    graphs = []
    with use_backend("auto"), products_in(dtype, model.device), _config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
        for example in examples:
            slopes_of(model)(*example)  # tables and kernels that are made on first use must be real
            traced = make_fx(slopes_of(model), tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
            traced.graph.eliminate_dead_code()
            traced.recompile()
            graphs.append(traced)
    if len({graph.code for graph in graphs}) > 1:
        raise CompilationError("The graph of the network is not the same for structures of different sizes.")
    return _fold_constants(graphs[0])


def _fold_constants(graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Compute now what depends on the weights alone: their scales, and their rounding to another type."""
    for node in list(graph.graph.nodes):
        sources = node.all_input_nodes
        if node.op != "call_function" or not sources or any(source.op != "get_attr" for source in sources):
            continue
        values = {source: getattr(graph, source.target) for source in sources}
        arguments, options = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        value = node.target(*arguments, **options)
        if not isinstance(value, Tensor) or value._is_view():  # views cost nothing
            continue
        name = f"_folded_{node.name}"
        graph.register_buffer(name, value)
        with graph.graph.inserting_before(node):
            node.replace_all_uses_with(graph.graph.get_attr(name))
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _build(model: Allegro, examples: Sequence[Inputs], dtype: str, package: Path) -> None:
    """Trace, export and compile; the first example's sizes are hints, no more."""
    from torch._inductor import aoti_compile_and_package
    from torch.export import Dim, export

    graph = trace(model, examples, dtype)
    n, z = Dim("n", min=FEWEST, max=MOST), Dim("z", min=FEWEST, max=MOST)
    with _no_warnings(), products_in(dtype, model.device):
        exported = export(graph, examples[0], dynamic_shapes=({0: z}, {0: n}, {0: z}, {0: z}, {0: n + 1}))
        aoti_compile_and_package(exported, package_path=str(package))


def _inputs(atoms: Atoms, model: Allegro) -> Inputs:
    graph = graph_of(atoms, model.spec.type_names, np.asarray(model.spec.cutoff_table())).to(model.device)
    neighbor_types = graph.types.index_select(0, graph.neighbors)
    return graph.vectors(), graph.types, neighbor_types, graph.centers, graph.ptr


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor as the package takes it for granted: in order, and at an address as a fresh tensor has it."""
    return tensor.contiguous() if tensor.data_ptr() % 64 == 0 else tensor.clone(memory_format=torch.contiguous_format)


# -- the check --------------------------------------------------------------------------------------------------------


def _check(potential: Potential, graph: CompiledGraph, dtype: str, device: torch.device) -> GraphReport:
    frames, exact = check_frames(potential), potential.cast("float64", "cpu")
    model = potential.cast(PRECISIONS[dtype], device)
    force, energy, largest = _deviations(potential, graph, dtype, device, frames)
    eager_force, eager_energy, _ = _deviations(potential, None, dtype, device, frames)

    def run(atoms: Atoms) -> Arrays:
        """Energies of the exact network with the forces of the package."""
        with use_backend("plain"):
            energies = exact_derivatives(exact, atoms).energies.detach().numpy()
        found = _evaluate(model, graph, atoms, dtype)
        return energies, found.forces.cpu().numpy(), found.virials.cpu().numpy()

    return GraphReport(force, energy, eager_force, eager_energy, difference_error(run, frames[-1]), largest)


def _deviations(
    potential: Potential, slopes: Slopes | None, dtype: str, device: torch.device, frames: Sequence[Atoms]
) -> tuple[float, float, float]:
    """Largest errors of forces and energies against the exact network on the CPU, and the largest force."""
    exact, model = potential.cast("float64", "cpu"), potential.cast(PRECISIONS[dtype], device)
    force, energy, largest = [], [], 0.0
    for atoms in frames:
        with use_backend("plain"):
            wanted = exact_derivatives(exact, atoms)
        found = _evaluate(model, slopes, atoms, dtype)
        forces = wanted.forces.numpy()
        force.append(distance(found.forces.cpu().numpy(), forces))
        energy.append(distance(found.energies.cpu().numpy(), wanted.energies.detach().numpy()))
        largest = max(largest, float(np.abs(forces).max(initial=0.0)))
    return worst_of(force), worst_of(energy), largest


def _evaluate(model: Allegro, slopes: Slopes | None, atoms: Atoms, dtype: str) -> Derivatives:
    graph = graph_of(atoms, model.spec.type_names, np.asarray(model.spec.cutoff_table())).to(model.device)
    with products_in(dtype, model.device):
        return evaluate_derivatives(model, graph, slopes=slopes)


def _judge(report: GraphReport, dtype: str) -> None:
    """Refuse a package that is not the network."""
    for name, limit in report.limits(dtype).items():
        if not getattr(report, name) <= limit:
            raise CompilationError(
                f"The compiled network failed its check: its {name} is over {limit:.1e} in {report}."
            )


# -- the cache --------------------------------------------------------------------------------------------------------


def _record_path(potential: Potential, dtype: str, device: torch.device) -> Path:
    """A file named by everything that a package depends on; in it, report, name and hash of the package."""
    sources = [Path(__file__), *network_sources()]
    facts: list[Any] = [torch.version.cuda, dtype, device.type, native.toolchain()]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts += [properties.name, properties.major, properties.minor, cuda.problem()]
    return cache_directory() / "graphs" / f"{cache_name(potential, sources, facts)}.json"


def _keep(record: Path, package: bytes, report: GraphReport) -> None:
    """Keep a package under a name of its own, then its record; a cache that cannot be written is no error."""
    digest = hashlib.sha256(package).hexdigest()
    name = f"{record.stem}-{digest[:16]}.pt2"
    try:
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(record.with_name(name), package)
        kept = {"package": name, "sha256": digest, "report": asdict(report)}
        replace_file(record, json.dumps(kept, indent=1).encode())
    except OSError as error:
        warnings.warn(f"The compiled network could not be kept in '{record.parent}': {error}", stacklevel=3)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Torch's packager and loader warn of their own deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
