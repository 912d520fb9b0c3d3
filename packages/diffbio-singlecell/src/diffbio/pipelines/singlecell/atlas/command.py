"""`diffbio atlas`: the comparisons with the field's tools, on the user's own cells."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from diffbio.core.errors import listed
from diffbio.pipelines.singlecell.atlas import report
from diffbio.pipelines.singlecell.atlas.cells import Atlas, read_cells
from diffbio.pipelines.singlecell.atlas.families import FAMILIES, chosen, compare


def atlas(
    file: Annotated[Path, typer.Argument(help="The cells, such as atlas.h5ad.")],
    *,
    labels: Annotated[str | None, typer.Option(help="Column of obs with cell types.")] = None,
    batch: Annotated[str | None, typer.Option(help="Column of obs with batches.")] = None,
    time: Annotated[str | None, typer.Option(help="Column of obs with times, to judge pseudotime by.")] = None,
    layer: Annotated[str | None, typer.Option(help="The layer to read; X by default.")] = None,
    use_raw: Annotated[bool, typer.Option("--use-raw", help="Read .raw.X.")] = False,
    cells: Annotated[int, typer.Option(help="How many cells to draw at most.", min=1)] = 5000,
    seed: Annotated[int, typer.Option(help="Seed of everything random, of the draw too.", min=0)] = 0,
    only: Annotated[str | None, typer.Option(help=f"Families, by commas, of {listed(FAMILIES)}.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("diffbio-atlas"),
) -> None:
    """Run diffbio and the tools of the field on the same cells of FILE; report how they agree, and the time of each."""
    console = Console()
    wanted = chosen(name.strip() for name in only.split(",")) if only else []
    drawn = read_cells(
        file, labels=labels, batch=batch, time=time, layer=layer, use_raw=use_raw, n_cells=cells, seed=seed
    )
    console.print(f"{file.name}: {_described(drawn)}", highlight=False, markup=False)
    results = {}
    for name in wanted or FAMILIES:
        with console.status(name):
            rows = results[name] = compare(name, drawn, asked=bool(wanted))
        console.print(f"{name}: {report.state(rows)}", highlight=False)
    console.print(report.table(results))
    for line in report.not_run(results):
        console.print(line, highlight=False, markup=False)
    about = {
        "file": str(file),
        "cells": len(drawn),
        "genes": drawn.normalized.shape[1],
        "options": {"labels": labels, "batch": batch, "time": time, "layer": layer, "use_raw": use_raw, "seed": seed},
        "diffbio-singlecell": version("diffbio-singlecell"),
        "jax": version("jax"),
    }
    written = report.write(out, results, about)
    console.print(report.summary(results), highlight=False)
    console.print(f"written to {out}: {', '.join(written)}", highlight=False, markup=False)


def _described(cells: Atlas) -> str:
    """Say what was drawn."""
    kind = "log-normalized values, taken as they are" if cells.counts is None else "raw counts"
    groups = [
        f"{int(codes.max()) + 1} {name}"
        for name, codes in (("types", cells.labels), ("batches", cells.batches))
        if codes is not None
    ]
    return ", ".join([f"{len(cells)} cells x {cells.normalized.shape[1]} genes", kind, *groups])
