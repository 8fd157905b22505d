"""What the checks found, readable at a glance."""

from __future__ import annotations

from dataclasses import dataclass


class CalculatorCheckError(AssertionError):
    """A calculator that failed a check; the message is the report."""


class CheckFailed(Exception):  # noqa: N818 - a verdict, caught by the runner
    """A requirement that does not hold."""


class NotApplicable(Exception):  # noqa: N818 - a verdict, caught by the runner
    """A check that has no meaning for this calculator; the message says why."""


def require(condition: object, message: str) -> None:
    """Fail the running check unless ``condition`` holds."""
    if not condition:
        raise CheckFailed(message)


@dataclass(frozen=True)
class Outcome:
    """One check: its name, the requirement in words, "passed", "failed" or "skipped", why, and the time it took."""

    name: str
    requirement: str
    status: str
    message: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """Outcomes of all checks, in order."""

    calculator: str
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The checks that failed."""
        return tuple(o for o in self.outcomes if o.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    def __str__(self) -> str:
        marks = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}
        counts = {s: sum(o.status == s for o in self.outcomes) for s in marks}
        lines = [
            f"{self.calculator}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
        ]
        for o in self.outcomes:
            lines.append(f"  {marks[o.status]} {o.name}: {o.requirement}")
            if o.message:
                lines.extend(f"         {line}" for line in o.message.splitlines())
        return "\n".join(lines)
