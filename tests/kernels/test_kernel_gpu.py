"""Kernels on a GPU: numbers of the CPU, streams, devices, graphs, sizes at the edge, tracers. They skip without one."""

from __future__ import annotations

import functools
import os

import kernel_cases as cases
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from asenequip.kernels import cuda, nvrtc, ops
from asenequip.kernels import polynomial as forms
from asenequip.kernels.evaluate import evaluate
from asenequip.kernels.paths import layer_paths
from asenequip.kernels.plain import ChainTable

TOLERANCE = 1e-12
"""Relative, float64: the same sums in another order."""
SINGLE_TOLERANCE = 5e-6
"""The same in float32."""

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if torch.cuda.is_available():
        return
    if os.environ.get("ASENEQUIP_REQUIRE_GPU") == "1":
        pytest.fail("ASENEQUIP_REQUIRE_GPU=1, but torch finds no CUDA device.")
    pytest.skip("torch finds no CUDA device")


def _on(device: str, x: cases.Operands) -> cases.Operands:
    """The operands on a device, as leaves of their own."""
    leaves = [t.detach().to(device).requires_grad_() for t in (x.weights, x.harmonics, x.atom)]
    return cases.Operands(*leaves, *(t.to(device) for t in x.edges))


@functools.lru_cache(maxsize=8)
def _table(device: torch.device) -> ChainTable:
    """Made once: a graph cannot capture the copy of a table to the GPU."""
    return ChainTable(layer_paths(2, 2, False)[0], device)


def _track(x: cases.Operands) -> torch.Tensor:
    """The three operations one after the other: environment, chain, dot."""
    table = _table(x.atom.device)
    paths = torch.linspace(-1, 1, table.num_paths, dtype=x.atom.dtype, device=x.atom.device)
    environment = ops.env_sum(x.weights, x.harmonics, *x.edges)
    operator = ops.chain(paths[:, None], environment, x.atom, table)
    return ops.edge_dot(x.weights, x.harmonics, operator, *x.edges)


def _derivatives(x: cases.Operands, order: int = 2) -> list[torch.Tensor]:
    with ops.use_backend("native"):
        return cases.derivatives(_track(x), (x.weights, x.harmonics, x.atom), order)


def test_cupy_fits_torch():
    assert cuda.problem() is None


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 16, 32, 48, 64, 100, 128, 300])
@pytest.mark.parametrize("l_max", [0, 1, 2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_every_kernel_equals_plain_operations(l_max, channels, shared):
    for name, polynomial in nvrtc.model_kernels(l_max, 2, False, shared).items():
        operands, ptr = cases.random_operands(polynomial, channels, seed=1, counts=(0, 9, 1, 17, 0))
        on_gpu = [t.cuda() for t in operands]
        found = torch.ops.asenequip.polynomial(on_gpu, None if ptr is None else ptr.cuda(), polynomial.text)
        error = cases.largest_error([t.cpu() for t in found], evaluate(polynomial, operands, ptr))
        assert error < TOLERANCE, name


@pytest.mark.parametrize("counts", [(), (0,), (0, 0, 0), (1,), (0, 1), cases.RAGGED], ids=str)
def test_second_derivatives_equal_those_of_the_cpu(counts):
    x = cases.operands(2, 48, seed=2, counts=counts)
    found = [t.cpu() for t in _derivatives(_on("cuda", x))]
    assert cases.largest_error(found, _derivatives(x)) < TOLERANCE


def test_bfloat16_weights_and_their_gradients_equal_those_of_the_cpu():
    x = cases.operands(2, 100, seed=3, dtype=torch.float32)
    results = []
    for device in ("cpu", "cuda"):
        on = _on(device, x)
        on.weights = x.weights.detach().to(device, torch.bfloat16).requires_grad_()
        with ops.use_backend("native"):
            value = ops.edge_dot(on.weights, on.harmonics, on.atom, *on.edges)
        gradients = torch.autograd.grad(value.sum(), (on.weights, on.harmonics, on.atom))
        results.append([t.detach().float().cpu() for t in (value, *gradients)])
    for expected, found in zip(*results, strict=True):
        # Gradients of the weights are rounded once to bfloat16, of float32 sums that may differ in their last bits.
        torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-5)


def test_results_repeat_bit_for_bit():
    x = _on("cuda", cases.operands(2, 64, seed=4, counts=(40,) * 300, dtype=torch.float32))
    first = _derivatives(x)
    assert all(torch.equal(a, b) for _ in range(3) for a, b in zip(first, _derivatives(x), strict=True))


def test_kernels_run_on_the_current_stream():
    x = _on("cuda", cases.operands(2, 64, seed=5, counts=(40,) * 2000, dtype=torch.float32))
    expected = [t.clone() for t in _derivatives(x, 1)]
    side = torch.cuda.Stream()
    weights = torch.zeros_like(x.weights)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        # Only work queued on the same stream waits for the delayed copy.
        torch.cuda._sleep(200_000_000)
        weights.copy_(x.weights.detach())
        x.weights = weights.requires_grad_()
        found = _derivatives(x, 1)
    side.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_kernels_run_on_any_device_whatever_the_current_one():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x = cases.operands(2, 64, seed=6, dtype=torch.float32)
    last = f"cuda:{torch.cuda.device_count() - 1}"
    with torch.cuda.device(0):
        results = [_derivatives(_on(device, x)) for device in ("cuda:0", last)]
        assert torch.cuda.current_device() == 0
    assert {t.device for t in results[1]} == {torch.device(last)}
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(*results, strict=True))


def test_operands_on_two_devices_are_refused():
    x = _on("cuda", cases.operands(1, 8, seed=7))
    with pytest.raises((ValueError, RuntimeError), match=r"on cuda|same device"):
        ops.env_sum(x.weights.detach(), x.harmonics.detach(), x.irrep, x.ptr.cpu(), x.centers)


def test_forces_are_captured_in_a_graph_and_follow_its_inputs():
    x = _on("cuda", cases.operands(2, 64, seed=8, counts=(30,) * 50, dtype=torch.float32))
    expected = [t.clone() for t in _derivatives(x, 1)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        _derivatives(x, 1)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _derivatives(x, 1)
    with torch.no_grad():
        x.weights.neg_()
    graph.replay()
    # Every path of the track takes an even number of edge weights.
    assert torch.equal(captured[0], expected[0])
    assert torch.equal(captured[1], -expected[1])


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
def test_capture_before_the_first_run_is_refused_with_the_remedy():
    x = _on("cuda", cases.operands(1, 8, seed=12))
    # A polynomial of its own, so that no other test has compiled it.
    form = forms.EdgeForm((1, 0, 0, 1), 2)
    graph = torch.cuda.CUDAGraph()
    arguments = ([x.weights.detach(), x.harmonics.detach()], x.ptr, forms.env_sum(form).text)
    with pytest.raises(RuntimeError, match="Run the computation once"), torch.cuda.graph(graph):
        torch.ops.asenequip.polynomial(*arguments)
    assert torch.ops.asenequip.polynomial(*arguments)[0].shape == x.atom.shape


def test_more_than_two_to_the_31_numbers_are_addressed():
    channels, edges = 64, 2**31 // 64 // 2 + 100
    needed = 2 * edges * 2 * channels * 2 + edges * channels * 4
    if torch.cuda.mem_get_info()[0] < 1.5 * needed:
        pytest.skip("needs 30 GB of GPU memory")
    weights = torch.zeros(edges, 2, channels, dtype=torch.bfloat16, device="cuda")
    weights[-1] = torch.arange(2 * channels, device="cuda").reshape(2, channels)
    assert weights.numel() > 2**31
    irrep = torch.tensor([0, 1, 1, 1], device="cuda")
    ptr = torch.tensor([0, edges - 1, edges], device="cuda")
    harmonics = torch.ones(edges, 4, device="cuda")
    found = ops.env_sum(weights, harmonics, irrep, ptr, torch.empty(0, device="cuda"))
    expected = torch.arange(2 * channels, device="cuda").reshape(2, channels)[irrep].float()
    assert torch.equal(found[1], expected)
    assert not found[0].any()
    projected = ops.edge_dot(weights, harmonics, found, irrep, ptr, torch.empty(0, device="cuda"))
    assert torch.equal(projected[-1], (expected * expected).sum(0))


@pytest.mark.parametrize("l_max", [1, 3])
def test_gradcheck_and_gradgradcheck(l_max):
    x = _on("cuda", cases.operands(l_max, 2, seed=9, counts=(2, 0, 1)))

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        return ops.edge_dot(*tensors, *x.edges)

    inputs = (x.weights, x.harmonics, x.atom)
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def _forces(weights, harmonics, atom, irrep, ptr, centers):
    leaves = [t.detach().requires_grad_() for t in (weights, harmonics, atom)]
    value = _track(cases.Operands(*leaves, irrep, ptr, centers)).tanh().sum()
    return torch.autograd.grad(value, leaves)


def _flat(counts: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    x = _on("cuda", cases.operands(2, 12, seed=10, counts=counts))
    return (*(t.detach() for t in (x.weights, x.harmonics, x.atom)), *x.edges)


def test_symbolic_trace_holds_for_other_sizes():
    traced = make_fx(_forces, tracing_mode="symbolic")(*_flat((3, 0, 2, 5)))
    inputs = _flat((1, 7, 4, 4, 0, 2))
    assert cases.largest_error(list(traced(*inputs)), list(_forces(*inputs))) < TOLERANCE


@pytest.mark.filterwarnings("ignore")  # torch's packager warns of its own deprecations
def test_compiled_gradient_and_ahead_of_time_package_equal_eager(tmp_path):
    inputs = _flat((3, 0, 2, 5))
    expected = list(_forces(*inputs))
    traced = make_fx(_forces, tracing_mode="real")(*inputs)
    compiled = torch.compile(traced, fullgraph=True)
    assert cases.largest_error(list(compiled(*inputs)), expected) < TOLERANCE
    exported = torch.export.export(traced, inputs)
    path = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "track.pt2"))
    assert cases.largest_error(list(torch._inductor.aoti_load_package(path)(*inputs)), expected) < TOLERANCE


@pytest.mark.parametrize("name", sorted(nvrtc.model_kernels(1, 2, False, False)))
def test_opcheck_of_every_kernel(name):
    polynomial = nvrtc.model_kernels(1, 2, False, False)[name]
    operands, ptr = cases.random_operands(polynomial, 6, seed=1, counts=(0, 9, 1))
    on_gpu = [t.cuda().requires_grad_() for t in operands]
    arguments = (on_gpu, None if ptr is None else ptr.cuda(), polynomial.text)
    torch.library.opcheck(torch.ops.asenequip.polynomial.default, arguments)


def test_hessian_through_kernels_is_symmetric():
    x = _on("cuda", cases.operands(1, 4, seed=11, counts=(3, 2)))
    harmonics = x.harmonics
    with ops.use_backend("native"):
        atom = ops.env_sum(x.weights, harmonics, *x.edges)
        value = ops.edge_dot(x.weights, harmonics, atom * atom, *x.edges).sum()
        (gradient,) = torch.autograd.grad(value, harmonics, create_graph=True)
        rows = [torch.autograd.grad(g, harmonics, retain_graph=True)[0].flatten() for g in gradient.flatten()]
    hessian = torch.stack(rows)
    assert float(hessian.abs().max()) > 1e-3
    assert float((hessian - hessian.T).abs().max()) < TOLERANCE * float(hessian.abs().max())


def test_forms_of_other_layers_run_too():
    for layer in layer_paths(3, 3, True):
        polynomial = forms.orders(forms.chain(forms.ChainForm(layer)), 1)[-1]
        operands, _ = cases.random_operands(polynomial, 64, seed=2, counts=(1,) * 5)
        found = torch.ops.asenequip.polynomial([t.cuda() for t in operands], None, polynomial.text)
        assert cases.largest_error([t.cpu() for t in found], evaluate(polynomial, operands, None)) < TOLERANCE
