"""Arrays of Coriell's cell lines, as DNAcopy ships them; no tests."""

import csv
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

CELL_LINES = {"GM05296": "Coriell.05296", "GM13330": "Coriell.13330"}


def r_output(script: str, *files: Path) -> str:
    """Run a script of R with DNAcopy, and return what it prints; skip the test where there is none."""
    if shutil.which("Rscript") is None:
        pytest.skip("no Rscript here")
    command = ["Rscript", "-e", f"suppressMessages(library(DNAcopy)); {script}", *map(str, files)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "no package called" in ran.stderr:
        pytest.skip("R has no DNAcopy here")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@cache
def coriell(cell_line: str) -> dict[str, np.ndarray]:
    """Return the clones of chromosomes 1 to 22 in order: `log2_ratio`, `bin_mask`, `chromosome`, `position` in kb."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "coriell.csv"
        r_output(f'data(coriell); write.csv(coriell, "{path}")')
        with path.open() as file:
            rows = list(csv.DictReader(file))
    chromosome, position = (np.array([int(row[name]) for row in rows]) for name in ("Chromosome", "Position"))
    ratio = np.array([float(row[CELL_LINES[cell_line]].replace("NA", "nan")) for row in rows], np.float32)
    order = np.lexsort((position, chromosome))[: (chromosome <= 22).sum()]
    found = {"chromosome": chromosome[order], "position": position[order], "bin_mask": ~np.isnan(ratio[order])}
    return {**found, "log2_ratio": np.nan_to_num(ratio[order])}


def starts(chromosome: np.ndarray) -> np.ndarray:
    """Return which bins are the first of a chromosome."""
    return np.diff(chromosome, prepend=chromosome[0] - 1) != 0
