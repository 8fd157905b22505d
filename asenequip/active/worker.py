"""A process of its own that labels: what crashes or hangs in a calculator stays in it.

Run as ``python -m asenequip.active.worker``: it says on standard output that it is ready; then tasks come as lines of
JSON on standard input, and outcomes go back on standard output.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.jsonio import decode, encode

from asenequip.active.labellers import Labeller
from asenequip.active.store import Outcome

_READY = b"ready\n"
_OUTPUTS = (".out", ".pwo", ".log", ".txt")
_GEOMETRY = ("numbers", "positions", "cell", "pbc", "initial_charges", "initial_magmoms")


def compute(atoms: Atoms, labeller: Labeller, max_force: float | None = None) -> Outcome:
    """Label one structure in this process; an exception becomes an outcome with its reason."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="label-") as folder:
        try:
            results = _results(atoms.copy(), labeller, folder)
        except Exception as error:  # noqa: BLE001 (whatever a calculator raises is this structure's outcome)
            text = f"{type(error).__name__}: {error}"
            unconverged = "converge" in text.lower() or _tells_of_no_convergence(Path(folder))
            return Outcome({}, "unconverged" if unconverged else "error", text, time.monotonic() - started)
    seconds = time.monotonic() - started
    if not all(np.isfinite(value).all() for value in results.values()):
        return Outcome({}, "not finite", "a result is not a finite number", seconds)
    largest = float(np.linalg.norm(results["forces"], axis=1).max(initial=0.0))
    if max_force is not None and largest > max_force:
        return Outcome({}, "too large", f"a force of {largest:.3g} eV/A is over {max_force:g}", seconds)
    return Outcome(results, seconds=seconds)


def _results(atoms: Atoms, labeller: Labeller, folder: str) -> dict[str, Any]:
    from ase.calculators.calculator import PropertyNotImplementedError

    atoms.calc = labeller.make(folder)
    results: dict[str, Any] = {"energy": float(atoms.get_potential_energy()), "forces": atoms.get_forces()}
    if atoms.cell.rank == 3 and atoms.pbc.all():
        with contextlib.suppress(PropertyNotImplementedError, NotImplementedError):
            results["stress"] = atoms.get_stress()
    return results


def _tells_of_no_convergence(folder: Path) -> bool:
    """Whether an output of a program in the folder ends with a sentence that its cycle did not converge."""
    for path in sorted(folder.iterdir()):
        if path.suffix in _OUTPUTS and path.is_file():
            text = path.read_bytes()[-65536:].decode(errors="replace").lower()
            if "convergence not achieved" in text or "not converge" in text:
                return True
    return False


class Worker:
    """A child process that labels one structure after another, and is replaced when it dies or hangs.

    Parameters
    ----------
    threads : int
        Threads of the numerical libraries in the child.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._received = b""
        self._stopped = False

    def run(
        self, atoms: Atoms, labeller: Labeller, timeout: float | None = None, max_force: float | None = None
    ) -> Outcome:
        """Label one structure.

        Parameters
        ----------
        atoms : ase.Atoms
        labeller : Labeller
        timeout : float, optional
            Seconds, after which the process is ended; its start does not count.
        max_force : float, optional
            Labels with a larger force (eV/Angstrom) are set apart as "too large".
        """
        task = {
            "atoms": {k: v for k, v in atoms.todict().items() if k in _GEOMETRY},
            "name": labeller.name,
            "options": dict(labeller.options),
            "max_force": max_force,
        }
        if self._stopped:
            return Outcome({}, "crashed", "labelling was stopped")
        process = self._alive()
        started = time.monotonic()
        try:
            self._send(process, encode(task).encode() + b"\n")
            answer = self._receive(process, None if timeout is None else started + timeout)
        except BrokenPipeError:
            answer = b""
        seconds = time.monotonic() - started
        if answer is None:
            self.close()
            return Outcome({}, "timeout", f"not done after {timeout:g} s", seconds)
        if not answer:
            code = process.wait()
            self.close()
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            return Outcome({}, "crashed", f"the labelling process ended with {how}", seconds)
        found = decode(answer.decode())
        return Outcome(found["results"], found["reason"], found["detail"], found["seconds"])

    def stop(self) -> None:
        """End the process for good, also while another thread waits for it."""
        self._stopped = True
        self.close()

    def close(self) -> None:
        """End the process, and what it has started; the next structure gets a new one."""
        process, self._process, self._received = self._process, None, b""
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _alive(self) -> subprocess.Popen[bytes]:
        """The child process, started anew where there is none, and ready."""
        process = self._process
        if process is not None and process.poll() is None:
            return process
        self.close()
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self.threads))
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "asenequip.active.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **limits, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        if self._stopped:  # by another thread, while the process was being started
            self.close()
            raise BrokenPipeError("labelling was stopped")
        self._receive(process, None)
        return process

    @staticmethod
    def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
        if process.stdin is not None:
            process.stdin.write(data)
            process.stdin.flush()

    def _receive(self, process: subprocess.Popen[bytes], deadline: float | None) -> bytes | None:
        """One line; empty if the process has ended, None if the time is up."""
        if process.stdout is None:
            return b""
        descriptor = process.stdout.fileno()
        while b"\n" not in self._received:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not select.select([descriptor], [], [], left)[0]:
                return None
            part = os.read(descriptor, 1 << 20)
            if not part:
                return b""
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return line


def label_alone(task: Mapping[str, Any]) -> Outcome:
    """Label one structure in a child process that is made for it: what a remote worker runs."""
    worker = Worker(task["threads"])
    try:
        return worker.run(task["atoms"], task["labeller"], task["timeout"], task["max_force"])
    finally:
        worker.close()


def _end_with(parent: int) -> None:
    """End this process group once the process that started it is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Serve tasks until the input ends; what calculators print goes nowhere near the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answers.write(_READY)
    answers.flush()
    for line in sys.stdin.buffer:
        task = decode(line.decode())
        atoms = Atoms.fromdict(task["atoms"])
        outcome = compute(atoms, Labeller(task["name"], task["options"]), task["max_force"])
        found = {k: getattr(outcome, k) for k in ("results", "reason", "detail", "seconds")}
        answers.write(encode(found).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
