"""A filter of variants by thresholds that can be learned.

Hard: a variant passes if each of its features is at or above a lower threshold and at or below an upper one, as
`bcftools filter -e 'QUAL<20 || INFO/DP>80'` has it. Relaxed, with z the feature in median absolute deviations,

    pass = product over features of sigmoid((z - lower) / tau) sigmoid((upper - z) / tau)

As tau -> 0 this is the hard rule, for the kinds of variants (SNV, indel) with thresholds of their own. A feature within
1e-5 of a deviation beyond its threshold passes too, so that one exactly at it does.

References:
    Danecek et al., Twelve years of SAMtools and BCFtools, GigaScience 2021.
    Van der Auwera et al., From FastQ data to high-confidence variant calls, Current Protocols in Bioinformatics 2013:
    hard filters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax.numpy as jnp
import numpy as np
from annotated_types import Gt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness, soft_ops
from diffbio.core.errors import ConfigError

KINDS = ("snv", "indel")
"""Kinds of variants that have thresholds of their own, by number; what is no indel counts as an SNV."""

_AT_THE_THRESHOLD = 1e-5  # median absolute deviations
_NORMAL, _NORMAL_MEAN = 1.4826, 1.2533
"""What median and mean absolute deviation of normal data are to be multiplied by to give the standard one."""


@dataclass(frozen=True, kw_only=True)
class SoftVariantFilterConfig(OperatorConfig):
    """By what variants are judged.

    Args:
        features: Names, in the order of the last axis of `variant_features`, as an expression of bcftools spells them.
        lower: The lower threshold of each feature, in its own unit, `None` for one without; `None` for all: each has
            one, that starts where all variants pass when the filter is initialized.
        upper: Likewise.
        n_mads: How far beyond all variants such thresholds start, in median absolute deviations, scaled as standard
            deviations, above 0.
        temperature: The softness tau of the thresholds, in the same unit, above 0.
        learnable: Whether training changes the thresholds.

    Raises:
        ConfigError: There are no features, or not one threshold for each.
    """

    features: tuple[str, ...] = ("QUAL", "INFO/DP")
    lower: tuple[float | None, ...] | None = None
    upper: tuple[float | None, ...] | None = None
    n_mads: Annotated[float, Gt(0)] = 2.0
    temperature: Annotated[float, Gt(0)] = 0.5
    learnable: bool = True

    def __post_init__(self) -> None:
        """Check each field, then that they fit each other."""
        super().__post_init__()
        if not self.features:
            raise ConfigError("SoftVariantFilterConfig.features is empty; name at least one feature")
        for name, limits in (("lower", self.lower), ("upper", self.upper)):
            if limits is not None and len(limits) != self.n_features:
                raise ConfigError(
                    f"SoftVariantFilterConfig.{name} has {len(limits)} thresholds for {self.n_features} features "
                    f"{self.features}; give one for each, None for a feature without"
                )

    @property
    def n_features(self) -> int:
        """How many features a variant has."""
        return len(self.features)


class FilteredVariants(NamedTuple):
    """What becomes of each variant.

    Attributes:
        pass_probability: How far it passes, 0 to 1; 0 where it is masked (*variants,).
        filter_reasons: How far each feature fails its thresholds, 0 to 1 (*variants, features).
    """

    pass_probability: Float[Array, "*variants"]
    filter_reasons: Float[Array, "*variants features"]


def feature_passes(
    features: Float[Array, "*variants features"],
    lower: Float[Array, "*#variants features"],
    upper: Float[Array, "*#variants features"],
    *,
    softness: ArrayLike,
    has_lower: Bool[ArrayLike, " features"] = True,
    has_upper: Bool[ArrayLike, " features"] = True,
) -> Float[Array, "*variants features"]:
    """Return how far each feature is between its thresholds, 0 to 1.

    Args:
        features: NaN where one is missing, which passes, as in `bcftools filter -e`.
        lower: In the same unit.
        upper: Likewise.
        softness: tau > 0, likewise.
        has_lower: Which features have a lower threshold; all by default.
        has_upper: Likewise.

    Example:
        >>> features = jnp.array([1.0, 3.0, jnp.nan])
        >>> feature_passes(features, jnp.full(3, 2.0), jnp.full(3, 8.0), softness=0.01).round(2).tolist()
        [0.0, 1.0, 1.0]
    """
    known = ~jnp.isnan(features)
    values = jnp.where(known, features, 0.0)

    def above(difference: Array, used: ArrayLike) -> Array:
        return jnp.where(known & used, soft_ops.greater(difference + _AT_THE_THRESHOLD, 0.0, softness=softness), 1.0)

    return above(values - lower, has_lower) * above(upper - values, has_upper)


class FeatureScales(NamedTuple):
    """How each feature is distributed.

    Attributes:
        median: 0 for a feature without any value (features,).
        deviation: The median absolute one, scaled as a standard deviation; the mean absolute one where that is 0, and
            1 where both are (features,).
        low: Its least value (features,).
        high: Its largest (features,).
    """

    median: Float[np.ndarray, " features"]
    deviation: Float[np.ndarray, " features"]
    low: Float[np.ndarray, " features"]
    high: Float[np.ndarray, " features"]


def feature_scales(
    features: Float[np.ndarray, "*variants features"], mask: Bool[np.ndarray, "*variants"] | None = None
) -> FeatureScales:
    """Return how features are distributed.

    Args:
        features: NaN where one is missing.
        mask: Which variants count; all by default.

    Example:
        >>> scales = feature_scales(np.array([[1.0], [2.0], [3.0], [100.0]]))
        >>> scales.median.tolist(), scales.deviation.round(3).tolist()
        ([2.5], [1.483])
    """
    rows = features.reshape(-1, features.shape[-1]).astype(np.float64)
    if mask is not None:
        rows = rows[np.ravel(mask)]
    columns = [column[np.isfinite(column)] if np.isfinite(column).any() else np.zeros(1) for column in rows.T]
    low, median, high = (np.array([of(column) for column in columns]) for of in (np.min, np.median, np.max))
    apart = [np.abs(column - middle) for column, middle in zip(columns, median, strict=True)]
    deviation = np.array([_NORMAL * np.median(each) or _NORMAL_MEAN * each.mean() or 1.0 for each in apart])
    return FeatureScales(median, deviation, low, high)


class SoftVariantFilter(Operator[SoftVariantFilterConfig]):
    """Tell which variants are to be trusted, and what speaks against the others.

    Reads `variant_features` (*variants, features), in the order that the configuration names, NaN where one is missing,
    and optionally `kind` (*variants,), 0 for an SNV and 1 for an indel, and `variant_mask` (*variants,), which rows
    hold a variant; writes `pass_probability` (*variants,) and `filter_reasons` (*variants, features). Parameters, if
    learnable: `lower` and `upper` (kinds, features), in median absolute deviations from the median.

    Args:
        config: Features and thresholds.
        rngs: Not used: nothing is drawn.

    Example:
        >>> config = SoftVariantFilterConfig(lower=(20.0, None), upper=(None, 80.0), temperature=1e-7)
        >>> data = {"variant_features": jnp.array([[30.0, 20.0], [20.0, 90.0], [5.0, 20.0]])}
        >>> found = SoftVariantFilter(config).apply(data, {}, None)[0]
        >>> found["pass_probability"].round(2).tolist(), found["filter_reasons"].round(2).tolist()
        ([1.0, 0.0, 0.0], [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    """

    def __init__(self, config: SoftVariantFilterConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.center = nnx.Variable(jnp.zeros(config.n_features, jnp.float32))
        self.scale = nnx.Variable(jnp.ones(config.n_features, jnp.float32))
        kinds = [
            nnx.Param if config.learnable and self._has(side).any() else nnx.Variable for side in ("lower", "upper")
        ]
        self.lower, self.upper = kinds[0](self._started("lower")), kinds[1](self._started("upper"))
        self.softness = Softness(config.temperature)

    def _has(self, side: str) -> np.ndarray:
        """Return which features have a threshold on a side."""
        limits = getattr(self.config, side)
        return np.array([limits is None or limits[place] is not None for place in range(self.config.n_features)])

    def _started(self, side: str, edge: ArrayLike = 0.0) -> Float[Array, "kinds features"]:
        """Return the first thresholds, in deviations from the median; 0 where there is none.

        Args:
            side: `lower` or `upper`.
            edge: Up to where variants are, in the units of the features.
        """
        limits, config = getattr(self.config, side), self.config
        if limits is None:
            beyond = config.n_mads if side == "upper" else -config.n_mads
            row = (jnp.asarray(edge, jnp.float32) - self.center[...]) / self.scale[...] + beyond
        else:
            own = jnp.array([0.0 if limit is None else limit for limit in limits], jnp.float32)
            row = jnp.where(self._has(side), (own - self.center[...]) / self.scale[...], 0.0)
        return jnp.tile(row, (len(KINDS), 1))

    def initialize(
        self,
        variant_features: Float[Array, "*variants features"],
        variant_mask: Bool[Array, "*variants"] | None = None,
    ) -> None:
        """Set what features are measured by to the median and deviation of these variants, and thresholds anew."""
        mask = None if variant_mask is None else np.asarray(variant_mask)
        scales = feature_scales(np.asarray(variant_features), mask)
        self.center[...] = jnp.asarray(scales.median, jnp.float32)
        self.scale[...] = jnp.asarray(scales.deviation, jnp.float32)
        self.lower[...], self.upper[...] = self._started("lower", scales.low), self._started("upper", scales.high)

    def compute(
        self,
        variant_features: Float[Array, "*variants features"],
        kind: Int[Array, "*variants"] | None = None,
        variant_mask: Bool[Array, "*variants"] | None = None,
    ) -> FilteredVariants:
        """Return how far variants pass, and what they fail by."""
        known = ~jnp.isnan(variant_features)
        standard = (jnp.where(known, variant_features, 0.0) - self.center[...]) / self.scale[...]
        rows = jnp.zeros(standard.shape[:-1], jnp.int32) if kind is None else jnp.clip(kind, 0, len(KINDS) - 1)
        passes = feature_passes(
            jnp.where(known, standard, jnp.nan),
            self.lower[...][rows],
            self.upper[...][rows],
            softness=self.softness(),
            has_lower=self._has("lower"),
            has_upper=self._has("upper"),
        )
        if variant_mask is not None:
            passes = jnp.where(variant_mask[..., None], passes, 1.0)
        through = soft_ops.all(passes, axis=-1)
        return FilteredVariants(through if variant_mask is None else jnp.where(variant_mask, through, 0.0), 1 - passes)

    def thresholds(self) -> tuple[Float[Array, "kinds features"], Float[Array, "kinds features"]]:
        """Return lower and upper thresholds in the units of the features, by the kinds of `KINDS`; infinite if none."""
        lower, upper = (limits[...] * self.scale[...] + self.center[...] for limits in (self.lower, self.upper))
        return jnp.where(self._has("lower"), lower, -jnp.inf), jnp.where(self._has("upper"), upper, jnp.inf)

    def expression(self) -> str:
        """Return what these thresholds fail, as `bcftools filter -e` takes it.

        Example:
            >>> SoftVariantFilter(SoftVariantFilterConfig(lower=(20.0, None), upper=(None, 80.0))).expression()
            'QUAL<20 || INFO/DP>80'
        """
        of_kinds = []
        for lower, upper in zip(*map(np.asarray, self.thresholds()), strict=True):
            tests = [
                f"{name}{sign}{limit:.7g}"
                for name, *limits in zip(self.config.features, lower, upper, strict=True)
                for sign, limit in zip("<>", limits, strict=True)
                if np.isfinite(limit)
            ]
            of_kinds.append(" || ".join(tests))
        if len(set(of_kinds)) == 1:
            return of_kinds[0]
        return f'(TYPE!="indel" && ({of_kinds[0]})) || (TYPE="indel" && ({of_kinds[1]}))'
