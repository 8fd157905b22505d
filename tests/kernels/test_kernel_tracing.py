"""The kernel operator under torch's tracers: traced and compiled graphs against eager runs."""

from __future__ import annotations

import kernel_cases as cases
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from asenequip.kernels import native, ops
from asenequip.kernels import polynomial as forms
from asenequip.kernels.nvrtc import model_kernels
from asenequip.kernels.paths import layer_paths
from asenequip.kernels.plain import ChainTable

TOLERANCE = 1e-12
"""Relative, float64: the same kernels run in both, so only sums that a compiler reorders may differ."""
LAYER = layer_paths(2, 2, False)[0]
TABLE = ChainTable(LAYER)

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler to build CPU kernels with")


def _operands_of(
    polynomial: forms.Polynomial, channels: int, seed: int
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    if isinstance(polynomial.form, forms.EdgeForm):
        x = cases.operands(1, channels, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        shapes = [(x.weights.shape[0], channels), x.weights.shape, x.harmonics.shape, x.atom.shape]
        ptr: torch.Tensor | None = x.ptr
    else:
        generator = torch.Generator().manual_seed(seed)
        sizes = polynomial.form.sizes
        shapes = [(sizes[0], channels), *((5, size, channels) for size in sizes[1:])]
        ptr = None
    draw = [torch.randn(shapes[k], generator=generator, dtype=torch.float64) for k in polynomial.operands]
    return [t.requires_grad_() for t in draw], ptr


@pytest.mark.parametrize("name", sorted(model_kernels(1, 2, False, False)))
def test_opcheck_of_every_kernel(name):
    polynomial = model_kernels(1, 2, False, False)[name]
    inputs, ptr = _operands_of(polynomial, 6, seed=1)
    torch.library.opcheck(torch.ops.asenequip.polynomial.default, (inputs, ptr, polynomial.text))


@pytest.mark.parametrize("name", sorted(model_kernels(2, 3, True, False)))
def test_text_and_descriptor_are_inverse(name):
    polynomial = model_kernels(2, 3, True, False)[name]
    assert forms.parse(polynomial.text) == polynomial


def _track(path_weights, vector, weights, harmonics, ptr, centers, irrep):
    environment = ops.env_sum(weights, harmonics, irrep, ptr, centers)
    operator = ops.chain(path_weights, environment, vector, TABLE)
    return ops.edge_dot(weights, harmonics, operator, irrep, ptr, centers)


def _inputs(counts: tuple[int, ...], channels: int = 12):
    x = cases.operands(2, channels, seed=3, counts=counts)
    paths, _, _ = cases.chain_operands(LAYER, channels, seed=4)
    vector = torch.ones(len(counts), 9, channels, dtype=torch.float64)
    tensors = (paths, vector, x.weights, x.harmonics)
    return (*(t.detach() for t in tensors), x.ptr, x.centers, x.irrep)


def _forces(paths, vector, weights, harmonics, ptr, centers, irrep):
    weights, harmonics = weights.detach().requires_grad_(), harmonics.detach().requires_grad_()
    value = _track(paths, vector, weights, harmonics, ptr, centers, irrep).tanh().sum()
    return torch.autograd.grad(value, (weights, harmonics))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_traced_gradient_runs_at_the_traced_sizes(mode):
    inputs = _inputs((3, 0, 2, 5))
    traced = make_fx(_forces, tracing_mode=mode)(*inputs)
    assert cases.largest_error(list(traced(*inputs)), list(_forces(*inputs))) < TOLERANCE


def test_symbolic_trace_holds_for_other_numbers_of_atoms_and_edges():
    traced = make_fx(_forces, tracing_mode="symbolic")(*_inputs((3, 0, 2, 5)))
    inputs = _inputs((1, 7, 4, 4, 0, 2))
    assert cases.largest_error(list(traced(*inputs)), list(_forces(*inputs))) < TOLERANCE


def test_traced_gradient_is_made_of_kernel_calls():
    traced = make_fx(_forces, tracing_mode="symbolic")(*_inputs((3, 0, 2, 5)))
    targets = [node.target for node in traced.graph.nodes]
    # Three forward calls, three backward calls: nothing fell back to plain operations.
    assert targets.count(torch.ops.asenequip.polynomial.default) == 6
    assert not any("index" in str(t) for t in targets)


class _Calls(TorchDispatchMode):
    """Counts the calls of the operator that the dispatcher sees."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func is torch.ops.asenequip.polynomial.default
        return func(*args, **(kwargs or {}))


def test_modes_see_every_call_and_nobody_else_is_asked():
    inputs = _inputs((3, 0, 2, 5))
    alone = list(_forces(*inputs))
    with _Calls() as seen:
        watched = list(_forces(*inputs))
    assert seen.number == 6
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))


def test_forward_mode_and_vmap_are_refused_rather_than_wrong():
    *tensors, ptr, centers, irrep = _inputs((3, 0, 2, 5))
    stacked = torch.stack([tensors[2], 2 * tensors[2]])
    with pytest.raises(RuntimeError):
        torch.func.vmap(lambda w: _track(*tensors[:2], w, tensors[3], ptr, centers, irrep))(stacked)


def test_compiled_track_equals_eager_for_changing_sizes():
    compiled = torch.compile(_track, fullgraph=True, backend="aot_eager", dynamic=True)
    for counts in ((3, 0, 2, 5), (1, 7, 4, 4, 0, 2)):
        inputs = _inputs(counts)
        assert cases.largest_error([compiled(*inputs)], [_track(*inputs)]) < TOLERANCE


@pytest.mark.slow
def test_inductor_compiles_the_traced_gradient():
    inputs = _inputs((3, 0, 2, 5))
    traced = make_fx(_forces, tracing_mode="symbolic")(*inputs)
    compiled = torch.compile(traced, fullgraph=True, dynamic=True)
    assert cases.largest_error(list(compiled(*inputs)), list(_forces(*inputs))) < TOLERANCE


class _Track(torch.nn.Module):
    def forward(self, *inputs):
        return _track(*inputs)


def test_exported_track_equals_eager():
    inputs = _inputs((3, 0, 2, 5))
    exported = torch.export.export(_Track(), inputs)
    assert cases.largest_error([exported.module()(*inputs)], [_track(*inputs)]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's packager warns of its own deprecations
def test_ahead_of_time_package_equals_eager(tmp_path):
    inputs = _inputs((3, 0, 2, 5))
    traced = make_fx(_forces, tracing_mode="real")(*inputs)
    exported = torch.export.export(traced, inputs)
    path = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "track.pt2"))
    loaded = torch._inductor.aoti_load_package(path)
    assert cases.largest_error(list(loaded(*inputs)), list(_forces(*inputs))) < TOLERANCE
