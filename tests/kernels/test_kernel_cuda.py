"""The CUDA text without a GPU: NVRTC compiles it, and a host emulation of its threads gives its numbers."""

from __future__ import annotations

import ctypes
import functools
import json
import subprocess
import sys
from pathlib import Path

import kernel_cases as cases
import pytest
import torch

from asenequip.kernels import cuda, native, nvrtc
from asenequip.kernels import polynomial as forms
from asenequip.kernels.evaluate import evaluate
from asenequip.kernels.generate import DOUBLE, SINGLE, cuda_source
from asenequip.kernels.layout import layout

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
TOLERANCE = 1e-12
"""Relative, float64: the same sums in another order."""
HEADER = Path(__file__).with_name("emulated_cuda.h")

needs_nvrtc = pytest.mark.skipif(nvrtc.find() is None, reason="libnvrtc was not found (pip install nvidia-cuda-nvrtc)")


@functools.lru_cache(maxsize=1)
def _modern_compiler() -> bool:
    """Whether the compiler knows C++20's barriers."""
    command = native.compiler()
    if command is None:
        return False
    check = "#include <barrier>\nint main() { std::barrier<> b(1); b.arrive_and_wait(); }"
    line = [*command, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(line, input=check, text=True, capture_output=True, check=False).returncode == 0


@needs_nvrtc
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "architecture", [a if a == 90 else pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES]
)
@pytest.mark.parametrize(
    ("l_max", "layers", "parity"),
    [
        (1, 2, False),
        *(
            pytest.param(l, n, p, marks=pytest.mark.slow)
            for l, n, p in [(0, 2, False), (2, 2, False), (3, 2, False), (2, 3, True), (3, 3, True), (4, 2, False)]
        ),
    ],
)
def test_every_kernel_compiles(l_max, layers, parity, architecture, shared):
    library = nvrtc.find()
    if architecture not in nvrtc.architectures(library):
        pytest.skip(f"this NVRTC does not compile for sm_{architecture}")
    for polynomial in nvrtc.model_kernels(l_max, layers, parity, shared).values():
        for scalar in (SINGLE, DOUBLE) if l_max < 3 else (SINGLE,):
            compiled = nvrtc.compile_cuda(library, cuda_source(polynomial, scalar), f"sm_{architecture}")
            # An ELF image that holds machine code for the kernel.
            assert compiled.binary[:4] == b"\x7fELF"
            assert b".text.run" in compiled.binary


@needs_nvrtc
def test_bfloat16_kernels_compile():
    form = forms.EdgeForm((0, 1, 1, 1), 2, bfloat16=True)
    for polynomial in forms.orders(forms.edge_dot(form), 2):
        source = cuda_source(polynomial, SINGLE)
        assert nvrtc.compile_cuda(nvrtc.find(), source, "sm_90").registers > 0


@needs_nvrtc
def test_source_that_does_not_compile_is_reported_with_the_log():
    with pytest.raises(RuntimeError, match="undefined"):
        nvrtc.compile_cuda(nvrtc.find(), 'extern "C" __global__ void run() { undefined(); }', "sm_90")


@needs_nvrtc
def test_table_of_registers_lists_every_kernel(capsys):
    assert nvrtc.main(["--l-max", "1", "--layers", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert len(rows) == len(nvrtc.model_kernels(1, 1, False, False))
    assert all(int(row.split()[-3]) > 0 for row in rows)


@needs_nvrtc
def test_list_of_resources_keeps_the_rows_of_other_runs(tmp_path):
    target = tmp_path / "resources.json"
    other = {"architecture": 80, "l_max": 0, "layers": 2, "parity": False, "registers": 7}
    target.write_text(json.dumps({"rows": [other]}))
    script = Path(__file__).parents[2] / "benchmarks" / "kernel_resources.py"
    command = [sys.executable, str(script), "--architectures", "90", "--l-max", "0", "--output", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    rows = json.loads(target.read_text())["rows"]
    assert rows[0] == other
    assert {row["architecture"] for row in rows[1:]} == {90}
    assert all(0 < row["registers"] <= 255 for row in rows[1:])


def test_kernels_use_no_atomics_and_64_bit_offsets():
    for polynomial in nvrtc.model_kernels(2, 2, False, False).values():
        source = cuda_source(polynomial, SINGLE)
        assert "atomic" not in source.replace("no atomics", "")
        assert "typedef long long I;" in source


def _emulate(polynomial, operands, ptr, channels, folder):
    """Outputs of the CUDA text for one polynomial, run by host threads."""
    own = layout(polynomial.text)
    outputs = own.empty(own.shapes(operands, ptr), operands)
    edges = ptr is not None
    atoms = (
        ptr.shape[0] - 1
        if edges
        else next(t.shape[0] for t, k in zip(operands, polynomial.operands, strict=True) if k != forms.PATHS)
    )
    length = 2
    grid, block = cuda.edge_grid(atoms, channels) if edges else cuda.chain_grid(-(-atoms // length), channels)
    written = own.written(outputs, -(-atoms // length))
    kinds = [*polynomial.operands, *(o.kind for o in polynomial.outputs)]
    narrow = edges and polynomial.form.bfloat16
    pointers = ", ".join(
        f"({'S' if narrow and kind == forms.WEIGHTS else 'T'}*)pointers[{k}]" for k, kind in enumerate(kinds)
    )
    scalar = DOUBLE if any(t.dtype == torch.float64 for t in operands) else SINGLE
    source = "\n".join(
        [
            f'#include "{HEADER}"',
            cuda_source(polynomial, scalar),
            'extern "C" void launch(void** pointers, const I* ptr, I length, I atoms, I U,',
            "                       unsigned gx, unsigned bx, unsigned by) {",
            "  emulate({gx, 1, 1}, {bx, by, 1},",
            f"          [=] {{ run({pointers}, {'ptr' if edges else 'length'}, atoms, U); }});",
            "}",
        ]
    )
    text, target = folder / "emulated.cpp", folder / "emulated.so"
    text.write_text(source)
    line = [*native.compiler(), "-std=c++20", "-O1", "-w", "-fPIC", "-shared", "-pthread", str(text), "-o", str(target)]
    subprocess.run(line, check=True, capture_output=True)
    launch = ctypes.CDLL(str(target)).launch
    wide, narrow_type = ctypes.c_int64, ctypes.c_uint
    launch.argtypes = (ctypes.c_void_p, ctypes.c_void_p, wide, wide, wide, *[narrow_type] * 3)
    addresses = (ctypes.c_void_p * len(kinds))(*[t.data_ptr() for t in (*operands, *written)])
    if 0 not in grid:
        launch(addresses, ptr.data_ptr() if edges else None, length, atoms, channels, grid[0], *block[:2])
    return own.summed(written)


def _emulated_cases() -> list[object]:
    rows = []
    for l_max, shared in ((1, False), (2, True), (3, False)):
        for name in nvrtc.model_kernels(l_max, 2, False, shared):
            fast = l_max == 1 and name in (
                "env_sum", "edge_dot", "edge_dot backward", "edge_dot double backward", "chain 0 backward",
            )  # fmt: skip
            marks = [] if fast else [pytest.mark.slow]
            rows.append(pytest.param(l_max, shared, name, marks=marks, id=f"l{l_max}-{name.replace(' ', '-')}"))
    return rows


@pytest.mark.skipif(not _modern_compiler(), reason="the emulation needs a C++20 compiler")
@pytest.mark.parametrize("channels", [5, 70, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("l_max", "shared", "name"), _emulated_cases())
def test_emulated_cuda_equals_plain_operations(l_max, shared, name, channels, tmp_path):
    polynomial = nvrtc.model_kernels(l_max, 2, False, shared)[name]
    # 300 channels exceed a block, 70 leave a ragged warp; nine and seventeen edges exceed one and two batches.
    operands, ptr = cases.random_operands(polynomial, channels, seed=channels, counts=(0, 9, 1, 17, 0))
    found = _emulate(polynomial, operands, ptr, channels, tmp_path)
    assert cases.largest_error(found, evaluate(polynomial, operands, ptr)) < TOLERANCE


@pytest.mark.skipif(not _modern_compiler(), reason="the emulation needs a C++20 compiler")
def test_emulated_cuda_takes_bfloat16_weights(tmp_path):
    form = forms.EdgeForm((0, 1, 1, 1), 2, bfloat16=True)
    polynomial = forms.orders(forms.edge_dot(form), 1)[1]
    operands, ptr = cases.random_operands(polynomial, 40, seed=3, counts=(3, 0, 2))
    stored = [
        t.to(torch.bfloat16) if kind == forms.WEIGHTS else t.float()
        for t, kind in zip(operands, polynomial.operands, strict=True)
    ]
    found = _emulate(polynomial, stored, ptr, 40, tmp_path)
    expected = evaluate(polynomial, stored, ptr)
    assert [t.dtype for t in found] == [t.dtype for t in expected]
    for a, b in zip(found, expected, strict=True):
        # Outputs stored in bfloat16 may differ by one rounding where float32 sums differ in their last bit.
        torch.testing.assert_close(a.float(), b.float(), rtol=2**-7 if a.dtype == torch.bfloat16 else 1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("installed", "version", "message"),
    [
        ([], "12.8", "CuPy is not installed; kernels for CUDA 12.8 need it. Run: pip install cupy-cuda12x"),
        (
            ["cupy-cuda12x"],
            "13.0",
            "cupy-cuda12x does not fit torch, which was built for CUDA 13.0. "
            "Run: pip uninstall -y cupy-cuda12x && pip install cupy-cuda13x",
        ),
        (
            ["cupy-cuda13x", "cupy-cuda12x"],
            "12.8",
            "Several CuPy packages are installed (cupy-cuda12x cupy-cuda13x). "
            "Run: pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install cupy-cuda12x",
        ),
        (
            ["cupy-cuda12x"],
            None,
            "This torch was built without CUDA. Install a CUDA build of torch to run on a GPU.",
        ),
        (["cupy-cuda12x"], "12.8", None),
        (["cupy"], "12.8", None),
    ],
)
def test_wheel_problems_name_the_command_that_mends_them(installed, version, message):
    assert cuda.wheel_problem(installed, version) == message
