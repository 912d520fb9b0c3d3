"""Smooth relaxations of the hard decisions of bioinformatics; softness -> 0 gives the hard answer.

Every function takes `softness`, in the units of `x`. Index-valued results are distributions over the
last axis. The module imports jax and nothing else of diffbio.

Example:
    >>> import jax.numpy as jnp
    >>> from diffbio.core import soft_ops
    >>> x = jnp.array([1.0, 3.0, 2.0])
    >>> soft_ops.argmax(x, softness=1e-3).tolist()
    [0.0, 1.0, 0.0]
"""

from diffbio.core.soft_ops.comparison import greater
from diffbio.core.soft_ops.ordering import argmax, max, sort, top_k  # noqa: A004 - the names of jnp
from diffbio.core.soft_ops.threshold import top_k_mask

__all__ = ["argmax", "greater", "max", "sort", "top_k", "top_k_mask"]
