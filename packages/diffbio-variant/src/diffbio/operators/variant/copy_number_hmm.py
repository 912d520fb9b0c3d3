"""A hidden Markov model of copy number along a genome.

Hard: the most likely sequence of copy numbers c (Viterbi), where neighbouring bins rarely differ, and the log2 ratio of
a bin has a normal distribution around

    mean(c) = log2 (purity c + (1 - purity) 2) - log2 (purity ploidy + (1 - purity) 2)

Relaxed: the sum over all sequences, each with the weight probability^(1 / tau). With tau = 1, and only so, this is the
likelihood of the model, and each bin gets the posterior of its copy number. As tau -> 0 these become the
log-probability of the most likely sequence, and 1 for its copy numbers.

References:
    Fridlyand et al., Hidden Markov models approach to the analysis of array CGH data, Journal of Multivariate Analysis
    2004.
    Van Loo et al., Allele-specific copy number analysis of tumors, PNAS 2010: purity and ploidy.
    Rabiner, A tutorial on hidden Markov models, Proceedings of the IEEE 1989.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Lt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Scalar

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.operators.variant.hidden_chain import NEVER, best_path, chain_steps, path_sums
from diffbio.operators.variant.noise import neighbour_noise


@dataclass(frozen=True, kw_only=True)
class CopyNumberHMMConfig(OperatorConfig):
    """The model before training.

    Args:
        n_states: Copy numbers 0, 1, ..., n_states - 1.
        purity: Share of the cells that have these copy numbers; the others have two copies. It also describes how
            arrays compress ratios.
        ploidy: Mean copy number of those cells, whose log2 ratio is 0.
        means: What training changes of the mean log2 ratios: `purity` (with the ploidy), or `free` for all of them.
        std: Standard deviation of the log2 ratio of a bin.
        tied_std: Whether all copy numbers have one standard deviation.
        baf_std: Standard deviation of the B-allele frequency of a bin.
        change_probability: That the copy number of the next bin, `bin_distance` away, is another one.
        bin_distance: In base pairs; counts only where bins have positions.
        temperature: The softness tau; with 1 the posterior is that of the model.
    """

    n_states: Annotated[int, Ge(2)] = 7
    purity: Annotated[float, Gt(0), Lt(1)] = 0.95
    ploidy: Annotated[float, Gt(0)] = 2.0
    means: Literal["purity", "free"] = "purity"
    std: Annotated[float, Gt(0)] = 0.2
    tied_std: bool = True
    baf_std: Annotated[float, Gt(0)] = 0.05
    change_probability: Annotated[float, Gt(0), Lt(1)] = 1e-3
    bin_distance: Annotated[float, Gt(0)] = 1e6
    temperature: Annotated[float, Gt(0)] = 1.0


class CopyNumbers(NamedTuple):
    """What the model says of each bin.

    Attributes:
        copy_number_posterior: Probability of each copy number (bins, states); rows sum to 1. Masked bins have that of
            the bin before them.
        expected_copy_number: Its mean (bins,).
        copy_number_log_likelihood: Of all bins, in nats ().
    """

    copy_number_posterior: Float[Array, "bins states"]
    expected_copy_number: Float[Array, " bins"]
    copy_number_log_likelihood: Float[Scalar, ""]


def copy_number_means(copies: Float[Array, " states"], purity: ArrayLike, ploidy: ArrayLike) -> Float[Array, " states"]:
    """Return the mean log2 ratio of bins of some copy number.

    Args:
        copies: Copy numbers of the cells of interest.
        purity: Their share, in (0, 1); the others have two copies.
        ploidy: Their mean copy number, above 0.

    References:
        Van Loo et al., PNAS 2010.

    Example:
        >>> [round(mean, 2) for mean in copy_number_means(jnp.arange(4.0), 0.9, 2.0).tolist()]
        [-3.32, -0.86, 0.0, 0.54]
    """
    normal = 2.0 * (1 - purity)
    return jnp.log2(purity * copies + normal) - jnp.log2(purity * ploidy + normal)


def log_ratio_density(
    log2_ratio: Float[Array, " bins"], mean: Float[Array, " states"], std: Float[Array, " *states"]
) -> Float[Array, "bins states"]:
    """Return the log of the normal density of each log2 ratio, for each copy number.

    Args:
        log2_ratio: Of the bins.
        mean: Of each copy number.
        std: Of each, or of all; above 0.

    Example:
        >>> densities = log_ratio_density(jnp.zeros(1), jnp.array([0.0, 1.0]), jnp.ones(()))
        >>> [round(density, 3) for density in densities[0].tolist()]
        [-0.919, -1.419]
    """
    return -0.5 * ((log2_ratio[:, None] - mean) / std) ** 2 - jnp.log(std) - 0.5 * math.log(2 * math.pi)


def allele_density(
    baf: Float[Array, " bins"], n_states: int, purity: ArrayLike, std: ArrayLike
) -> Float[Array, "bins states"]:
    """Return the log-density of each B-allele frequency, for each copy number.

    Of c copies, m = 0, ..., floor(c / 2) are of the rarer allele, each m as likely; which of the two is B is open:

        1/2 N(baf; f, std) + 1/2 N(baf; 1 - f, std)        f = (purity m + 1 - purity) / (purity c + 2 (1 - purity))

    Args:
        baf: B-allele frequency of heterozygous sites, mirrored or not, in [0, 1].
        n_states: Copy numbers 0, 1, ..., n_states - 1.
        purity: Share of the cells with these copy numbers, in (0, 1).
        std: Standard deviation, above 0.

    References:
        Van Loo et al., PNAS 2010.

    Example:
        >>> densities = allele_density(jnp.array([0.5, 0.667]), 4, 0.99, 0.05)  # balanced, and two of three
        >>> densities[:, 1:].argmax(1).tolist()
        [1, 2]
    """
    copies, rarer = np.arange(n_states)[:, None], np.arange((n_states - 1) // 2 + 1)
    possible = rarer <= copies // 2
    chance = jnp.asarray(np.where(possible, -np.log(2 * possible.sum(1, keepdims=True)), NEVER), baf.dtype)
    frequency = (purity * rarer + 1 - purity) / (purity * copies + 2 * (1 - purity))
    each = [chance - 0.5 * ((baf[:, None, None] - f) / std) ** 2 for f in (frequency, 1 - frequency)]
    return jax.nn.logsumexp(jnp.concatenate(each, -1), axis=-1) - jnp.log(std) - 0.5 * math.log(2 * math.pi)


class CopyNumberHMM(Operator[CopyNumberHMMConfig]):
    """Find the copy number of each bin, with its uncertainty.

    Reads `log2_ratio` (bins,), and optionally `bin_mask` (bins,), which bins count, `segment_start` (bins,), which are
    the first of a chromosome, `bin_position` (bins,) in base pairs within the chromosome, `baf` (bins,), the B-allele
    frequency of heterozygous sites, and `baf_mask` (bins,), which bins have one; writes `copy_number_posterior` (bins,
    states), `expected_copy_number` (bins,) and `copy_number_log_likelihood` (). Parameters: `purity_logit` () and
    `log_ploidy` (), or else `state_mean` (states,), `log_std` () or (states,), `log_baf_std` (), `transition_logits`
    (states, states) and `start_logits` (states,).

    Args:
        config: The model before training.
        rngs: Not used: nothing is drawn.

    Example:
        >>> hmm = CopyNumberHMM(CopyNumberHMMConfig(n_states=4, std=0.1))
        >>> data = {"log2_ratio": jnp.array([0.05, -0.1, 0.5, 0.6, 0.5, 0.0, 0.1])}
        >>> [round(copies, 1) for copies in hmm.apply(data, {}, None)[0]["expected_copy_number"].tolist()]
        [2.0, 2.0, 3.0, 3.0, 3.0, 2.0, 2.0]
    """

    def __init__(self, config: CopyNumberHMMConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        n, change = config.n_states, config.change_probability
        logit = math.log(config.purity / (1 - config.purity))
        self.purity_logit = (nnx.Param if config.means == "purity" else nnx.Variable)(jnp.float32(logit))
        if config.means == "purity":
            self.log_ploidy = nnx.Param(jnp.float32(math.log(config.ploidy)))
        else:
            copies = jnp.arange(n, dtype=jnp.float32)
            self.state_mean = nnx.Param(copy_number_means(copies, config.purity, config.ploidy))
        self.log_std = nnx.Param(jnp.full(() if config.tied_std else n, math.log(config.std), jnp.float32))
        self.log_baf_std = nnx.Param(jnp.float32(math.log(config.baf_std)))
        transition = np.where(np.eye(n) == 1, 1 - change, change / (n - 1))
        self.transition_logits = nnx.Param(jnp.asarray(np.log(transition), jnp.float32))
        self.start_logits = nnx.Param(jnp.zeros(n, jnp.float32))
        self.softness = Softness(config.temperature)

    def initialize(self, log2_ratio: Float[Array, " bins"], bin_mask: Bool[Array, " bins"] | None = None) -> None:
        """Set the standard deviation to that of the differences of neighbouring bins; see `neighbour_noise`."""
        self.log_std[...] = jnp.broadcast_to(jnp.log(neighbour_noise(log2_ratio, bin_mask)), self.log_std[...].shape)

    def means(self) -> Float[Array, " states"]:
        """Return the mean log2 ratio of each copy number."""
        if self.config.means == "free":
            return self.state_mean[...]
        copies = jnp.arange(self.config.n_states, dtype=self.purity_logit[...].dtype)
        return copy_number_means(copies, jax.nn.sigmoid(self.purity_logit[...]), jnp.exp(self.log_ploidy[...]))

    def compute(  # noqa: PLR0917 - the data keys that it reads
        self,
        log2_ratio: Float[Array, " bins"],
        bin_mask: Bool[Array, " bins"] | None = None,
        segment_start: Bool[Array, " bins"] | None = None,
        bin_position: Int[Array, " bins"] | None = None,
        baf: Float[Array, " bins"] | None = None,
        baf_mask: Bool[Array, " bins"] | None = None,
    ) -> CopyNumbers:
        """Return posterior, its mean, and the log-likelihood."""
        softness = self.softness()
        chain = self.chain(log2_ratio, bin_mask, segment_start, bin_position, baf, baf_mask, softness=softness)
        found = path_sums(chain)
        expected = found.posterior @ jnp.arange(self.config.n_states, dtype=found.posterior.dtype)
        return CopyNumbers(found.posterior, expected, softness * found.log_sum)

    def chain(  # noqa: PLR0917 - the data keys that `compute` reads
        self,
        log2_ratio: Float[Array, " bins"],
        bin_mask: Bool[Array, " bins"] | None = None,
        segment_start: Bool[Array, " bins"] | None = None,
        bin_position: Int[Array, " bins"] | None = None,
        baf: Float[Array, " bins"] | None = None,
        baf_mask: Bool[Array, " bins"] | None = None,
        *,
        softness: ArrayLike = 1.0,
    ) -> Float[Array, "bins states states"]:
        """Return the log-weights of the chain; `best_path` of them is the most likely sequence of copy numbers."""
        n_states = self.config.n_states
        log_density = log_ratio_density(_seen(log2_ratio, bin_mask), self.means(), jnp.exp(self.log_std[...]))
        if baf is not None:
            purity, std = jax.nn.sigmoid(self.purity_logit[...]), jnp.exp(self.log_baf_std[...])
            density = allele_density(_seen(_seen(baf, bin_mask), baf_mask), n_states, purity, std)
            log_density += density if baf_mask is None else jnp.where(baf_mask[:, None], density, 0.0)
        return chain_steps(
            log_density,
            jax.nn.log_softmax(self.transition_logits[...], axis=-1),
            jax.nn.log_softmax(self.start_logits[...]),
            softness=softness,
            bin_mask=bin_mask,
            segment_start=segment_start,
            distance=None if bin_position is None else bin_position / self.config.bin_distance,
        )

    def most_likely(self, log2_ratio: Float[Array, " bins"], **others: Array) -> Int[Array, " bins"]:
        """Return the most likely sequence of copy numbers (Viterbi), an integer each, without gradient.

        Args:
            log2_ratio: Of the bins.
            **others: What else `compute` reads, by name.
        """
        return best_path(self.chain(log2_ratio, **others))


def _seen(values: Array, mask: Bool[Array, " bins"] | None) -> Array:
    """Return values with zeros where they don't count, so that nothing there reaches a derivative."""
    return values if mask is None else jnp.where(mask, values, 0.0)
