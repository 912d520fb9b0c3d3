"""Smooth relaxations of the hard decisions of bioinformatics; softness -> 0 gives the hard answer.

Every relaxation takes `softness` and a `mode` of smoothness (see `modes`); truth values are in [0, 1] (`SoftBool`), and
index-valued results are distributions over the last axis (`SoftIndex`). Relaxed random draws are in `soft_ops.random`.
The module imports jax and nothing else of diffbio.

Example:
    >>> import jax.numpy as jnp
    >>> from diffbio.core import soft_ops
    >>> x = jnp.array([1.0, 3.0, 2.0])
    >>> soft_ops.argmax(x, softness=1e-3).tolist()
    [0.0, 1.0, 0.0]
"""

# ruff: noqa: A004 - the names of jnp
from diffbio.core.soft_ops import random
from diffbio.core.soft_ops.comparison import equal, greater, greater_equal, isclose, less, less_equal, not_equal
from diffbio.core.soft_ops.cumulative import cumulative_max, cumulative_min
from diffbio.core.soft_ops.elementwise import abs, clip, heaviside, relu, round, sigmoidal, sign, softrelu
from diffbio.core.soft_ops.extrema import argmax, argmin, max, min
from diffbio.core.soft_ops.logical import all, any, logical_and, logical_not, logical_or, logical_xor
from diffbio.core.soft_ops.modes import Mode
from diffbio.core.soft_ops.quantiles import argmedian, argpercentile, argquantile, median, percentile, quantile
from diffbio.core.soft_ops.ranking import rank
from diffbio.core.soft_ops.safe_math import arccos, arcsin, div, log, norm, sqrt
from diffbio.core.soft_ops.scaling import SoftBool, SoftIndex
from diffbio.core.soft_ops.selection import (
    choose,
    dynamic_index_in_dim,
    dynamic_slice,
    dynamic_slice_in_dim,
    take,
    take_along_axis,
    where,
)
from diffbio.core.soft_ops.sorting import argsort, sort
from diffbio.core.soft_ops.straight_through import (
    abs_st,
    argmax_st,
    argmedian_st,
    argmin_st,
    argpercentile_st,
    argquantile_st,
    argsort_st,
    clip_st,
    equal_st,
    grad_replace,
    greater_equal_st,
    greater_st,
    heaviside_st,
    isclose_st,
    less_equal_st,
    less_st,
    max_st,
    median_st,
    min_st,
    not_equal_st,
    percentile_st,
    quantile_st,
    rank_st,
    relu_st,
    round_st,
    sign_st,
    sort_st,
    st,
    top_k_mask_st,
    top_k_st,
)
from diffbio.core.soft_ops.threshold import top_k_mask
from diffbio.core.soft_ops.topk import TopK, top_k

__all__ = [
    "Mode",
    "SoftBool",
    "SoftIndex",
    "TopK",
    "abs",
    "abs_st",
    "all",
    "any",
    "arccos",
    "arcsin",
    "argmax",
    "argmax_st",
    "argmedian",
    "argmedian_st",
    "argmin",
    "argmin_st",
    "argpercentile",
    "argpercentile_st",
    "argquantile",
    "argquantile_st",
    "argsort",
    "argsort_st",
    "choose",
    "clip",
    "clip_st",
    "cumulative_max",
    "cumulative_min",
    "div",
    "dynamic_index_in_dim",
    "dynamic_slice",
    "dynamic_slice_in_dim",
    "equal",
    "equal_st",
    "grad_replace",
    "greater",
    "greater_equal",
    "greater_equal_st",
    "greater_st",
    "heaviside",
    "heaviside_st",
    "isclose",
    "isclose_st",
    "less",
    "less_equal",
    "less_equal_st",
    "less_st",
    "log",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "max",
    "max_st",
    "median",
    "median_st",
    "min",
    "min_st",
    "norm",
    "not_equal",
    "not_equal_st",
    "percentile",
    "percentile_st",
    "quantile",
    "quantile_st",
    "random",
    "rank",
    "rank_st",
    "relu",
    "relu_st",
    "round",
    "round_st",
    "sigmoidal",
    "sign",
    "sign_st",
    "softrelu",
    "sort",
    "sort_st",
    "sqrt",
    "st",
    "take",
    "take_along_axis",
    "top_k",
    "top_k_mask",
    "top_k_mask_st",
    "top_k_st",
    "where",
]
