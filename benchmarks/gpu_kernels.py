"""What `gpu.py` runs on a device: checks of every kernel, times of kernels and of the whole track, times of peers.

Everything takes the device from a `Machine`, so that the same code runs on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from bench_kernels import Problem, collapsed, problem
from torch import Tensor

from asenequip.kernels import cuda, native, nvrtc, ops
from asenequip.kernels.evaluate import evaluate
from asenequip.kernels.library import polynomial as call
from asenequip.kernels.polynomial import EdgeForm, Polynomial

NEIGHBORS = 40
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5}
"""Relative to the largest entry of an output, against float64."""
TRACK_CHANNELS = 64
PEERS = ("triton", "cuequivariance", "torch")
"""Forms of nequip-allegro's contraction: its Triton kernel, cuEquivariance's, and plain torch operations."""
Case = tuple[list[Tensor], Tensor | None]


@dataclass(frozen=True)
class Machine:
    """Where things run: "cuda", or "cpu", which has neither streams nor graphs."""

    device: str

    def milliseconds(self, step: Callable[[], object], seconds: float = 0.05) -> float:
        """Shortest time of one call over repeats that fill ``seconds``, at least five."""
        for _ in range(3):
            step()
        self.wait()
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < end:
            times.append(self._one(step))
        return min(times)

    def _one(self, step: Callable[[], object]) -> float:
        if self.device == "cpu":
            start = time.perf_counter()
            step()
            return 1e3 * (time.perf_counter() - start)
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        step()
        after.record()
        after.synchronize()
        return before.elapsed_time(after)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def aside(self, step: Callable[[], list[Tensor]]) -> list[Tensor]:
        """The result of a call on a stream of its own."""
        if self.device == "cpu":
            return step()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            found = step()
        torch.cuda.current_stream().wait_stream(side)
        return found

    def captured(self, step: Callable[[], list[Tensor]]) -> tuple[Callable[[], object], list[Tensor]]:
        """A call as a CUDA graph, with its result after one replay."""
        if self.device == "cpu":
            return step, step()
        self.aside(step)  # compiles, and fills the allocator's pools
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = step()
        graph.replay()
        self.wait()
        return graph.replay, found


def operands(polynomial: Polynomial, counts: Tensor, channels: int, dtype: torch.dtype, device: str = "cpu") -> Case:
    """Random operands of a kernel for atoms with the given numbers of neighbours."""
    generator = torch.Generator(device).manual_seed(channels)
    atoms, form = counts.numel(), polynomial.form
    if isinstance(form, EdgeForm):
        edges, size = int(counts.sum()), len(form.irrep)
        shapes = [(edges, channels), (edges, form.num_weights, channels), (edges, size), (atoms, size, channels)]
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(device)
    else:
        shapes = [(form.sizes[0], channels), *((atoms, size, channels) for size in form.sizes[1:])]
        ptr = None
    draw = [torch.randn(shapes[k], generator=generator, dtype=dtype, device=device) for k in polynomial.operands]
    return draw, ptr


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    errors = [(a.cpu().double() - b).abs().max() / b.abs().max().clamp(min=1e-30) for a, b in pairs]
    return float(torch.stack(errors).max())  # NaN if any entry is


def compile_all(kernels: list[tuple[Polynomial, torch.dtype]], device: str) -> float:
    """Compile kernels, as many at a time as there are cores; seconds that it took."""
    start = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        if device == "cpu":
            list(pool.map(lambda k: native.load(k[0].text, k[1]), kernels))
        else:
            index = torch.cuda.current_device()
            list(pool.map(lambda k: cuda.load(k[0].text, k[1], index), kernels))
    return time.perf_counter() - start


def matrix(l_maxima: list[int], brief: bool) -> Iterator[tuple[int, bool, str, Polynomial]]:
    """(l_max, shared weights, name, kernel) of the models; brief: weights of their own, no second derivatives."""
    for l_max in l_maxima:
        for shared in (False,) if brief else (False, True):
            for name, polynomial in nvrtc.model_kernels(l_max, 2, False, shared).items():
                if not (brief and name.endswith("double backward")):
                    yield l_max, shared, name, polynomial


def check_kernel(machine: Machine, polynomial: Polynomial, channels: int, dtype: torch.dtype) -> dict[str, object]:
    """One kernel on ragged atoms: error against float64, repeatability, another stream, a CUDA graph."""
    counts = torch.tensor([0, 9, 1, 70, 0, 33])
    exact, ptr = operands(polynomial, counts, channels, torch.float64)
    given = [t.to(machine.device, dtype) for t in exact]
    on_device = None if ptr is None else ptr.to(machine.device)

    def step() -> list[Tensor]:
        return call(given, on_device, polynomial.text)

    first, again, aside = step(), step(), machine.aside(step)
    _, captured = machine.captured(step)
    worst = error(first, evaluate(polynomial, [t.cpu().double() for t in given], ptr))
    same = all(torch.equal(a, b) for other in (again, aside, captured) for a, b in zip(first, other, strict=True))
    return {"error": worst, "same_bits": same, "passed": same and worst < TOLERANCES[dtype]}


def check(machine: Machine, l_maxima: list[int], channels: list[int], brief: bool) -> Iterator[dict[str, object]]:
    """Every kernel of models with these l_max."""
    # Outputs start as NaN here, so that an entry which a kernel forgets is seen.
    torch.use_deterministic_algorithms(True)
    try:
        for l_max, shared, name, polynomial in matrix(l_maxima, brief):
            for dtype in (torch.float64,) if brief else TOLERANCES:
                for number in channels:
                    label = {"l_max": l_max, "shared": shared, "kernel": name, "dtype": str(dtype), "channels": number}
                    yield {**label, **check_kernel(machine, polynomial, number, dtype)}
    finally:
        torch.use_deterministic_algorithms(False)


def copy_bandwidth(machine: Machine, numbers: int) -> float:
    """Bytes per second of a copy of so many float32 numbers, reading and writing counted."""
    source = torch.empty(numbers, device=machine.device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / (1e-3 * machine.milliseconds(lambda: target.copy_(source), 0.5))


def time_primitives(
    machine: Machine, bandwidth: float, edges: int, l_maxima: list[int], channels: list[int], brief: bool
) -> Iterator[dict[str, object]]:
    """Each kernel's time, without its launch, and its floor: all operands read once and all outputs written once."""
    counts = torch.full((edges // NEIGHBORS,), NEIGHBORS)
    for number in channels:
        for l_max, _, name, polynomial in matrix(l_maxima, brief):
            given, ptr = operands(polynomial, counts, number, torch.float32, machine.device)

            def step(given=given, ptr=ptr, text=polynomial.text) -> list[Tensor]:
                return call(given, ptr, text)

            replay, found = machine.captured(step)
            size = sum(t.numel() * t.element_size() for t in (*given, *found))
            taken, floor = machine.milliseconds(replay), 1e3 * size / bandwidth
            row = {"kernel": name, "edges": edges, "l_max": l_max, "channels": number}
            yield {**row, "ms": taken, "floor_ms": floor, "of_floor_speed": floor / taken}


def time_track(machine: Machine, bandwidth: float, edges: int, l_max: int) -> dict[str, object]:
    """Scalars and the gradients that forces need, U = 64: kernels (captured and not), plain torch operations, peers."""
    x = problem(l_max, TRACK_CHANNELS, edges // NEIGHBORS, machine.device)
    row: dict[str, object] = {"edges": edges, "l_max": l_max, "channels": TRACK_CHANNELS}

    def step() -> list[Tensor]:
        return list(torch.autograd.grad(torch.stack(collapsed(x)).sum(), x.per_edge))

    with ops.use_backend("native"):
        row["kernels_ms"] = machine.milliseconds(step)
        replay, _ = machine.captured(step)
        row["kernels_in_graph_ms"] = machine.milliseconds(replay)
        row["floor_ms"] = 1e3 * track_bytes(x) / bandwidth
        scalars = [s.detach() for s in collapsed(x)]
    del replay
    with ops.use_backend("plain"):
        row["plain_ms"], row["plain_failure"] = guarded(lambda: machine.milliseconds(step))
    for kind in PEERS:
        found, failure = guarded(lambda kind=kind: time_peer(machine, x, kind, scalars))
        row[f"peer_{kind}"] = found if failure is None else failure
    return row


def track_bytes(x: Problem) -> int:
    """Bytes of `time_track`'s step if nothing is read or written twice between the kernels of one pass.

    Forward: per layer, the environment's weights, the embedding's weights and the scalars. Backward: the same read
    again, and the gradients of all weights and harmonics written.
    """
    scalars = len(x.layers) * x.embedding.shape[0] * x.embedding.shape[2]
    weights = sum(t.numel() for t in x.env_weights) + len(x.layers) * x.embedding.numel()
    harmonics = 2 * len(x.layers) * x.harmonics.numel()
    outputs = sum(t.numel() for t in x.per_edge)
    return 4 * (2 * (weights + harmonics + scalars) + outputs)


def guarded(step: Callable[[], object]) -> tuple[object, str | None]:
    """The result, or None and why there is none: a peer that is missing, or too little memory."""
    try:
        return step(), None
    except Exception as failure:  # noqa: BLE001  a peer may fail in any way, which is then the result
        lines = str(failure).splitlines()
        reason = f"{type(failure).__name__}: {lines[0] if lines else ''}"
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None, reason


def time_peer(machine: Machine, x: Problem, kind: str, scalars: list[Tensor]) -> dict[str, float]:
    """nequip-allegro's track, which forms a tensor per edge, in its own layout (z, u, i); deviation from ours."""
    layers = [peer_layer(x, k, kind).to(machine.device) for k in range(len(x.layers))]
    harmonics = x.harmonics.detach().requires_grad_()
    embedding, *env_weights = (
        t.detach().transpose(1, 2).contiguous().requires_grad_() for t in (x.embedding, *x.env_weights)
    )

    def forward() -> list[Tensor]:
        features, found = embedding[:, :, x.irrep] * harmonics.unsqueeze(1), []
        for layer, weights in zip(layers, env_weights, strict=True):
            terms = weights[:, :, x.irrep] * harmonics.unsqueeze(1)
            environment = terms.new_zeros(x.ptr.shape[0] - 1, *terms.shape[1:]).index_add(0, x.centers, terms)
            features = layer(features, environment, x.centers).reshape(*terms.shape[:2], -1)
            found.append(features[:, :, 0])
        return found

    def step() -> list[Tensor]:
        return list(torch.autograd.grad(torch.stack(forward()).sum(), [harmonics, embedding, *env_weights]))

    deviation = error([s.detach() for s in forward()], [s.cpu().double() for s in scalars])
    return {"ms": machine.milliseconds(step), "deviation": deviation}


def peer_layer(x: Problem, k: int, kind: str) -> torch.nn.Module:
    """Layer k with our path weights; the kernel where nequip-allegro itself would use it, else torch operations."""
    from allegro.nn._strided import Contracter

    layer, weights = x.layers[k], x.path_weights[k].detach()
    groups = (layer.irreps_in, layer.irreps_env, layer.irreps_out)
    names = ("irreps_in1", "irreps_in2", "irreps_out")
    given = dict(zip(names, ([(1, ir) for ir in group] for group in groups), strict=True))
    given |= {"mul": weights.shape[1], "instructions": list(layer.paths)}
    made = Contracter(**given)
    if kind == "triton":
        from allegro.nn._strided._flashallegro import TritonContracter

        if made.num_paths > 1 and not made.w3j_is_ij_diagonal:
            made = TritonContracter(**given)
    elif kind == "cuequivariance":
        from allegro.nn._strided._cueq_contracter import CuEquivarianceContracter

        if made.num_paths > 1:
            made = CuEquivarianceContracter(**given)
    made.weights.requires_grad_(False).copy_(weights.T.reshape(made.weights.shape).cpu())
    return made.eval()
