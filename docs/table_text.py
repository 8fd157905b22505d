"""Tables in Markdown from the records of the benchmarks, and the sentences that go with each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown, numbers to four digits."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_text(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·10^{int(exponent)}"


def machine(record: dict[str, Any]) -> str:
    """One line about where the numbers come from."""
    found = record.get("machine", record.get("hardware", {}))
    versions = found.get("versions", record.get("versions", {}))
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "nequip", "nequip-allegro") if name in versions)
    threads = record.get("threads", found.get("threads", 1))
    return f"{found.get('cpu', 'CPU')}, {threads} thread(s); {named}.\n".replace(
        ", nequip absent, nequip-allegro absent", ""
    )


def company(record: dict[str, Any]) -> str:
    """A sentence, where other programs ran beside the benchmark."""
    found = record["machine"]
    load = max(found["load_before"], found.get("load_after", 0.0) - record.get("threads", 1))
    return f" Other programs ran beside, load up to {load:.0f}." if load > 1.5 * found["cores"] else ""
