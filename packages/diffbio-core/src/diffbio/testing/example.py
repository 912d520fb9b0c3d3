"""The one tiny example that an operator ships, on which every law is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax.typing import ArrayLike

from diffbio.core import Operator
from diffbio.core.errors import ConfigError, listed, nearest
from diffbio.testing.laws import LAWS


@dataclass(frozen=True)
class Limit:
    """What an operator becomes as its softness goes to zero.

    Args:
        sharpen: Returns the operator with so small a softness that its outputs are nearly hard.
        reference: The classical algorithm: takes the example's data, returns some or all of the
            operator's outputs. Best the field's own tool, or a few lines of NumPy.
        atol: The largest absolute difference allowed between the two, in the unit of the outputs.
    """

    sharpen: Callable[[Any], Operator]
    reference: Callable[[Mapping[str, ArrayLike]], Mapping[str, ArrayLike]]
    atol: float


@dataclass(frozen=True, eq=False)
class Example:
    """An operator with tiny data to apply it to, and what its author declares about it.

    Args:
        operator: The operator, initialized, small enough that all laws take seconds.
        data: The arrays that it reads, float32 where real-valued; a handful of cells and features,
            at a generic point (no ties, nothing exactly on a threshold).
        limit: The hard algorithm that the operator tends to.
        symmetric: Names of dimensions, as the annotations spell them, whose permutation in all
            inputs permutes the outputs in the same way.
        masks: For each mask among the data, the name of the dimension whose elements it hides.
        degenerate: Whether gradients must also be finite for zero, constant, tied and rescaled
            inputs. Only an operator whose inputs can't take such values turns this off.
        exempt: Laws that the operator is excused from, each with the reason in words.

    Raises:
        ConfigError: `exempt` names no law, or gives no reason.

    Example:
        >>> Example(operator, {"counts": counts}, exempt={"same_key": ""})  # doctest: +SKIP
        Traceback (most recent call last):
        diffbio.core.errors.ConfigError: no law is called 'same_key'; did you mean ...
    """

    operator: Operator
    data: Mapping[str, ArrayLike]
    limit: Limit | None = None
    symmetric: tuple[str, ...] = ()
    masks: Mapping[str, str] = field(default_factory=dict)
    degenerate: bool = True
    exempt: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that each exemption names a law and gives a reason."""
        for law, reason in self.exempt.items():
            if law not in LAWS:
                raise ConfigError(
                    f"{self.name}: no law is called {law!r}{nearest(law, LAWS)}; the laws are {listed(LAWS)}"
                )
            if not reason.strip():
                raise ConfigError(f"{self.name} is exempt from {law} without a reason; write why it can't hold")

    @property
    def name(self) -> str:
        """The name of the operator's class."""
        return type(self.operator).__name__
