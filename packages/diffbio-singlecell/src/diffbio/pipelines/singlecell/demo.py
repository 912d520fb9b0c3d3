"""`diffbio demo`: the main job on real cells, start to end, in a few minutes and without a download."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from diffbio.core import Recipe, save
from diffbio.io.singlecell import AnnDataDataset, pbmc68k_reduced, write
from diffbio.pipelines.singlecell.annotation import annotation_recipe, with_components
from diffbio.pipelines.singlecell.comparison import (
    FROZEN,
    JOINT,
    Score,
    Trained,
    compare,
    interval,
    predict,
)
from diffbio.plots.singlecell import confusion_plot, embedding_panels, planar
from diffbio.training import Subset, data_options, transform

COMPONENTS = (5, 10, 50)
SHOWN = 5  # the figures and the saved pipeline are those of the smallest embedding, where joint training matters most


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("diffbio-demo"),
    seeds: Annotated[int, typer.Option(help="How many splits of the cells.", min=1)] = 5,
) -> None:
    """Annotate 700 blood cells: preprocessing frozen against trained end to end, beside logistic regression."""
    console = Console()
    recipe = annotation_recipe()
    data = AnnDataDataset(pbmc68k_reduced(), **data_options(recipe))
    classes = data.metadata["classes"]
    console.print(
        f"PBMC 68k (10x Genomics): {len(data)} cells, {len(data.metadata['genes'])} genes, {len(classes)} cell types; "
        f"one cell in five is held out, {seeds} splits"
    )
    scores, shown = _run(console, recipe, data, seeds)
    console.print(_table(scores))
    console.print(_paired(scores), highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    written = _write(out, with_components(recipe, SHOWN), data, scores, shown)
    console.print(f"written to {out}: {', '.join(written)}")
    console.print(f"next: diffbio apply {out / 'run'} YOUR.h5ad --out annotated.h5ad", highlight=False)


def _run(console: Console, recipe: Recipe, data: AnnDataDataset, seeds: int) -> tuple[list[Score], Trained]:
    scores: list[Score] = []
    shown: Trained | None = None
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=2 * len(COMPONENTS) * seeds + seeds)
        for score, trained in compare(recipe, data, components=COMPONENTS, seeds=range(seeds)):
            scores.append(score)
            if score.n_components == SHOWN and score.seed == 0:
                shown = trained
            progress.advance(task)
    assert shown is not None  # seed 0 is always run
    return scores, shown


def _table(scores: Sequence[Score]) -> Table:
    """Return the table of held-out scores: mean over the splits and its 95 % interval."""
    table = Table(title="held-out cells, mean and 95 % interval over splits", title_justify="left")
    for column in ("components", "model", "macro-F1", "balanced accuracy", "moved from its start"):
        table.add_column(column)
    for n_components, model in dict.fromkeys((score.n_components, score.model) for score in scores):
        chosen = [s for s in scores if (s.n_components, s.model) == (n_components, model)]
        f1, recall = interval([s.macro_f1 for s in chosen]), interval([s.balanced_accuracy for s in chosen])
        moved = sum(s.anchor is not None for s in chosen)
        table.add_row(
            str(n_components or "-"),
            model,
            f"{f1.mean:.3f} ± {f1.half_width:.3f}",
            f"{recall.mean:.3f} ± {recall.half_width:.3f}",
            f"{moved} of {len(chosen)}" if model == JOINT else "",
            end_section=model != FROZEN,
        )
    return table


def _paired(scores: Sequence[Score]) -> str:
    """Say how much joint training gains over frozen, split by split."""
    lines = ["joint minus frozen, paired over the splits (macro-F1, 95 % interval):"]
    for n_components in dict.fromkeys(s.n_components for s in scores if s.model == JOINT):
        values = {
            model: [s.macro_f1 for s in scores if (s.n_components, s.model) == (n_components, model)]
            for model in (FROZEN, JOINT)
        }
        gain = interval([j - f for j, f in zip(values[JOINT], values[FROZEN], strict=True)])
        lines.append(f"  {n_components:>2} components: {gain.mean:+.3f} ± {gain.half_width:.3f}")
    return "\n".join(lines)


def _write(out: Path, recipe: Recipe, data: AnnDataDataset, scores: Sequence[Score], shown: Trained) -> list[str]:
    classes, labels = data.metadata["classes"], data.take(np.arange(len(data)))["labels"]
    joint, test = shown.joint.pipeline, shown.cells.validation
    save(joint, out / "run", metadata=data.metadata, recipe=recipe)
    with as_file(files("diffbio.pipelines.singlecell") / "annotation.toml") as path:
        (out / "recipe.toml").write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    with (out / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([Score._fields, *scores])
    results = transform(joint, data)
    kept = {name: results[name] for name in ("embeddings", "cell_type_probabilities", "gene_gate")}
    held_out = np.isin(np.arange(len(data)), test)
    metadata = {**data.metadata, "recipe": recipe.to_dict()}
    write(out / "annotated.h5ad", data, {**kept, "held_out": held_out}, metadata=metadata)
    figures = {
        "training.png": shown.joint.history.plot(),
        "embedding.png": embedding_panels(
            {
                f"{FROZEN}: {SHOWN} principal components": planar(transform(shown.start, data)["embeddings"]),
                f"{JOINT}: {SHOWN} learned components": planar(results["embeddings"]),
            },
            labels,
            classes,
        ),
        "confusion.png": confusion_plot(
            labels[test],
            predict(joint, Subset(data, test)),
            classes,
            title=f"held-out cells, {JOINT}, {SHOWN} components",
        ).figure,
    }
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=150)
    graph = f"```mermaid\n{joint.to_mermaid()}\n```\n"
    (out / "pipeline.md").write_text(graph, encoding="utf-8")
    return ["annotated.h5ad", "run/", "recipe.toml", "scores.csv", *figures, "pipeline.md"]
