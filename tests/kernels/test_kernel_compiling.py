"""Building CPU kernels: the cache, processes that race, damaged files, machines without a compiler."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import kernel_cases as cases
import pytest
import torch

from asenequip.kernels import native, ops
from asenequip.kernels.paths import LayerPaths
from asenequip.kernels.plain import ChainTable
from asenequip.kernels.prepare import kernels_of, prepare

PROGRAM = """
import warnings
warnings.simplefilter("always")
import torch
from asenequip.kernels import ops
from asenequip.kernels.paths import component_irrep, harmonics_irreps
irrep = torch.tensor(component_irrep(harmonics_irreps(1)))
ptr = torch.tensor([0, 2, 3])
centers = torch.tensor([0, 0, 1])
weights = torch.arange(12.0).reshape(3, 2, 2)
for _ in range(2):
    result = ops.env_sum(weights, torch.ones(3, 4), irrep, ptr, centers)
print(result.flatten().tolist())
"""
EXPECTED = [4.0, 6.0] + [8.0, 10.0] * 3 + [8.0, 9.0] + [10.0, 11.0] * 3

needs_compiler = pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler to build CPU kernels with")


def _start(cache: Path, **environment: str) -> subprocess.Popen[str]:
    settings = {**os.environ, "ASENEQUIP_CACHE": str(cache), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _finish(process: subprocess.Popen[str]) -> tuple[list[float], str]:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return [float(x) for x in out.strip()[1:-1].split(",")], err


@needs_compiler
def test_racing_processes_agree_and_leave_one_library(tmp_path):
    running = [_start(tmp_path) for _ in range(3)]
    assert [_finish(p)[0] for p in running] == [EXPECTED] * 3
    assert len(list((tmp_path / "kernels").iterdir())) == 1


@needs_compiler
@pytest.mark.parametrize("left", [0, 13, 4096])  # the loader refuses the first two and crashes on the last
def test_library_that_is_cut_off_is_built_anew(tmp_path, left):
    _finish(_start(tmp_path))
    (library,) = (tmp_path / "kernels").iterdir()
    library.write_bytes(library.read_bytes()[:left])
    assert _finish(_start(tmp_path))[0] == EXPECTED
    assert library.stat().st_size > 4096


@needs_compiler
def test_cache_that_cannot_be_written_is_done_without(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert _finish(_start(blocked))[0] == EXPECTED


def test_without_a_compiler_plain_operations_run_and_say_so_once(tmp_path):
    found, messages = _finish(_start(tmp_path, PATH=str(tmp_path), CXX=""))
    assert found == EXPECTED
    assert messages.count("No C++ compiler was found") == 1


def test_compiler_that_fails_leaves_plain_operations_and_says_so_once(tmp_path):
    found, messages = _finish(_start(tmp_path, CXX="false" if os.name == "posix" else "where"))
    assert found == EXPECTED
    assert messages.count("The CPU kernels could not be compiled") == 1


@needs_compiler
def test_prepare_compiles_everything_that_a_training_step_calls(tmp_path, monkeypatch):
    monkeypatch.setenv("ASENEQUIP_CACHE", str(tmp_path))
    native.load.cache_clear()
    x = cases.operands(1, 8, seed=1)
    inputs = (x.weights, x.harmonics, x.atom)

    def step() -> None:
        with ops.use_backend("native"):
            value = ops.edge_dot(*inputs, *x.edges)
            gradients = torch.autograd.grad(value.sum(), inputs, create_graph=True)
            torch.autograd.grad(sum(g.square().sum() for g in gradients), inputs)

    try:
        assert prepare(step, workers=2) == len(list((tmp_path / "kernels").iterdir())) == 3
        monkeypatch.setattr(native, "_build", None)  # a kernel that is still missing would fail here
        step()
    finally:
        native.load.cache_clear()


def test_tables_made_within_a_trace_hold_numbers():
    found = []
    layer = LayerPaths(((0, 1), (1, -1)), ((0, 1), (1, -1)), ((0, 1),), ((0, 0, 0), (1, 1, 0)))
    kernels_of(lambda: found.append(ChainTable(layer)))
    # 0e x 0e -> 0e, and the three products of 1o x 1o -> 0e.
    torch.testing.assert_close(found[0].value, torch.tensor([1.0] + [3**-0.5] * 3, dtype=torch.float64))


def test_prepare_reads_no_values():
    x = cases.operands(1, 8, seed=1)
    seen = []
    with ops.use_backend("plain"):
        assert kernels_of(lambda: seen.append(ops.env_sum(x.weights, x.harmonics, *x.edges))) == []
    assert type(seen[0]).__name__ == "FakeTensor"


FULL_DISK = """
import errno
from asenequip.kernels import native

def full(dir):
    raise OSError(errno.ENOSPC, "No space left on device")

native.tempfile.NamedTemporaryFile = full
native._build = None  # what is not to be called
"""


@needs_compiler
def test_a_full_disk_is_said_once_and_no_kernel_is_compiled_in_vain(tmp_path):
    settings = {**os.environ, "ASENEQUIP_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK + PROGRAM], env=settings, capture_output=True, text=True, check=True
    )
    assert [float(x) for x in done.stdout.strip()[1:-1].split(",")] == EXPECTED
    assert done.stderr.count("The disk is full") == 1
    assert str(tmp_path) in done.stderr


@needs_compiler
def test_a_full_cache_is_done_without(tmp_path, monkeypatch):
    """As on clusters, where the quota of the home folder is used up and the local disk is not."""
    real = tempfile.NamedTemporaryFile

    def only_elsewhere(dir):
        if Path(dir).is_relative_to(tmp_path):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return real(dir=dir)

    monkeypatch.setenv("ASENEQUIP_CACHE", str(tmp_path))
    monkeypatch.setattr(native.tempfile, "NamedTemporaryFile", only_elsewhere)
    library = native.compile_library('extern "C" int run() { return 42; }')
    assert library.run() == 42
    assert list((tmp_path / "kernels").iterdir()) == []


def test_what_stands_in_for_the_cache_goes_with_the_process(tmp_path):
    (tmp_path / "no folder").touch()
    settings = {**os.environ, "ASENEQUIP_CACHE": str(tmp_path / "no folder"), "TMPDIR": str(tmp_path)}
    code = "from asenequip.kernels import native; print(native.writable_folder('kernels').is_dir())"
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert [path.name for path in tmp_path.iterdir()] == ["no folder"]


def answer(number: int) -> str:
    """The source of a library whose function gives a number."""
    return f'extern "C" int run() {{ return {number}; }}'


@needs_compiler
def test_the_cache_is_bounded_but_keeps_what_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("ASENEQUIP_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "CACHE_BYTES", 1)
    folder = native.writable_folder("kernels")
    for name in ("left by an earlier run.so", "damaged.so"):
        (folder / name).write_bytes(bytes(100))
    running = [native.compile_library(answer(number)) for number in (1, 2)]
    kept = list(folder.iterdir())
    assert [library.run() for library in running] == [1, 2]
    monkeypatch.setattr(native, "_build", None)  # both are still there
    assert [native.compile_library(answer(number)).run() for number in (1, 2)] == [1, 2]
    assert len(kept) == 2


@needs_compiler
def test_a_library_of_the_cache_counts_as_used_when_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("ASENEQUIP_CACHE", str(tmp_path))
    native.compile_library(answer(3))
    (library,) = (tmp_path / "kernels").iterdir()
    os.utime(library, (10**9, 10**9))
    native.compile_library(answer(3))
    assert library.stat().st_mtime > 1.1e9


@needs_compiler
def test_a_library_that_another_process_removes_is_built_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("ASENEQUIP_CACHE", str(tmp_path))
    native.compile_library(answer(4))
    content = native._content

    def then_removed(path):
        found = content(path)
        if path.parent.name == "kernels":
            path.unlink()
        return found

    monkeypatch.setattr(native, "_content", then_removed)
    assert native.compile_library(answer(4)).run() == 4
