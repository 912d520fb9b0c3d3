"""What diffbio-singlecell brings to the registry: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import (
    Declaration,
    Plugin,
    ReaderDeclaration,
    WriterDeclaration,
    hookimpl,
)
from diffbio.plugins.singlecell import (
    cells,
    counts,
    generative,
    groups,
    integration,
    maps,
    preprocessing,
    projections,
    trajectories,
)
from diffbio.plugins.singlecell.losses import LOSSES

_FAMILIES = (preprocessing, counts, projections, generative, maps, cells, groups, trajectories, integration)


@hookimpl
def diffbio_plugin() -> Plugin:
    """Return the single-cell operators, files, losses, recipes, plots and the demo."""
    return Plugin(
        api=1,
        operators=tuple(operator for family in _FAMILIES for operator in family.OPERATORS),
        readers=(
            ReaderDeclaration(
                name="single-cell",
                target="diffbio.io.singlecell:read",
                summary="AnnData (.h5ad, .zarr), 10x (.h5, .mtx folders).",
                suffixes=(".h5ad", ".zarr", ".h5", ".mtx", "/"),
            ),
        ),
        writers=(
            WriterDeclaration(
                name="h5ad",
                target="diffbio.io.singlecell:write",
                summary="AnnData with the results added.",
                suffixes=(".h5ad",),
            ),
        ),
        losses=LOSSES,
        recipes=(
            Declaration(
                name="annotation",
                target="diffbio.pipelines.singlecell:annotation_recipe",
                summary="Scaling, soft gene selection, learnable PCA, linear cell-type classifier.",
            ),
            Declaration(
                name="differentiation",
                target="diffbio.pipelines.singlecell.differentiation:differentiation_recipe",
                summary="Depth, denoising, PCA, Harmony, soft k-means, classifier, pseudotime; all trained jointly.",
            ),
        ),
        plots=(
            Declaration(
                name="annotation",
                target="diffbio.plots.singlecell:annotation_figures",
                summary="The embedding by predicted cell type; the confusion matrix where cells are labelled.",
            ),
        ),
        commands=(
            Declaration(
                name="demo",
                target="diffbio.pipelines.singlecell.demo:demo",
                summary="Train a pipeline on real cells, frozen against joint, and draw it.",
            ),
            Declaration(
                name="differentiation",
                target="diffbio.pipelines.singlecell.differentiation_report:differentiation",
                summary="Train seven stages jointly on a time course; report what each stage buys.",
            ),
            Declaration(
                name="atlas",
                target="diffbio.pipelines.singlecell.atlas.command:atlas",
                summary="Run the tools of the field beside diffbio on your own cells; report how they agree.",
            ),
        ),
    )
