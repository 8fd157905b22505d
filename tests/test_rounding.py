"""The opt-in precisions of the eager network, on a CPU: what they round, and that they leave no trace."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_systems import small_atoms

from asenequip.evaluate import Evaluator
from asenequip.rounding import products_in


def test_bfloat16_of_the_eager_network_errs_by_its_rounding(small_artifact):
    exact = Evaluator(small_artifact, device="cpu", dtype="float64").evaluate([small_atoms()])[0]
    found = Evaluator(small_artifact, device="cpu", dtype="bfloat16", compiled=False).evaluate([small_atoms()])[0]
    typical = np.sqrt(np.square(exact["forces"]).mean())
    deviation = np.sqrt(np.square(found["forces"] - exact["forces"]).mean())
    assert 1e-5 * typical < deviation < 2**-5 * typical


def test_tf32_is_on_for_cuda_inside_only():
    before = torch.backends.cuda.matmul.allow_tf32
    with products_in("tf32", torch.device("cuda")):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
    with products_in("float32", torch.device("cuda")):
        assert not torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def matmul():
    """Torch's switches of matrix products, put back afterwards: the new one, and the old one that follows it."""
    switches = torch.backends.cuda.matmul
    before = switches.fp32_precision
    yield switches
    switches.allow_tf32 = before == "tf32"
    switches.fp32_precision = before


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("chosen", ["none", "ieee", "tf32"])
def test_the_precision_that_the_user_chose_stays(matmul, chosen, device):
    matmul.fp32_precision = chosen
    for precision in ("float32", "tf32"):
        with products_in(precision, torch.device(device)):
            inside = matmul.fp32_precision
        assert matmul.fp32_precision == chosen
        assert (inside == "tf32") == (precision == "tf32") if device == "cuda" else inside == chosen


def test_float32_keeps_what_tf32_and_bfloat16_would_round():
    rng = np.random.default_rng(0)
    a, b = 2 * rng.integers(1024, 2048, (8, 8)) + 1, rng.integers(0, 500, (8, 8))  # of 12 bits; sums of 24 are exact
    with products_in("float32", torch.device("cpu")):
        found = torch.from_numpy(a).float() @ torch.from_numpy(b).float()
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), a @ b)


def test_the_table_of_the_documentation_is_that_of_the_record():
    root = Path(__file__).parents[1]
    spec = importlib.util.spec_from_file_location("bench_precision", root / "benchmarks" / "bench_precision.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TABLE.read_text() == module.table(json.loads(module.RECORD.read_text()))
