"""The GPU benchmark on a machine without one: its own code in small on the CPU, and what it says without `--device`."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asenequip.kernels import native

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"

SMALL = ("--device", "cpu", "--small", "--minutes", "60", "--stages", "checks", "track", "primitives")


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
    done = _run(*SMALL, "--output", str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(target.read_text())
    # Twelve kernels (six primitives and their backward passes), each with two numbers of channels.
    assert [row["passed"] for row in found["checks"]["rows"]] == [True] * 24
    assert len(found["primitives_400"]["rows"]) == 12
    (track,) = found["track_400"]["rows"]
    assert track["kernels_ms"] > 0
    assert found["copy_bytes_per_second"] > 0
    assert not any(found[name]["stopped_early"] for name in ("checks", "primitives_400", "track_400"))


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("gpu")


def test_rows_stop_when_their_time_is_over_and_are_kept(gpu, tmp_path):
    report = gpu.Report(tmp_path / "gpu.json", minutes=1.0)
    report.add_rows("checks", ({"number": k} for k in range(9)), str, seconds=0.0)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["checks"] == {"stopped_early": True, "rows": [{"number": 0}]}


def test_what_does_not_fit_is_not_begun(gpu, tmp_path, monkeypatch):
    target = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", *SMALL, "--minutes", "0", "--output", str(target)])
    gpu.main()
    found = json.loads(target.read_text())
    assert [found[name] for name in SMALL[-3:]] == [{"ran": False, "reason": "no time was left"}] * 3


def test_a_stage_that_fails_is_recorded_and_the_next_one_runs(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.Run, "checks", lambda run, seconds: 1 / 0)
    monkeypatch.setattr(gpu.Run, "track", lambda run, seconds: run.keep("track", {"passed": True}))
    target = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", *SMALL, "--stages", "checks", "track", "--output", str(target)])
    assert gpu.main() == 1
    found = json.loads(target.read_text())
    assert found["checks_failure"].startswith("ZeroDivisionError")
    assert found["track"] == {"passed": True}


@pytest.mark.slow
@pytest.mark.skipif(native.compiler() is None, reason="no C++ compiler to build CPU kernels with")
def test_dry_run_of_every_stage_with_its_programs(tmp_path):
    target = tmp_path / "gpu.json"
    done = _run(*SMALL[:6], "device", "precision", "peer", "--output", str(target))
    found = json.loads(target.read_text())
    assert [found[name]["passed"] for name in ("device", "precision")] == [True, True], done.stdout
    rows = json.loads((tmp_path / "gpu_device.json").read_text())["rows"][1:]
    ways = {(row["form"], row["way"]) for row in rows}
    assert ways == {(form, way) for form in ("network", "compiled graph") for way in ("captured", "plain")}
    # float32: rounding of sums in another order
    assert max(row["largest_force_difference"] for row in rows) < 1e-5
    assert json.loads((tmp_path / "gpu_precision.json").read_text())["device"] == "cpu"


@pytest.mark.peer
def test_dry_run_agrees_with_nequip_allegro(tmp_path):
    pytest.importorskip("allegro")
    target = tmp_path / "gpu.json"
    done = _run(*SMALL, "--output", str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    (track,) = json.loads(target.read_text())["track_400"]["rows"]
    # float32 sums of a thousand terms in another order
    assert track["peer_torch"]["deviation"] < 1e-5
