"""The opt-in precisions of the eager network, on a CPU: what they round, and that they leave no trace."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
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


def test_float32_rounds_nothing(small_artifact):
    a, b = torch.randn(8, 8), torch.randn(8, 8)
    with products_in("float32", torch.device("cpu")):
        assert torch.equal(a @ b, torch.mm(a, b))
        assert (a @ b).dtype == torch.float32


def test_the_table_of_the_documentation_is_that_of_the_record():
    root = Path(__file__).parents[1]
    spec = importlib.util.spec_from_file_location("bench_precision", root / "benchmarks" / "bench_precision.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TABLE.read_text() == module.table(json.loads(module.RECORD.read_text()))
