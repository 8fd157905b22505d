"""The socket protocol of i-PI and ASE: a client that answers whoever drives the atoms."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

from ase import Atoms
from ase.calculators.socketio import SocketClient


def answer(
    atoms: Atoms, *, host: str = "localhost", port: int = 31415, unixsocket: str | None = None, wait: float = 60.0
) -> Iterator[int]:
    """Give energies, forces and virials of atoms that another process moves, until it says that it is done.

    Parameters
    ----------
    atoms : ase.Atoms
        Atoms with a calculator, their elements in the server's order. Positions and cell become the server's.
    host, port
        Where the server listens.
    unixsocket : str, optional
        Name of a socket on this machine, ``/tmp/ipi_NAME``, in place of host and port.
    wait : float
        Seconds within which the server must appear.

    Yields
    ------
    int
        Evaluations so far.

    Raises
    ------
    ConnectionError
        If nobody listens.
    """
    client = _connect(host, port, unixsocket, wait)
    for count, _ in enumerate(client.irun(atoms, use_stress=atoms.cell.rank == 3), start=1):
        yield count


def _connect(host: str, port: int, unixsocket: str | None, wait: float) -> Any:
    deadline = time.monotonic() + wait
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # ASE leaves a socket that found nobody to the collector
        while True:
            try:
                return SocketClient(host=host, port=port, unixsocket=unixsocket)
            except OSError as error:
                reason = str(error)
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
    place = f"the socket '/tmp/ipi_{unixsocket}'" if unixsocket else f"{host}, port {port}"
    raise ConnectionError(
        f"Nobody listened at {place} for {wait:g} s ({reason}).\n"
        "Start i-PI or the SocketIOCalculator first, or give its --unix name or --host and --port."
    )
