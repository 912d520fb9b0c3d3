"""Losses of batch correction: how far batches differ, and how well cells are still described.

The maximum mean discrepancy of two batches with distributions P and Q under a kernel k is

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)     for x, x' of P and y, y' of Q

which is 0 if and only if P = Q. The estimate leaves each cell out of its own mean, so its expectation is that value
for any number of cells of either batch: 0 for equal batches, and slightly below 0 as often as above. The kernel is
the mean of Gaussians of five widths around the median squared distance between cells.

References:
    Gretton et al., A kernel two-sample test, JMLR 2012 (lemma 6, the unbiased estimate; the median heuristic).
    Shaham et al., Removal of batch effects using distribution-matching residual networks, Bioinformatics 2017.
    Ganin et al., Domain-adversarial training of neural networks, JMLR 2016.
    Mescheder, Geiger and Nowozin, Which training methods for GANs do actually converge?, ICML 2018 (the penalty).
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import soft_ops
from diffbio.core.errors import ContractError
from diffbio.core.reading import read

_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels, in units of the median squared distance
_CELLS_FOR_THE_MEDIAN = 256
_BLOCK = 256  # cells per block: it changes memory, not the result


def median_squared_distance(
    cells: Float[Array, "cells features"], where: Bool[Array, " cells"], *, softness: ArrayLike = 0.1
) -> Float[Array, ""]:
    """Return the soft median of the squared distances between cells, of at most 256 cells in strides.

    Args:
        cells: Coordinates (cells, features).
        where: Which of them count.
        softness: Above 0, as a share of the mean squared distance.

    Returns:
        A scalar in the squared unit of `cells`, in proportion to it; 1 where all cells are equal, or only one counts.

    References:
        Gretton et al. 2012 (section 8).

    Example:
        >>> cells = jnp.array([[0.0], [1.0], [2.0]])
        >>> round(float(median_squared_distance(cells, jnp.ones(3, bool), softness=1e-3)), 2)
        1.0
    """
    if cells.shape[0] < 2:
        return jnp.ones((), cells.dtype)
    stride = -(-cells.shape[0] // _CELLS_FOR_THE_MEDIAN)
    some, counts = cells[::stride], where[::stride]
    rows, columns = jnp.triu_indices(some.shape[0], k=1)
    both = counts[rows] & counts[columns]
    squared = jnp.where(both, jnp.square(some[rows] - some[columns]).sum(-1), 0.0)
    mean = squared.sum() / jnp.maximum(both.sum(), 1)
    varied = mean > 0
    relative = squared / jnp.where(varied, mean, 1.0)
    # half of the cells may be equal, and a kernel of width 0 compares nothing
    median = jnp.maximum(soft_ops.median(relative, softness=softness, where=both), 1e-3)
    return jnp.where(varied, mean * median, 1.0)


def maximum_mean_discrepancy(
    cells: Float[Array, "cells features"],
    batch_labels: Int[Array, " cells"],
    *,
    n_batches: int,
    bandwidth: ArrayLike | None = None,
) -> Float[Array, ""]:
    """Return the unbiased squared maximum mean discrepancy, as the mean over all pairs of batches.

    Args:
        cells: Coordinates (cells, features).
        batch_labels: Codes from 0; a cell with another code, by convention -1, does not count.
        n_batches: Number of batches, at least 2. A batch of fewer than two cells does not count.
        bandwidth: Squared distance at which the middle kernel falls to 1 / e; by default the soft median squared
            distance, with its gradient, so that shrinking all cells together lowers nothing.

    Returns:
        A scalar, at most 2, around 0 for equal batches. Time grows as cells^2, memory as cells x 256.

    Raises:
        ContractError: There are fewer than two batches.

    References:
        Gretton et al. 2012 (lemma 6).

    Example:
        >>> cells, batches = jnp.array([[0.0], [0.1], [9.0], [9.1]]), jnp.array([0, 0, 1, 1])
        >>> bool(maximum_mean_discrepancy(cells, batches, n_batches=2) > 0.5)
        True
    """
    if n_batches < 2:
        raise ContractError(f"n_batches is {n_batches}; batches differ where there are at least 2")
    indicators = jax.nn.one_hot(batch_labels, n_batches, dtype=cells.dtype)
    if bandwidth is None:
        bandwidth = median_squared_distance(cells, indicators.sum(1) > 0)
    cells = cells - lax.stop_gradient(cells.mean(0))  # keeps the products small, hence exact
    norms = jnp.square(cells).sum(1)
    padding = -cells.shape[0] % _BLOCK

    @jax.checkpoint  # else the gradient would keep cells x cells
    def block_sums(block: tuple[Array, Array, Array]) -> Array:
        rows, row_norms, row_indicators = block
        products = jnp.matmul(rows, cells.T, precision=lax.Precision.HIGHEST)
        relative = jnp.maximum(row_norms[:, None] + norms - 2 * products, 0.0) / bandwidth
        kernel = sum(jnp.exp(-relative / width) for width in _WIDTHS) / len(_WIDTHS)
        return row_indicators.T @ (kernel @ indicators)

    blocks = tuple(
        jnp.pad(array, ((0, padding), *[(0, 0)] * (array.ndim - 1))).reshape(-1, _BLOCK, *array.shape[1:])
        for array in (cells, norms, indicators)
    )
    sums = lax.map(block_sums, blocks).sum(0)
    n = indicators.sum(0)
    within = (jnp.diagonal(sums) - n) / jnp.maximum(n * (n - 1), 1)  # a cell has kernel 1 with itself
    between = sums / jnp.maximum(n[:, None] * n, 1)
    squared = within[:, None] + within - 2 * between
    counts = jnp.triu((n[:, None] > 1) & (n > 1), k=1)
    return jnp.where(counts, squared, 0.0).sum() / jnp.maximum(counts.sum(), 1)


def batch_reconstruction(data: Mapping[str, Array]) -> Float[Array, ""]:
    """Return the share of the variance of `embeddings` that `reconstructed_embeddings` lacks.

    Args:
        data: Holds `embeddings` and `reconstructed_embeddings` (cells, features), in one unit.

    Returns:
        A scalar: 0 for a perfect reconstruction, 1 for one by the mean.

    Raises:
        MissingKeyError: A key is missing.

    Example:
        >>> cells = jnp.array([[0.0], [2.0]])
        >>> float(batch_reconstruction({"embeddings": cells, "reconstructed_embeddings": jnp.ones((2, 1))}))
        1.0
    """
    cells, rebuilt = read("batch_reconstruction", data, "embeddings", "reconstructed_embeddings")
    spread = lax.stop_gradient(jnp.square(cells - cells.mean(0)).mean())
    return jnp.square(cells - rebuilt).mean() / jnp.where(spread > 0, spread, 1.0)


def mmd_batch_correction(data: Mapping[str, Array], *, n_batches: int, weight: float = 1.0) -> Float[Array, ""]:
    """Return the reconstruction loss plus `weight` times the discrepancy of batches in the latent space.

    Args:
        data: What `MMDBatchCorrection` reads and writes: `embeddings`, `reconstructed_embeddings`, `latent`
            (cells, latents) and `batch_labels` (cells,).
        n_batches: Number of batches.
        weight: How much mixing counts beside reconstruction, at least 0.

    Returns:
        A scalar.

    Raises:
        MissingKeyError: A key is missing.

    Example:
        >>> cells, batches = jnp.array([[0.0], [1.0], [0.0], [1.0]]), jnp.array([0, 0, 1, 1])
        >>> data = {"embeddings": cells, "reconstructed_embeddings": cells, "latent": cells, "batch_labels": batches}
        >>> bool(mmd_batch_correction(data, n_batches=2) < 0.01)
        True
    """
    latent, batch_labels = read("mmd_batch_correction", data, "latent", "batch_labels")
    discrepancy = maximum_mean_discrepancy(latent, batch_labels, n_batches=n_batches)
    return batch_reconstruction(data) + weight * discrepancy


def adversarial_batch_correction(
    data: Mapping[str, Array], *, weight: float = 1.0, penalty: float = 1.0
) -> Float[Array, ""]:
    """Return the reconstruction loss plus `weight` times the penalized cross-entropy of the batch that is recognized.

    One descent trains both sides: the discriminator lowers the cross-entropy, and the encoder, behind the reversed
    gradient of `AdversarialBatchCorrection`, raises it. The penalty on the slope of the discriminator at the cells lets
    both come to rest.

    Args:
        data: What that operator reads and writes: `embeddings`, `reconstructed_embeddings`, `batch_logits`
            (cells, batches), `batch_slopes` (cells,) and `batch_labels` (cells,). A cell of another label than a batch
            does not count. Each batch counts the same, whatever its number of cells.
        weight: How much mixing counts beside reconstruction, at least 0.
        penalty: How much a squared slope of the discriminator counts beside the cross-entropy, at least 0.

    Returns:
        A scalar; the cross-entropy is log(batches), in nats, where batches can't be told apart.

    Raises:
        MissingKeyError: A key is missing.

    Example:
        >>> cells, batches = jnp.ones((2, 1)), jnp.array([0, 1])
        >>> data = {"embeddings": cells, "reconstructed_embeddings": cells, "batch_labels": batches}
        >>> data |= {"batch_logits": jnp.zeros((2, 2)), "batch_slopes": jnp.zeros(2)}
        >>> loss = adversarial_batch_correction(data)
        >>> bool(jnp.allclose(loss, jnp.log(2)))
        True
    """
    keys = ("batch_logits", "batch_slopes", "batch_labels")
    logits, slopes, batch_labels = read("adversarial_batch_correction", data, *keys)
    indicators = jax.nn.one_hot(batch_labels, logits.shape[-1], dtype=logits.dtype)
    n = indicators.sum(0)
    weights = indicators @ (1 / jnp.maximum(n, 1)) / jnp.maximum((n > 0).sum(), 1)
    surprise = optax.softmax_cross_entropy(logits, indicators)
    return batch_reconstruction(data) + weight * jnp.sum(weights * (surprise + penalty * slopes))
