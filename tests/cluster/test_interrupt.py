"""`asenequip cluster`, interrupted: nothing half-written, and a line that says how to go on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import read, write

COMMAND = [sys.executable, "-c", "from asenequip.cli import main; main()", "cluster"]
FRAMES = 40


@pytest.fixture
def words(small_artifact: Path, tmp_path: Path) -> list[str]:
    atoms = bulk("CuO", "rocksalt", a=4.3) * (2, 2, 1)
    frames = [atoms.copy() for _ in range(FRAMES)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.1, seed=seed)
    write(tmp_path / "traj.xyz", frames)
    given = [tmp_path / "traj.xyz", "-m", small_artifact, "-o", tmp_path / "out", "--no-figures", "--device", "cpu"]
    return [*map(str, given)]


def interrupted(words: list[str], number: signal.Signals, after: int) -> str:
    """Send the signal once more than `after` frames are done; give what is said from then on."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([*COMMAND, *words], stderr=pipe, stdout=pipe, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Frames: ") and int(line.split()[1].split("/")[0]) > after:
            break
    process.send_signal(number)
    output, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert output == ""
    return "\n".join(line for line in told.splitlines() if not line.startswith("Frames: "))


@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGINT, 0), (signal.SIGTERM, FRAMES)],
    ids=["Ctrl-C while fitting", "SIGTERM while labelling"],
)
def test_a_signal_leaves_nothing_half_written_and_the_work_can_go_on(words, tmp_path, number, after):
    told = interrupted(words, number, after)
    out = tmp_path / "out"
    if after == 0:
        assert told == "Stopped before the clusters were fitted; nothing was written. The same command starts again."
        assert not out.exists()
    else:
        kept = out / "clusters.npz"
        goes_on = f"the same command with --clusters {kept} goes on from them."
        assert told == f"Stopped. The fitted clusters are in '{kept}'; {goes_on}"
        assert [*out.iterdir()] == [kept]
        words = [*words, "--clusters", str(kept)]
    subprocess.run([*COMMAND, *words], check=True, capture_output=True, timeout=120)
    labelled = read(out / "clustered.extxyz", ":")
    assert len(labelled) == FRAMES
    assert all("cluster" in frame.arrays for frame in labelled)
