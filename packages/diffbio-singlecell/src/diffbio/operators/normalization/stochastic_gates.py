"""Stochastic gates: a panel of few genes, found by gradient descent on the task that it is for.

Hard: among all sets of genes, take the one with the best loss + strength * number of genes. Relaxed: gene g passes a
gate that is drawn anew at each step,

    z_g = clip(mu_g + sigma * noise, 0, 1),    noise standard normal

and the number of genes is replaced by the expected number of gates that are not closed, sum_g Phi(mu_g / sigma), which
is smooth in mu. The noise opens closed gates now and then, so that a gene can come back, and closes open ones, so that
the loss says what each is worth. As sigma -> 0 the gate becomes clip(mu, 0, 1), which is also the form for inference,
and the probability becomes 1 for mu above 0 and 0 below.

References:
    Yamada, Lindenbaum, Negahban and Kluger, Feature selection using stochastic gates, ICML 2020.
    Louizos, Welling and Kingma, Learning sparse neural networks through L0 regularization, ICLR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.scipy.special import ndtr
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig, Softness


@dataclass(frozen=True, kw_only=True)
class StochasticGateSelectionConfig(OperatorConfig):
    """How many genes, and how noisy their gates are.

    Args:
        n_genes: Number of genes.
        start: Where the mean of every gate starts; at 0.5 a gate is as far from closed as from open.
        temperature: Standard deviation sigma of the noise, above 0, in the unit of the gate.
    """

    n_genes: Annotated[int, Ge(1)]
    start: float = 0.5
    temperature: Annotated[float, Gt(0)] = 0.5


class GatedGenes(NamedTuple):
    """The gates, how likely they are open, and the expression that passes.

    Attributes:
        gene_gate: In [0, 1].
        gate_probability: That a gate is not closed; the sum is the expected number of genes, the penalty to train with.
        gated: The scaled expression times the gate.
    """

    gene_gate: Float[Array, " genes"]
    gate_probability: Float[Array, " genes"]
    gated: Float[Array, "*cells genes"]


def stochastic_gates(
    mean: Float[Array, " genes"], *, sigma: ArrayLike, key: Array | None = None
) -> Float[Array, " genes"]:
    """Return clip(mean + sigma * noise, 0, 1), or clip(mean, 0, 1) without a key.

    Args:
        mean: Of each gate, any real numbers.
        sigma: Standard deviation of the noise, above 0.
        key: Random key of the noise.

    Returns:
        Gates in [0, 1] (genes,). A gate that is clipped has no gradient in this draw.

    References:
        Yamada et al. 2020, equation 5.

    Example:
        >>> stochastic_gates(jnp.array([-1.0, 0.25, 3.0]), sigma=0.5).tolist()
        [0.0, 0.25, 1.0]
    """
    noise = 0.0 if key is None else sigma * jax.random.normal(key, mean.shape, mean.dtype)
    return jnp.clip(mean + noise, 0.0, 1.0)


def open_probability(mean: Float[Array, " genes"], *, sigma: ArrayLike) -> Float[Array, " genes"]:
    """Return the probability that each gate is above 0: Phi(mean / sigma).

    Args:
        mean: Of each gate, any real numbers.
        sigma: Standard deviation of the noise, above 0.

    Returns:
        Values in [0, 1] (genes,), whose sum is the expected number of genes.

    References:
        Yamada et al. 2020, equation 6.

    Example:
        >>> open_probability(jnp.array([-9.0, 0.0, 9.0]), sigma=0.5).tolist()
        [0.0, 0.5, 1.0]
    """
    return ndtr(mean / sigma)


class StochasticGateSelection(Operator[StochasticGateSelectionConfig]):
    """Lets each gene pass a noisy gate, whose mean is learned together with the task.

    Reads `scaled` (*cells, genes); writes `gene_gate` (genes,), `gate_probability` (genes,) and `gated` (*cells,
    genes). All cells of a call share the gates, which are drawn from `key`. Train on the loss of the task plus a
    multiple of `gate_probability.mean()`; the genes whose mean is above 0 are the panel. After `.eval()` no noise is
    drawn (the key is asked for, and not used); `.train()` turns it on again.

    Args:
        config: Number of genes, start and noise.
        rngs: Wanted of every operator that draws; no parameter is drawn.

    Raises:
        MissingRandomnessError: `rngs` is missing.

    Example:
        >>> operator = StochasticGateSelection(StochasticGateSelectionConfig(n_genes=3), rngs=nnx.Rngs(0))
        >>> operator.eval()
        >>> data, _, _ = operator.apply({"scaled": jnp.ones((2, 3))}, {}, None, jax.random.key(0))
        >>> data["gene_gate"].tolist()
        [0.5, 0.5, 0.5]
    """

    def __init__(self, config: StochasticGateSelectionConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.mean = nnx.Param(jnp.full(config.n_genes, jnp.float32(config.start)))
        self.softness = Softness(config.temperature)
        self.deterministic = False  # the name that flax gives it: eval() and train() set it

    def compute(self, scaled: Float[Array, "*cells genes"], *, key: Array) -> GatedGenes:
        """Return the gates and the expression that passes them."""
        mean, sigma = self.mean[...], self.softness()
        gate = stochastic_gates(mean, sigma=sigma, key=None if self.deterministic else key)
        return GatedGenes(gate, open_probability(mean, sigma=sigma), scaled * gate)
