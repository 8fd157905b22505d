"""The tensor track on the CPU: compiled kernels, the same collapsed track in plain torch, and a tensor per edge.

``pytest benchmarks/bench_kernels.py`` measures with pytest-benchmark. ``python benchmarks/bench_kernels.py --table``
prints times and ratios, all methods in one run, and writes them to ``benchmarks/results/``. With ``--peer PYTHON``, an
interpreter that has nequip-allegro, the tensor contraction of that package is timed on the same shapes.

Forward + backward means: scalars of all layers, and the gradients that forces need (edge weights and harmonics).
Training means: a loss of those gradients, and its gradients with respect to path weights, edge weights and harmonics.
Times are the smallest of several repeats; with one thread they are processor time, which other programs on the machine
disturb less than wall time does. Both are written to the file. The spherical harmonics, which no kernel computes, are
timed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from e3nn import o3
from machine import processor
from torch import Tensor

from asenequip.kernels import native, ops
from asenequip.kernels.paths import LayerPaths, component_irrep, harmonics_irreps, layer_paths
from asenequip.kernels.plain import ChainTable

RESULTS = Path(__file__).parent / "results"
ATOMS, NEIGHBORS, LAYERS = 64, 40, 2
METHODS = ("kernels", "plain", "e3nn")


@dataclass
class Problem:
    """Random operands of one track: shapes as in `asenequip.kernels.ops`."""

    layers: tuple[LayerPaths, ...]
    tables: list[ChainTable]
    irrep: Tensor
    ptr: Tensor
    centers: Tensor
    harmonics: Tensor
    embedding: Tensor
    env_weights: list[Tensor]
    path_weights: list[Tensor]

    @property
    def per_edge(self) -> list[Tensor]:
        return [self.harmonics, self.embedding, *self.env_weights]

    @property
    def leaves(self) -> list[Tensor]:
        return [*self.per_edge, *self.path_weights]


def problem(l_max: int, channels: int, atoms: int = ATOMS, device: str = "cpu") -> Problem:
    generator = torch.Generator().manual_seed(0)
    layers = layer_paths(l_max, LAYERS, False)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    edges, size = atoms * NEIGHBORS, (l_max + 1) ** 2
    return Problem(
        layers,
        [ChainTable(layer, device) for layer in layers],
        torch.tensor(component_irrep(harmonics_irreps(l_max)), device=device),
        torch.arange(atoms + 1, device=device) * NEIGHBORS,
        torch.arange(atoms, device=device).repeat_interleave(NEIGHBORS),
        draw(edges, size),
        draw(edges, l_max + 1, channels),
        [draw(edges, l_max + 1, channels) for _ in layers],
        [draw(len(layer.paths), channels) for layer in layers],
    )


def collapsed(x: Problem) -> list[Tensor]:
    """Scalars of every layer, one operator per (atom, channel)."""
    environments, scalars = [], []
    for k, table in enumerate(x.tables):
        environments.append(ops.env_sum(x.env_weights[k], x.harmonics, x.irrep, x.ptr, x.centers))
        vector = environments[k].new_zeros(environments[k].shape[0], table.dim_out, x.embedding.shape[2])
        vector[:, 0] = 1
        for back in range(k, -1, -1):
            vector = ops.chain(x.path_weights[back], environments[back], vector, x.tables[back])
        scalars.append(ops.edge_dot(x.embedding, x.harmonics, vector, x.irrep, x.ptr, x.centers))
    return scalars


def tensor_products(x: Problem) -> list[o3.TensorProduct]:
    """e3nn's channel-wise tensor product of each layer, its weights given from outside."""
    channels = x.embedding.shape[2]
    products = []
    for layer in x.layers:
        groups = (layer.irreps_in, layer.irreps_env, layer.irreps_out)
        irreps = [o3.Irreps([(channels, ir) for ir in group]) for group in groups]
        instructions = [(a, b, c, "uuu", True) for a, b, c in layer.paths]
        products.append(o3.TensorProduct(*irreps, instructions, shared_weights=True, internal_weights=False))
    return products


def per_edge(x: Problem, products: list[o3.TensorProduct]) -> list[Tensor]:
    """Scalars of every layer, with the tensor of each edge formed by e3nn (path normalisation is e3nn's own)."""
    edges = x.harmonics.shape[0]
    orders = range(len(x.layers[0].irreps_env))

    def layout(weights: Tensor) -> Tensor:
        blocks = [
            (weights[:, l, :, None] * x.harmonics[:, None, l * l : (l + 1) ** 2]).reshape(edges, -1) for l in orders
        ]
        return torch.cat(blocks, dim=1)

    features, scalars = layout(x.embedding), []
    for k, product in enumerate(products):
        terms = layout(x.env_weights[k])
        environment = terms.new_zeros(x.ptr.shape[0] - 1, terms.shape[1]).index_add(0, x.centers, terms)
        features = product(features, environment[x.centers], x.path_weights[k].flatten())
        scalars.append(features[:, : x.embedding.shape[2]])
    return scalars


def task(method: str, x: Problem) -> Callable[[], list[Tensor]]:
    """The forward pass of a method."""
    if method == "e3nn":
        products = tensor_products(x)
        return lambda: per_edge(x, products)

    def forward() -> list[Tensor]:
        with ops.use_backend("native" if method == "kernels" else "plain"):
            return collapsed(x)

    return forward


def forces(x: Problem, forward: Callable[[], list[Tensor]]) -> None:
    scalars = torch.stack(forward())
    torch.autograd.grad(scalars.square().sum(), x.per_edge)


def training(x: Problem, forward: Callable[[], list[Tensor]]) -> None:
    scalars = torch.stack(forward())
    gradients = torch.autograd.grad(scalars.square().sum(), x.per_edge, create_graph=True)
    torch.autograd.grad(sum(g.square().sum() for g in gradients), x.leaves)


def harmonics(edges: int, l_max: int) -> Callable[[], None]:
    """Spherical harmonics of unit vectors and their gradient, as the model takes them: what the track starts from."""
    from asenequip.model.angular import spherical_harmonics

    vectors = torch.randn(edges, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()

    def step() -> None:
        unit = vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        torch.autograd.grad(spherical_harmonics(unit, l_max).to(torch.float32).sum(), vectors)

    return step


def best(step: Callable[[], None], seconds: float, fewest: int = 3) -> dict[str, float]:
    """Shortest wall and processor time of one call, in milliseconds, over repeats filling ``seconds``."""
    step()
    wall, processor = [], []
    end = time.perf_counter() + seconds
    while len(wall) < fewest or time.perf_counter() < end:
        start, busy = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - busy)
    return {"wall_ms": 1e3 * min(wall), "processor_ms": 1e3 * min(processor)}


def hardware() -> dict[str, object]:
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    return {"cpu": processor(), "cores": os.cpu_count(), "threads": threads, "load": load}


_PEER = r"""
import json, sys, time, torch
from allegro.nn._strided import Contracter
torch.set_num_threads(1)
given = json.load(sys.stdin)
layers = [
    Contracter(*([(1, tuple(ir)) for ir in group] for group in groups), given["channels"], paths)
    for *groups, paths in given["layers"]
]
edges, atoms, u = given["edges"], given["atoms"], given["channels"]
size = sum(2 * l + 1 for l, _ in given["layers"][0][1])
centers = torch.arange(atoms).repeat_interleave(edges // atoms)
first = torch.randn(edges, u, size, requires_grad=True)
others = [torch.randn(atoms, u, size, requires_grad=True) for _ in layers]
def step():
    x, scalars = first, []
    for layer, other in zip(layers, others):
        x = layer(x, other, centers)
        scalars.append(x.reshape(edges, u, -1)[:, :, 0])
    torch.autograd.grad(torch.stack(scalars).square().sum(), [first, *others])
wall, processor = [], []
step()
end = time.perf_counter() + given["seconds"]
while len(wall) < 3 or time.perf_counter() < end:
    start, busy = time.perf_counter(), time.process_time()
    step()
    wall.append(time.perf_counter() - start)
    processor.append(time.process_time() - busy)
from importlib.metadata import version
print(json.dumps({
    "forces": {"wall_ms": 1e3 * min(wall), "processor_ms": 1e3 * min(processor)},
    "version": version("nequip-allegro"), "torch": torch.__version__,
}))
"""


def peer(python: str, x: Problem, seconds: float) -> dict[str, object]:
    """nequip-allegro's contraction (without the weighting and summing of the environment) on the same shapes."""
    given = {
        "layers": [(layer.irreps_in, layer.irreps_env, layer.irreps_out, layer.paths) for layer in x.layers],
        "channels": x.embedding.shape[2],
        "edges": x.harmonics.shape[0],
        "atoms": x.ptr.shape[0] - 1,
        "seconds": seconds,
    }
    done = subprocess.run([python, "-c", _PEER], input=json.dumps(given), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"The peer's interpreter failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def table(arguments: argparse.Namespace) -> None:
    """Measure every row, print times in milliseconds and ratios to the kernels, and write the file after each.

    Rows of the file for other sizes stay, if they are of the same versions.
    """
    torch.set_num_threads(arguments.threads)
    clock = "processor_ms" if arguments.threads == 1 else "wall_ms"
    versions = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "compiler": native.toolchain().splitlines()[0],
    }
    sizes = {"atoms": ATOMS, "neighbors": NEIGHBORS, "layers": LAYERS, "dtype": "float32", "clock": clock}
    rows = kept_rows(arguments.output, versions)
    sys.stdout.write(f"{'l_max':>5}{'U':>5} | {'forward + backward, ms (ratio to kernels)':<104} | training\n")
    for l_max in arguments.l_max:
        for channels in arguments.channels:
            row = measured(l_max, channels, arguments)
            rows[l_max, channels] = row
            sys.stdout.write(line(row, clock) + "\n")
            sys.stdout.flush()
            found = {"hardware": hardware(), "versions": versions, **sizes, "rows": [rows[k] for k in sorted(rows)]}
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def kept_rows(path: Path, versions: dict[str, str]) -> dict[tuple[int, int], dict]:
    """Rows of an earlier run by (l_max, channels); none if its versions were others."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {(row["l_max"], row["channels"]): row for row in found["rows"]} if found["versions"] == versions else {}


def measured(l_max: int, channels: int, arguments: argparse.Namespace) -> dict[str, object]:
    """All methods on one size."""
    x = problem(l_max, channels)
    row: dict[str, object] = {"l_max": l_max, "channels": channels}
    for method in METHODS:
        row[method] = timings(method, x, arguments.seconds)
    row["harmonics"] = {"forces": best(harmonics(ATOMS * NEIGHBORS, l_max), arguments.seconds)}
    if arguments.peer:
        row["nequip-allegro"] = peer(arguments.peer, x, arguments.seconds)
    return row


def timings(method: str, x: Problem, seconds: float) -> dict[str, dict[str, float]]:
    forward = task(method, x)
    found = {"forces": best(lambda: forces(x, forward), seconds)}
    if method != "e3nn":
        found["training"] = best(lambda: training(x, forward), seconds)
    return found


def line(row: dict, clock: str) -> str:
    base = row["kernels"]["forces"][clock]
    parts = [f"kernels {base:.2f}"]
    for method in ("plain", "e3nn", "nequip-allegro", "harmonics"):
        if method in row:
            value = row[method]["forces"][clock]
            parts.append(f"{method} {value:.1f} ({value / base:.1f}x)")
    slow, fast = (row[method]["training"][clock] for method in ("plain", "kernels"))
    trained = f"kernels {fast:.2f}, plain {slow:.1f} ({slow / fast:.1f}x)"
    return f"{row['l_max']:>5}{row['channels']:>5} | {', '.join(parts):<104} | {trained}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print ratios (the default, and the only mode here)")
    parser.add_argument("--l-max", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="time spent repeating each measurement")
    parser.add_argument("--peer", help="Python interpreter of an environment with nequip-allegro")
    parser.add_argument("--output", type=Path, default=RESULTS / "kernels_cpu.json")
    arguments = parser.parse_args()
    table(arguments)
    sys.stdout.write(f"written to {arguments.output}\n")


@pytest.mark.parametrize("channels", [32, 64, 128])
@pytest.mark.parametrize("l_max", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["forces", "training"])
def test_track(benchmark, kind, method, l_max, channels):
    if kind == "training" and method == "e3nn":
        pytest.skip("e3nn's compiled tensor product is compared on forces only")
    torch.set_num_threads(1)
    x = problem(l_max, channels)
    forward = task(method, x)
    step = forces if kind == "forces" else training
    step(x, forward)  # compiles
    benchmark.group = f"{kind}, l_max {l_max}, U {channels}"
    benchmark(step, x, forward)


if __name__ == "__main__":
    main()
