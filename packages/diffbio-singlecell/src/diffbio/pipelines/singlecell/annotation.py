"""Cell-type annotation, from log-normalized expression to a distribution over cell types."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import as_file, files

from diffbio.core import Recipe
from diffbio.core.errors import ConfigError


def annotation_recipe() -> Recipe:
    """Return the recipe of the annotation pipeline: scaling, gene selection, projection, classifier.

    Example:
        >>> [step.name for step in annotation_recipe().steps]
        ['scaling', 'genes', 'projection', 'classifier']
    """
    with as_file(files("diffbio.pipelines.singlecell") / "annotation.toml") as path:
        return Recipe.read(path)


def with_components(recipe: Recipe, n_components: int) -> Recipe:
    """Return the recipe with another number of components of its projection.

    Args:
        recipe: A recipe with a `PCAProjection` step.
        n_components: At least 1.

    Raises:
        ConfigError: The recipe has no such step.

    Example:
        >>> with_components(annotation_recipe(), 5).steps[2].config["n_components"]
        5
    """
    if all(step.operator != "PCAProjection" for step in recipe.steps):
        raise ConfigError("the recipe has no PCAProjection step whose components could be set")
    steps = tuple(
        replace(step, config={**step.config, "n_components": n_components})
        if step.operator == "PCAProjection"
        else step
        for step in recipe.steps
    )
    return replace(recipe, steps=steps)
