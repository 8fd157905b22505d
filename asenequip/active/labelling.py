"""Labelling many structures at once: in processes here, or by dask wherever its workers are."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

from ase import Atoms

from asenequip.active.labellers import Labeller
from asenequip.active.store import DONE, FAILED, Failure, LabelStore, Outcome, structure_key
from asenequip.active.worker import Worker, label_alone
from asenequip.errors import parameter_error

RETRIED = ("crashed", "error")
"""Reasons that may be chance; the others would come again."""


@dataclass(frozen=True)
class Labelled:
    """What came of labelling a list of structures.

    Attributes
    ----------
    frames : list of ase.Atoms
        With labels, in the order given; those that failed are left out.
    failures : list of Failure
    known : int
        How many needed no work, because the store had them.
    """

    frames: list[Atoms]
    failures: list[Failure]
    known: int


def label_frames(
    frames: Sequence[Atoms],
    labeller: Labeller,
    store: LabelStore,
    *,
    workers: int = 1,
    threads: int = 1,
    timeout: float | None = None,
    retries: int = 1,
    max_force: float | None = None,
    again: bool = False,
    client: Any = None,
    watch: Callable[[int, int], None] | None = None,
) -> Labelled:
    """Label structures; what the store knows is not computed again, and each outcome is stored when it comes.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Not changed.
    labeller : Labeller
        From `asenequip.active.make_labeller`.
    store : LabelStore
    workers : int
        Processes at a time.
    threads : int
        Of each process.
    timeout : float, optional
        Seconds per structure.
    retries : int
        Further attempts after a crash or an error of the calculator (not after a timeout or missing convergence).
    max_force : float, optional
        eV/Angstrom: labels with larger forces are set apart.
    again : bool
        Try structures again that failed in earlier calls.
    client : dask.distributed.Client, optional
        Its workers label, wherever they run, in place of processes here; each structure in a process of its own.
    watch : callable, optional
        Gets the numbers of structures done and in all.

    Returns
    -------
    Labelled

    Raises
    ------
    asenequip.active.store.StoreLockedError
        If another process is labelling into the store.
    OSError, sqlite3.Error
        If the store cannot be written; all outcomes before that are in it.
    """
    for name, value, low in (("workers", workers, 1), ("threads", threads, 1), ("retries", retries, 0)):
        if not isinstance(value, int) or value < low:
            raise parameter_error(name, "label_frames", f"an integer >= {low}", value)
    if timeout is not None and not timeout > 0:
        raise parameter_error("timeout", "label_frames", "a positive float, seconds, or None", timeout)
    keys = [structure_key(atoms, labeller.identity) for atoms in frames]
    with store.lock():
        settled = (DONE,) if again else (DONE, FAILED)
        waiting = {key: atoms for key, atoms in zip(keys, frames, strict=True) if store.status(key) not in settled}
        known = len(set(keys)) - len(waiting)
        run = _by_dask(client, threads) if client is not None else _by_processes(workers, threads)
        for done, (key, outcome) in enumerate(run(waiting, labeller, timeout, retries, max_force), start=1):
            store.add(key, waiting[key], outcome, labeller.identity)
            if watch is not None:
                watch(known + done, known + len(waiting))
    found = {key: store.get(key) for key in set(keys)}
    good = [atoms for key in keys if (atoms := found[key]) is not None]
    mine = set(keys)
    failures = [failure for failure in store.failures() if failure.atoms.info["structure"] in mine]
    return Labelled(good, failures, known)


_Run = Callable[[dict[str, Atoms], Labeller, "float | None", int, "float | None"], Iterator[tuple[str, Outcome]]]


def _by_processes(workers: int, threads: int) -> _Run:
    """Threads that each drive a child process, which gets its next task once the outcome of the last is stored."""

    def run(
        waiting: dict[str, Atoms], labeller: Labeller, timeout: float | None, retries: int, max_force: float | None
    ) -> Iterator[tuple[str, Outcome]]:
        everyone = [Worker(threads) for _ in range(min(workers, len(waiting)))]
        idle: queue.Queue[Worker] = queue.Queue()
        for worker in everyone:
            idle.put(worker)

        def attempt(atoms: Atoms) -> tuple[Worker, Outcome]:
            worker = idle.get()
            return worker, _persist(lambda: worker.run(atoms, labeller, timeout, max_force), retries)

        pool = ThreadPoolExecutor(max(1, len(everyone)))
        try:
            futures = {pool.submit(attempt, atoms): key for key, atoms in waiting.items()}
            for future in as_completed(futures):
                worker, outcome = future.result()
                yield futures[future], outcome
                idle.put(worker)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in everyone:
                worker.stop()
                idle.put(worker)  # for a thread that still waits for one
            pool.shutdown(wait=True)

    return run


def _by_dask(client: Any, threads: int) -> _Run:
    """Tasks of a dask client; a worker that is lost is replaced by dask, and its task runs again elsewhere."""

    def run(
        waiting: dict[str, Atoms], labeller: Labeller, timeout: float | None, retries: int, max_force: float | None
    ) -> Iterator[tuple[str, Outcome]]:
        from distributed import as_completed as completed

        def task(atoms: Atoms) -> dict[str, Any]:
            bare = atoms.copy()
            return {
                "atoms": bare,
                "labeller": labeller,
                "timeout": timeout,
                "threads": threads,
                "max_force": max_force,
            }

        futures = {client.submit(_persist_alone, task(atoms), retries, pure=False): k for k, atoms in waiting.items()}
        try:
            for future in completed(list(futures)):
                error = future.exception()
                outcome = future.result() if error is None else Outcome({}, "crashed", f"on its dask worker: {error}")
                yield futures[future], outcome
        finally:
            client.cancel(list(futures))

    return run


def _persist_alone(task: dict[str, Any], retries: int) -> Outcome:
    return _persist(lambda: label_alone(task), retries)


def _persist(attempt: Callable[[], Outcome], retries: int) -> Outcome:
    """Attempts until one is good, would fail again, or they are used up."""
    outcome, seconds = Outcome(), 0.0
    for number in range(1, retries + 2):
        outcome = attempt()
        seconds += outcome.seconds
        outcome = replace(outcome, attempts=number, seconds=seconds)
        if outcome.good or outcome.reason not in RETRIED:
            break
    return outcome


def dask_client(workers: int, **options: Any) -> Any:
    """A dask client of processes on this machine; ``options`` go to `distributed.LocalCluster`.

    Raises
    ------
    ImportError
        If dask is not installed.
    ValueError
        For options that it does not know.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ImportError(
            "Labelling by dask needs dask.distributed, which is not installed.\n"
            "Install it with: pip install 'dask[distributed]'"
        ) from error
    return Client(_cluster(LocalCluster, {"n_workers": workers, "threads_per_worker": 1, **options}))


def slurm_client(jobs: int, **options: Any) -> Any:
    """A dask client whose workers are SLURM jobs; ``options`` go to `dask_jobqueue.SLURMCluster`.

    Raises
    ------
    ImportError
        If dask-jobqueue is not installed.
    ValueError
        For options that it does not know.
    """
    try:
        from dask_jobqueue import SLURMCluster
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            "Labelling by SLURM needs dask-jobqueue, which is not installed.\n"
            "Install it with: pip install dask-jobqueue 'dask[distributed]'"
        ) from error
    cluster = _cluster(SLURMCluster, options)
    cluster.scale(jobs=jobs)
    return Client(cluster)


def _cluster(kind: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return kind(**options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"The options of the cluster do not suit dask's {getattr(kind, '__name__', kind)}: {error}\n"
            "Correct them, label.cluster_options in a campaign."
        ) from error
