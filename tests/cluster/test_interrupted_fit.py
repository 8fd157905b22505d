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
PRESSED = """
import signal
from asenequip.cli.common import Progress
from asenequip.cli import main
show = Progress.show
def press(self, done, note=""):
    show(self, done, note)
    if done > {after}:
        signal.raise_signal({number})
Progress.show = press
main()
"""
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
    """What is said of a signal that comes once more than `after` frames are done."""
    program = PRESSED.format(after=after, number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", program, "cluster", *words], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 130, done.stderr
    assert done.stdout == ""
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("Frames: "))


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
    subprocess.run([*COMMAND, *words], check=True, capture_output=True, timeout=600)
    labelled = read(out / "clustered.extxyz", ":")
    assert len(labelled) == FRAMES
    assert all("cluster" in frame.arrays for frame in labelled)
