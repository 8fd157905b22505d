"""The GPU benchmark on a machine without one: its own code in small on the CPU, and what it says without `--device`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asenequip.kernels import native

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_ends_with_one_clear_sentence(tmp_path):
    target = tmp_path / "gpu.json"
    done = _run("--output", str(target))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("torch finds no CUDA device")
    assert "Traceback" not in done.stderr
    assert not target.exists()


@pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler to build CPU kernels with")
def test_dry_run_on_the_cpu_fills_every_section(tmp_path):
    target = tmp_path / "gpu.json"
    done = _run("--device", "cpu", "--small", "--output", str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(target.read_text())
    # Twelve kernels (six primitives and their backward passes), each with two numbers of channels.
    assert [row["passed"] for row in found["checks"]["rows"]] == [True] * 24
    assert len(found["primitives_400"]["rows"]) == 12
    (track,) = found["track_400"]["rows"]
    assert track["kernels_ms"] > 0
    assert found["copy_bytes_per_second"] > 0
    assert not any(found[name].get("stopped_early") for name in ("checks", "primitives_400", "track_400"))


@pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler to build CPU kernels with")
def test_dry_run_stops_when_its_time_is_over(tmp_path):
    target = tmp_path / "gpu.json"
    _run("--device", "cpu", "--small", "--minutes", "0", "--output", str(target))
    checks = json.loads(target.read_text())["checks"]
    assert checks["stopped_early"]
    assert len(checks["rows"]) == 1


@pytest.mark.peer
def test_dry_run_agrees_with_nequip_allegro(tmp_path):
    pytest.importorskip("allegro")
    target = tmp_path / "gpu.json"
    done = _run("--device", "cpu", "--small", "--output", str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    (track,) = json.loads(target.read_text())["track_400"]["rows"]
    # float32 sums of a thousand terms in another order
    assert track["peer_torch"]["deviation"] < 1e-5
