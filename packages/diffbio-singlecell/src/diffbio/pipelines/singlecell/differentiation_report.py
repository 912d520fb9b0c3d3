"""`diffbio differentiation`: what joint training of seven stages does on a real time course, stage by stage."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from diffbio.core import Recipe, save
from diffbio.io.singlecell import AnnDataDataset, hsmm_myoblasts
from diffbio.pipelines.singlecell.comparison import interval
from diffbio.pipelines.singlecell.differentiation import (
    NOTHING_ELSE,
    Score,
    differentiation_recipe,
    unfreezing,
    with_plates,
)
from diffbio.training import Dataset, FitResult, StageGradient, data_options, prepare, stage_gradients


def differentiation(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("diffbio-differentiation"),
    seeds: Annotated[int, typer.Option(help="How many choices of hidden cells.", min=2)] = 5,
) -> None:
    """Train seven stages jointly on 271 myoblasts; report each stage's gradient, and what unfreezing it buys."""
    console = Console()
    recipe = differentiation_recipe()
    plated = with_plates(hsmm_myoblasts(), key=jax.random.key(0))  # one data set for all: the plates are part of it
    data = AnnDataDataset(plated, **data_options(recipe))
    console.print(f"HSMM: {len(data)} cells, {len(data.metadata['genes'])} genes, 4 time points, 2 planted plates")
    result, before, after = trained(recipe, data)
    console.print(gradient_table(before, after))
    scores = list(unfreezing(recipe, data, seeds=range(seeds)))
    console.print(unfreezing_table(scores))
    out.mkdir(parents=True, exist_ok=True)
    save(result.pipeline, out / "run", metadata=data.metadata, recipe=recipe)
    result.history.to_csv(out / "history.csv")
    with (out / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([Score._fields, *scores])
    console.print(f"written to {out}: run/, history.csv, scores.csv")


def trained(recipe: Recipe, data: Dataset) -> tuple[FitResult, dict[str, StageGradient], dict[str, StageGradient]]:
    """Train all stages on all cells, and return with the result each stage's gradient before and after.

    Args:
        recipe: Steps and plan.
        data: Cells with `labels`.
    """
    start, plan, loss, key = prepare(recipe, data, key=jax.random.key(0))  # the report's own, printed as it is
    arrays = data.take(np.arange(len(data)))
    result = plan.fit(start, data, loss, key=key)
    return result, stage_gradients(start, arrays, loss), stage_gradients(result.pipeline, arrays, loss)


def gradient_table(before: Mapping[str, StageGradient], after: Mapping[str, StageGradient]) -> Table:
    """Return the norms of the gradient at each stage, before and after training.

    Args:
        before: By stage.
        after: By stage.
    """
    table = Table(title="norm of the gradient of the joint loss", title_justify="left")
    for column in ("stage", "in its parameters: before", "after", "in what it writes: before", "after"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, start in before.items():
        norms = (start.parameters, after[stage].parameters, start.outputs, after[stage].outputs)
        table.add_row(stage, *("none" if norm is None else f"{norm:.2g}" for norm in norms))
    return table


def unfreezing_table(scores: Sequence[Score]) -> Table:
    """Return what training each stage beside the classifier buys on hidden cells: mean and 95 % interval, paired.

    Args:
        scores: Of all choices and seeds.
    """
    table = Table(title="cells whose time point was hidden, mean and 95 % interval", title_justify="left")
    for column in ("trained", "macro-F1", "gain", "rank correlation of pseudotime", "gain"):
        table.add_column(column, justify="left" if column == "trained" else "right")
    by_choice = {
        choice: [s for s in scores if s.trained == choice] for choice in dict.fromkeys(s.trained for s in scores)
    }
    base = by_choice[NOTHING_ELSE]
    for choice, chosen in by_choice.items():
        cells = []
        for figure in ("macro_f1", "rank_correlation"):
            values, reference = ([getattr(s, figure) for s in of] for of in (chosen, base))
            mean, gain = interval(values), interval([v - r for v, r in zip(values, reference, strict=True)])
            cells += [f"{mean.mean:.3f} ± {mean.half_width:.3f}"]
            cells += ["" if chosen is base else f"{gain.mean:+.3f} ± {gain.half_width:.3f}"]
        table.add_row(choice, *cells)
    return table
