"""Labelling by SLURM: the job script, and a stand-in for sbatch that runs it here."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from ase.build import bulk

from asenequip.active import LabelStore, label_frames, make_labeller
from asenequip.active.labelling import slurm_client

pytest.importorskip("dask_jobqueue")

SBATCH = """#!{python}
import shutil, subprocess, sys
shutil.copy(sys.argv[-1], {folder!r} + "/job.sh")
log = open({folder!r} + "/job.log", "w")
job = subprocess.Popen(["bash", sys.argv[-1]], stdout=log, stderr=log, start_new_session=True)
print(f"Submitted batch job {{job.pid}}")
"""
SCANCEL = """#!{python}
import contextlib, os, signal, sys
with contextlib.suppress(ProcessLookupError):
    os.killpg(int(sys.argv[-1]), signal.SIGTERM)
"""


@pytest.fixture
def cluster_commands(tmp_path, monkeypatch) -> Path:
    """A folder with sbatch and scancel, first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        path = folder / name
        path.write_text(text.format(python=sys.executable, folder=str(folder)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.mark.slow
def test_jobs_ask_for_what_was_wished_and_label(cluster_commands, tmp_path):
    frames = [bulk("Cu"), bulk("Al")]
    wishes = {"queue": "long", "account": "me", "walltime": "00:10:00", "cores": 2, "processes": 1, "memory": "2GB"}
    here = {"interface": "lo", "log_directory": str(tmp_path), "local_directory": str(tmp_path)}
    client = slurm_client(1, **wishes, **here, scheduler_options={"dashboard_address": None})
    try:
        found = label_frames(frames, make_labeller("emt"), LabelStore(tmp_path / "labels.db"), client=client)
    finally:
        cluster = client.cluster
        client.close()
        cluster.close()
    assert [len(atoms.get_forces()) for atoms in found.frames] == [1, 1]
    script = (cluster_commands / "job.sh").read_text()
    lines = {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")}
    assert lines >= {"-p long", "-A me", "-t 00:10:00", "--cpus-per-task=2", "-n 1", "--mem=2G"}
    assert f"{sys.executable} -m distributed.cli.dask_worker" in script
