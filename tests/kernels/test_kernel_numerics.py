"""Compiled kernels against dense float64 einsums: values, derivatives, degenerate sizes, determinism."""

from __future__ import annotations

import kernel_cases as cases
import numpy as np
import pytest
import torch

from asenequip.kernels import generate_chain, native, ops
from asenequip.kernels import polynomial as forms
from asenequip.kernels.evaluate import evaluate
from asenequip.kernels.generate import DOUBLE, cpu_source
from asenequip.kernels.paths import layer_paths
from asenequip.kernels.plain import ChainTable

TOLERANCE = 1e-12
"""Relative to the largest entry of a tensor: float64 rounding of up to a few thousand terms in another order."""
SINGLE_TOLERANCE = 5e-6
"""The same in float32, second derivatives included."""
CHANNELS = (1, 3, 16, 32, 48, 64, 100, 128)
FEW_CHANNELS = (3, 32, 100)

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler to build CPU kernels with")


def _slow_above(l_max: int, *rest: object) -> object:
    return pytest.param(l_max, *rest, marks=[pytest.mark.slow] if l_max > 2 else [])


def _channel_cases() -> list[object]:
    return [c if c in FEW_CHANNELS else pytest.param(c, marks=pytest.mark.slow) for c in CHANNELS]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("channels", _channel_cases())
@pytest.mark.parametrize("l_max", [_slow_above(l) for l in range(5)])
@pytest.mark.parametrize("name", ["env_sum", "edge_dot"])
def test_edge_operations_equal_einsum_to_second_derivatives(name, l_max, channels, shared):
    x = cases.operands(l_max, channels, seed=l_max + channels, shared=shared)
    if name == "env_sum":
        inputs = (x.weights, x.harmonics)
        expected = cases.env_sum(x)
        with ops.use_backend("native"):
            found = ops.env_sum(x.weights, x.harmonics, *x.edges)
    else:
        inputs = (x.weights, x.harmonics, x.atom)
        expected = cases.edge_dot(x)
        with ops.use_backend("native"):
            found = ops.edge_dot(x.weights, x.harmonics, x.atom, *x.edges)
    error = cases.largest_error(cases.derivatives(found, inputs, 2), cases.derivatives(expected, inputs, 2))
    assert error < TOLERANCE


def _layers() -> list[object]:
    chosen = {}
    for l_max in range(5):
        for number in (1, 2, 3):
            for parity in (False, True):
                for k, layer in enumerate(layer_paths(l_max, number, parity)):
                    slow = l_max > 2 or (l_max == 2 and number == 3)
                    marks = [pytest.mark.slow] if slow else []
                    label = f"l{l_max}-L{number}-{'parity' if parity else 'plain'}-{k}"
                    chosen.setdefault(layer, pytest.param(layer, marks=marks, id=label))
    return list(chosen.values())


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("channels", [3, 100])
@pytest.mark.parametrize("layer", _layers())
def test_chain_equals_dense_einsum_to_second_derivatives(layer, channels, coupled):
    inputs = cases.chain_operands(layer, channels, seed=channels, coupled=coupled)
    with ops.use_backend("native"):
        found = ops.chain(*inputs, ChainTable(layer))
    expected = cases.chain(layer, *inputs)
    error = cases.largest_error(cases.derivatives(found, inputs, 2), cases.derivatives(expected, inputs, 2))
    assert error < TOLERANCE


@pytest.mark.parametrize("most_sums", [1, 12])
def test_sums_split_over_passes_equal_plain_operations(most_sums, monkeypatch):
    monkeypatch.setattr(generate_chain, "_MOST_SUMS", most_sums)
    native.load.cache_clear()
    polynomial = forms.orders(forms.chain(forms.ChainForm(layer_paths(1, 3, True)[1])), 2)[2]
    operands, _ = cases.random_operands(polynomial, 20, seed=1, counts=(1,) * 5)
    try:
        found = torch.ops.asenequip.polynomial(operands, None, polynomial.text)
    finally:
        native.load.cache_clear()
    assert cpu_source(polynomial, DOUBLE).count("for (I a = n") > 2
    assert cases.largest_error(found, evaluate(polynomial, operands, None)) < TOLERANCE


@pytest.mark.parametrize("channels", [5, 64])
def test_third_derivatives_equal_einsum(channels):
    x = cases.operands(1, channels, seed=3)
    inputs = (x.weights, x.harmonics, x.atom)
    with ops.use_backend("native"):
        found = cases.derivatives(ops.edge_dot(*inputs, *x.edges), inputs, 3)
    assert cases.largest_error(found, cases.derivatives(cases.edge_dot(x), inputs, 3)) < TOLERANCE


@pytest.mark.parametrize("channels", [32, 100])
def test_float32_second_derivatives_stay_near_float64(channels):
    exact = cases.operands(2, channels, seed=1)
    single = cases.operands(2, channels, seed=1, dtype=torch.float32)
    with ops.use_backend("native"):
        inputs = (single.weights, single.harmonics, single.atom)
        found = cases.derivatives(ops.edge_dot(*inputs, *single.edges), inputs, 2)
    inputs = (exact.weights, exact.harmonics, exact.atom)
    expected = cases.derivatives(cases.edge_dot(exact), inputs, 2)
    assert cases.largest_error([t.double() for t in found], expected) < SINGLE_TOLERANCE


def _narrowed(channels: int, l_max: int = 2) -> tuple[cases.Operands, cases.Operands]:
    """Float32 operands with bfloat16 weights, and the same in float32 throughout."""
    stored = cases.operands(l_max, channels, seed=2, dtype=torch.float32)
    stored.weights = stored.weights.detach().to(torch.bfloat16).requires_grad_()
    leaves = [t.detach().float().requires_grad_() for t in (stored.weights, stored.harmonics, stored.atom)]
    return stored, cases.Operands(*leaves, *stored.edges)


def _call(name: str, x: cases.Operands) -> torch.Tensor:
    with ops.use_backend("native"):
        if name == "env_sum":
            return ops.env_sum(x.weights, x.harmonics, *x.edges)
        return ops.edge_dot(x.weights, x.harmonics, x.atom, *x.edges)


@pytest.mark.parametrize("channels", [3, 48, 100])
@pytest.mark.parametrize("name", ["env_sum", "edge_dot"])
def test_bfloat16_weights_give_the_float32_sums_of_the_rounded_weights(name, channels):
    stored, wide = _narrowed(channels)
    found = _call(name, stored)
    assert found.dtype == torch.float32
    assert cases.largest_error([found], [getattr(cases, name)(wide)]) < SINGLE_TOLERANCE


@pytest.mark.parametrize("name", ["env_sum", "edge_dot"])
def test_bfloat16_weight_gradient_is_the_float32_gradient_rounded_once(name):
    stored, wide = _narrowed(48)
    found = torch.autograd.grad(cases.generic(_call(name, stored)), (stored.weights, stored.harmonics))
    expected = torch.autograd.grad(cases.generic(getattr(cases, name)(wide)), (wide.weights, wide.harmonics))
    assert [t.dtype for t in found] == [torch.bfloat16, torch.float32]
    # One rounding to eight significant bits, of sums that may differ in float32's last bits.
    torch.testing.assert_close(found[0].float(), expected[0], rtol=2**-8, atol=1e-5)
    assert cases.largest_error([found[1]], [expected[1]]) < SINGLE_TOLERANCE


def test_bfloat16_weights_are_differentiated_twice():
    stored, wide = _narrowed(48)
    results = []
    for value, x in ((_call("edge_dot", stored), stored), (cases.edge_dot(wide), wide)):
        (slope,) = torch.autograd.grad(cases.generic(value), x.harmonics, create_graph=True)
        results.append(torch.autograd.grad(cases.generic(slope), (x.weights, x.harmonics, x.atom)))
    found, expected = results
    # Autograd adds two gradients of the weights, each rounded to eight significant bits.
    assert cases.largest_error([found[0].float()], [expected[0]]) < 2**-7
    assert cases.largest_error(list(found[1:]), list(expected[1:])) < SINGLE_TOLERANCE


@pytest.mark.slow
def test_more_than_two_to_the_31_numbers_are_addressed():
    channels = 64
    edges = 2**31 // channels // 2 + 100
    # Zeros that no one wrote to take no memory: every page is the same page of zeros.
    weights = torch.from_numpy(np.zeros((edges, 2, channels), dtype=np.uint16)).view(torch.bfloat16)
    assert weights.numel() > 2**31
    weights[-1] = torch.arange(2 * channels).reshape(2, channels)
    irrep = torch.tensor([0, 1, 1, 1])
    ptr = torch.tensor([0, edges - 1, edges])
    with ops.use_backend("native"):
        found = ops.env_sum(weights, torch.ones(edges, 4), irrep, ptr, torch.empty(0))
    assert torch.equal(found[1], torch.arange(2 * channels).reshape(2, channels)[irrep].float())
    assert not found[0].any()


@pytest.mark.parametrize("name", ["env_sum", "edge_proj", "edge_dir", "edge_dot"])
def test_gradcheck_and_gradgradcheck_of_the_primitives(name):
    x = cases.operands(1, 2, seed=5, counts=(2, 0, 1))
    form = forms.EdgeForm(tuple(x.irrep.tolist()), 2)
    polynomial = getattr(forms, name)(form)
    known = (None, x.weights, x.harmonics, x.atom)
    inputs = tuple(known[kind] for kind in polynomial.operands)

    def call(*tensors):
        return torch.ops.asenequip.polynomial(list(tensors), x.ptr, polynomial.text)[0]

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_gradcheck_and_gradgradcheck_of_the_chain():
    layer = layer_paths(1, 2, False)[0]
    inputs = cases.chain_operands(layer, 2, seed=4)
    table = ChainTable(layer)
    with ops.use_backend("native"):
        assert torch.autograd.gradcheck(lambda *t: ops.chain(*t, table), inputs)
        assert torch.autograd.gradgradcheck(lambda *t: ops.chain(*t, table), inputs)


@pytest.mark.parametrize("counts", [(), (0,), (0, 0, 0), (1,), (0, 1)], ids=str)
def test_degenerate_sizes_equal_plain_operations(counts):
    x = cases.operands(1, 20, seed=6, counts=counts)
    inputs = (x.weights, x.harmonics, x.atom)
    results = []
    for backend in ("native", "plain"):
        with ops.use_backend(backend):
            total = ops.edge_dot(x.weights, x.harmonics, x.atom * ops.env_sum(*inputs[:2], *x.edges), *x.edges)
            results.append(cases.derivatives(total, inputs, 2))
    assert [t.shape for t in results[0]] == [t.shape for t in results[1]]
    assert cases.largest_error(*results) < TOLERANCE


def test_non_contiguous_operands_give_the_same_sums():
    x = cases.operands(2, 24, seed=7)
    strided = x.weights.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not strided.is_contiguous()
    with ops.use_backend("native"):
        found = ops.env_sum(strided, x.harmonics.detach().T.contiguous().T, *x.edges)
    assert cases.largest_error([found], [cases.env_sum(x)]) < TOLERANCE


def test_results_do_not_depend_on_the_number_of_threads():
    x = cases.operands(2, 64, seed=8, counts=(30,) * 40, dtype=torch.float32)
    layer = layer_paths(2, 2, False)[0]
    table = ChainTable(layer)
    weights, _, vector = (t.float() for t in cases.chain_operands(layer, 64, seed=8))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            path_weights = weights.detach().requires_grad_()
            with ops.use_backend("native"):
                operator = ops.chain(path_weights, x.atom, vector[:1].expand(40, -1, -1), table)
                value = ops.edge_dot(x.weights, x.harmonics, operator, *x.edges)
            gradients = torch.autograd.grad(value.square().sum(), (x.weights, x.harmonics, x.atom, path_weights))
            results.append([value, *gradients])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_ptr_that_misses_edges_is_refused():
    x = cases.operands(1, 8, seed=9)
    ptr = x.ptr.clone()
    ptr[-1] -= 1
    with ops.use_backend("native"), pytest.raises(ValueError, match="'ptr' parameter must run from 0 to the number"):
        ops.env_sum(x.weights.detach(), x.harmonics.detach(), x.irrep, ptr, x.centers)


@pytest.mark.parametrize("spoiled", ["fewer atoms", "fewer channels", "fewer edges"])
def test_operands_that_disagree_are_refused(spoiled):
    x = cases.operands(1, 8, seed=9)
    weights, harmonics, atom = x.weights.detach(), x.harmonics.detach(), x.atom.detach()
    if spoiled == "fewer atoms":
        atom = atom[:-1]
    elif spoiled == "fewer channels":
        atom = atom[..., :-1]
    else:
        harmonics = harmonics[:-1]
    with ops.use_backend("native"), pytest.raises(ValueError, match=r"operand \w of a kernel must have shape"):
        ops.edge_dot(weights, harmonics, atom, *x.edges)


@pytest.mark.parametrize("spoiled", [None, "int32", "two axes", "empty"], ids=str)
def test_ptr_of_another_kind_is_refused(spoiled):
    x = cases.operands(1, 8, seed=9)
    ptr = {
        None: None,
        "int32": x.ptr.to(torch.int32),
        "two axes": x.ptr[None],
        "empty": x.ptr[:0],
    }[spoiled]
    text = forms.env_sum(forms.EdgeForm((0, 1, 1, 1), 2)).text
    with pytest.raises((ValueError, RuntimeError), match="'ptr' parameter must"):
        torch.ops.asenequip.polynomial([x.weights.detach(), x.harmonics.detach()], ptr, text)


def test_backend_must_be_a_known_name():
    with pytest.raises(ValueError, match=r"'name' parameter of use_backend must be one of .* Got 'fast' instead"):
        ops.use_backend("fast").__enter__()
