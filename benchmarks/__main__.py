"""`python -m benchmarks [name ...]`: run the chosen benchmarks, or all, each in a process of its own, on one core."""

import argparse
import subprocess
import sys

from benchmarks import BENCHMARKS
from benchmarks.measure import on_one_core
from benchmarks.report import table, write_readme


def main() -> int:
    """Run what the command line names; the exit status is 1 where a bar is missed."""
    listing = "\n".join(f"  {name:12}{what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description=f"Benchmarks of diffbio:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="a benchmark; by default all")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    on_one_core()
    for name in names:
        print(f"{name}: {BENCHMARKS[name]}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
    rows, all_met = table(names)
    print(rows)
    write_readme()
    return 0 if all_met else 1


sys.exit(main())
