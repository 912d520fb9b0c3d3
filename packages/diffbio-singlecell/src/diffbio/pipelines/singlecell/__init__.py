"""Pipelines of single-cell analysis that come as recipes."""

from diffbio.pipelines.singlecell.annotation import annotation_recipe, with_components

__all__ = ["annotation_recipe", "with_components"]
