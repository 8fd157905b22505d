"""Running the checks over a calculator."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence

from ase.calculators.calculator import Calculator

from asenequip.errors import parameter_error
from asenequip.testing import contract, copies, invariance, mechanics, state
from asenequip.testing.report import CalculatorCheckError, CheckFailed, NotApplicable, Outcome, Report
from asenequip.testing.subject import DOUBLE, Subject, Tolerances, as_symbols

Check = Callable[[Subject], None]


def _checks() -> dict[str, Check]:
    modules = (contract, state, invariance, mechanics, copies)
    return {check.__name__: check for module in modules for check in module.CHECKS}


def check_names() -> tuple[str, ...]:
    """Names of all checks, in the order in which they run."""
    return tuple(_checks())


def check_calculator(
    calc: Calculator,
    symbols: str | Sequence[str],
    *,
    cutoff: float | None = None,
    tolerances: Tolerances = DOUBLE,
    seed: int = 0,
    only: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    raise_failures: bool = True,
) -> Report:
    """Hold a calculator against everything that ASE, its drivers and physics expect of one.

    Parameters
    ----------
    calc : ase.calculators.calculator.Calculator
        Left with other results than it had.
    symbols : str or sequence of str
        Elements that it knows.
    cutoff : float, optional
        Angstrom; beyond it atoms do not interact. Without it the checks of locality are skipped.
    tolerances : Tolerances
        ``DOUBLE`` (default) or ``SINGLE``, for networks in float32.
    seed : int
        Seed of the structures.
    only, skip : sequence of str
        Names of checks (see `check_names`) to run, or to leave out.
    raise_failures : bool
        Raise if a check failed.

    Returns
    -------
    Report
        ``print`` it.

    Raises
    ------
    CalculatorCheckError
        If a check failed; its message is the report.
    ValueError
        For the name of a check that does not exist.
    """
    checks = _checks()
    for label, names in (("only", only or ()), ("skip", skip)):
        unknown = set(names) - set(checks)
        if unknown:
            raise parameter_error(label, "check_calculator", f"names among {', '.join(checks)}", sorted(unknown))
    subject = Subject(calc, as_symbols(symbols), cutoff, tolerances, seed)
    chosen = [c for n, c in checks.items() if (only is None or n in only) and n not in skip]
    report = Report(type(calc).__name__, tuple(_run(check, subject) for check in chosen))
    if raise_failures and not report.ok:
        raise CalculatorCheckError(str(report))
    return report


def _run(check: Check, subject: Subject) -> Outcome:
    start = time.perf_counter()
    status, message = "passed", ""
    try:
        check(subject)
    except NotApplicable as reason:
        status, message = "skipped", str(reason)
    except CheckFailed as failure:
        status, message = "failed", str(failure)
    except Exception as error:  # noqa: BLE001 - whatever a foreign calculator raises is a finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        status = "failed"
        message = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    requirement = (check.__doc__ or "").strip().splitlines()[0]
    return Outcome(check.__name__, requirement, status, message, time.perf_counter() - start)
