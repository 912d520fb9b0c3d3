"""The arcsinh transform of cytometry: linear around zero, logarithmic above, with one cofactor for each channel.

    transformed = arcsinh(intensity / cofactor)

Intensities of fluorescence and mass cytometry are noisy around zero, and may be negative there, and grow by factors
above. The cofactor is the intensity at which the one turns into the other: commonly 5 for mass cytometry, 150 for
fluorescence. Here each channel has its own, which may be learned. Nothing is relaxed: the transform is smooth as it is.

References:
    Bendall et al., Single-cell mass cytometry of differential immune and drug responses across a human hematopoietic
    continuum, Science 2011.
    Azad, Rajwa and Pothen, flowVS: channel-specific variance stabilization in flow cytometry, BMC Bioinformatics 2016
    (cofactors from data).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from diffbio.core import Operator, OperatorConfig


@dataclass(frozen=True, kw_only=True)
class ArcsinhTransformConfig(OperatorConfig):
    """How many channels, and where they turn from linear to logarithmic.

    Args:
        n_channels: Number of channels.
        cofactor: Intensity at which the transform turns, above 0, the same for all channels; starting value if
            learnable.
        learnable: Whether training changes the cofactor of each channel.
    """

    n_channels: Annotated[int, Ge(1)]
    cofactor: Annotated[float, Gt(0)] = 5.0
    learnable: bool = True


class TransformedIntensities(NamedTuple):
    """Intensities after the transform.

    Attributes:
        transformed: Nats; 0 at intensity 0, odd, about log(2 intensity / cofactor) far above the cofactor.
    """

    transformed: Float[Array, "*cells channels"]


def arcsinh_transform(
    intensities: Float[Array, "*cells channels"], cofactor: ArrayLike
) -> Float[Array, "*cells channels"]:
    """Return arcsinh(intensities / cofactor).

    Args:
        intensities: Any real numbers.
        cofactor: Above 0, in the unit of the intensities; a scalar or one per channel.

    Returns:
        The shape of `intensities`, in nats.

    References:
        Bendall et al. 2011.

    Example:
        >>> [round(value, 3) for value in arcsinh_transform(jnp.array([-5.0, 0.0, 500.0]), 5.0).tolist()]
        [-0.881, 0.0, 5.298]
    """
    return _arcsinh(intensities / cofactor)


@jax.custom_jvp
def _arcsinh(x: Array) -> Array:
    return jnp.arcsinh(x)


@_arcsinh.defjvp
def _arcsinh_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Differentiate by hypot, which does not overflow where 1 + x^2 does."""
    (x,), (dx,) = primals, tangents
    return _arcsinh(x), dx / jnp.hypot(1.0, x)


class ArcsinhTransform(Operator[ArcsinhTransformConfig]):
    """Transforms intensities of cytometry by arcsinh, with a cofactor for each channel that may be learned.

    Reads `intensities` (*cells, channels); writes `transformed` (*cells, channels). Acts on each cell alone. The
    cofactors are stored as logarithms and stay positive.

    Args:
        config: Number of channels and starting cofactor.
        rngs: Not used: nothing is drawn.

    Example:
        >>> operator = ArcsinhTransform(ArcsinhTransformConfig(n_channels=2))
        >>> data, _, _ = operator.apply({"intensities": jnp.array([[0.0, 500.0]])}, {}, None)
        >>> [round(value, 3) for value in data["transformed"][0].tolist()]
        [0.0, 5.298]
    """

    def __init__(self, config: ArcsinhTransformConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.log_cofactor = kind(jnp.full(config.n_channels, jnp.log(jnp.float32(config.cofactor))))

    def compute(self, intensities: Float[Array, "*cells channels"]) -> TransformedIntensities:
        """Return the transformed intensities."""
        return TransformedIntensities(arcsinh_transform(intensities, jnp.exp(self.log_cofactor[...])))
