"""Run ASE's own tests with an Allegro potential in place of EMT.

    python tests/ase_suite/run.py                  all files of files.txt
    python tests/ase_suite/run.py neb md/test_md   those whose path contains a word
    python tests/ase_suite/run.py --emt            the same tests with ASE's own EMT, for comparison

Failures with a reason that is not the calculator's stand in KNOWN.md; the run ends with 0 if there are no others.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).resolve().parent


def ase_tests() -> Path:
    """Where the installed ASE keeps its tests."""
    import ase.test

    return Path(ase.test.__file__).parent


def chosen_files(words: list[str]) -> list[Path]:
    """Files of files.txt inside the installed ASE."""
    import ase

    root = ase_tests()
    names = [n for n in (HERE / "files.txt").read_text().split() if not words or any(w in n for w in words)]
    missing = [n for n in names if not (root / n).is_file()]
    if missing:
        sys.exit(f"This ASE ({ase.__version__}) has no {missing[0]}. Install ase==3.29.0, whose files are listed.")
    return [root / n for n in names]


def known_failures() -> dict[str, str]:
    """Test name -> reason, from KNOWN.md."""
    return dict(re.findall(r"^- `([^`]+)`: (.+)$", (HERE / "KNOWN.md").read_text(), flags=re.M))


def read_results(report: Path) -> dict[str, tuple[str, str]]:
    """Test name -> (outcome, first line of the message), from a JUnit report."""
    results = {}
    for case in ElementTree.parse(report).iter("testcase"):
        module = case.get("classname", "").replace(".", "/")
        outcome, message = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "xfailed" if "xfail" in child.get("type", "") else child.tag
                message = (child.get("message") or "").strip().splitlines()[0] if child.get("message") else ""
        results[f"{module}.py::{case.get('name')}"] = (outcome, message)
    return results


def main() -> int:
    """Run, count, compare with the known failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--emt", action="store_true", help="use ASE's own EMT")
    parser.add_argument("-x", "--exitfirst", action="store_true")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes (pytest-xdist)")
    options = parser.parse_args()
    files = chosen_files(options.words)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
        command += ["--rootdir", str(ase_tests()), f"--junitxml={report}", "--tb=short", "-W", "ignore"]
        command += ["-x"] if options.exitfirst else []
        command += ["-n", str(options.jobs)] if options.jobs > 1 else []
        paths = [str(HERE), str(HERE / "child"), os.environ.get("PYTHONPATH", "")]
        environment = dict(os.environ)
        if not options.emt:
            command += ["-p", "plugin"]
            environment["PYTHONPATH"] = os.pathsep.join(p for p in paths if p)
        subprocess.run([*command, *map(str, files)], env=environment, cwd=folder, check=False)
        results = read_results(report)
    return summarize(results, {} if options.emt else known_failures())


def summarize(results: dict[str, tuple[str, str]], known: dict[str, str]) -> int:
    """Print the counts and every failure; 1 if one is not known."""
    counts: dict[str, int] = {}
    for outcome, _ in results.values():
        counts[outcome] = counts.get(outcome, 0) + 1
    failed = {n: m for n, (o, m) in results.items() if o in ("failure", "error")}
    print("\n" + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    for name, message in failed.items():
        print(f"{'known' if name in known else 'NEW  '} {name}: {known.get(name, message)}")
    for name in sorted(set(known) & {n for n, (o, _) in results.items() if o == "passed"}):
        print(f"KNOWN.md lists {name}, which passes: take it out.")
    return int(bool(set(failed) - set(known)))


if __name__ == "__main__":
    sys.exit(main())
