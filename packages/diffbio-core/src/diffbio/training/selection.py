"""The choice of the anchor's strength on held-out cells, so that training is not worse than freezing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from diffbio.core import Pipeline
from diffbio.core.errors import ConfigError, listed
from diffbio.training.data import Dataset, Subset, split
from diffbio.training.evaluation import Metric, evaluate
from diffbio.training.loop import FitResult, fit
from diffbio.training.options import require_parameters
from diffbio.training.step import Loss, take_apart

Strength = float | None  # None: the stage is frozen

_OWN = ("validation", "trainable", "anchor", "checkpoint", "resume")  # what the selection itself decides
_JUDGING = ("patience", "validation_batch_size")  # what a fit on all rows has no use for


@dataclasses.dataclass(frozen=True)
class Candidate:
    """How one strength did on the inner splits.

    Attributes:
        strength: The strength; `None` for a frozen stage.
        score: The mean over the splits of the metric (or of the loss) on the held-out rows.
        shortfall: The mean over the splits of how much worse it is than the best candidate, at least 0.
        noise: The standard error of `shortfall`; 0 with one split.
        epochs: The epochs of a fit; with `patience`, the median over the splits of the best one.
    """

    strength: Strength
    score: float
    shortfall: float
    noise: float
    epochs: int


@dataclasses.dataclass(frozen=True)
class AnchorSelection:
    """What `select_anchor` gives back.

    Attributes:
        strength: The strength that was chosen; `None` where the stages stay frozen.
        fit: The fit with that strength on all rows.
        candidates: How each strength did, from the strongest to the weakest.
        compilations: How often the training step was compiled, for all fits together.
    """

    strength: Strength
    fit: FitResult
    candidates: tuple[Candidate, ...]
    compilations: int

    @property
    def pipeline(self) -> Pipeline:
        """The trained pipeline."""
        return self.fit.pipeline


def select_anchor(
    pipeline: Pipeline,
    data: Dataset,
    loss: Loss,
    *,
    stages: Iterable[str],
    optimizer: optax.GradientTransformation,
    epochs: int,
    key: jax.Array,
    strengths: Sequence[Strength] = (None, 100.0, 10.0, 1.0, 0.0),
    fraction: float = 0.2,
    splits: int = 3,
    by: str | np.ndarray | None = None,
    stratify: str | np.ndarray | None = None,
    standard_errors: float = 1.0,
    min_improvement: float = 0.0,
    metric: Metric | None = None,
    maximize: bool = False,
    **options: Any,
) -> AnchorSelection:
    """Choose how strongly stages are held to their start, and train with that strength on all rows.

    Each strength is fitted on the same inner splits of the rows. The strongest anchor that is not worse than
    the best one by more than the noise is taken, so that stages move away from their start only where
    held-out cells show that it pays: the one-standard-error rule (Breiman et al. 1984). The standard
    error is that of the paired differences, corrected for the overlap of the training sides (Nadeau and
    Bengio 2003). Without `patience` every fit runs all epochs. With it, fits stop early by the validation loss (a
    metric that counts would stop too early), and the fit on all rows takes the median of the chosen strength's best
    epochs. All of this compiles one step, and one more where the batch of all rows has another size.

    Args:
        pipeline: What to train, as it starts: these weights are the anchor.
        data: The rows to train on, all of which may be used; no test rows.
        loss: As in `fit`.
        stages: The names of the stages to hold; the other stages are free.
        optimizer: As in `fit`.
        epochs: The epochs of each fit; the most, with `patience`.
        key: Random key.
        strengths: The strengths to try, each at least 0; `None` keeps the stages frozen.
        fraction: The share of rows that an inner split holds out.
        splits: The number of inner splits; with one, `min_improvement` alone stands for the noise.
        by: As in `split`: hold out whole groups.
        stratify: As in `split`: hold out the same share of each class.
        standard_errors: How many standard errors of the difference count as noise; 0 takes the best mean.
        min_improvement: A gain of the score below this is not worth a weaker anchor.
        metric: A pure function of the data dict that compares strengths; `None` for the loss.
        maximize: Whether a larger metric is better.
        **options: More arguments of `fit`, such as `batch_size`, `patience`, `anneal`.

    Returns:
        The strength, the fit on all rows, and how each strength did.

    Raises:
        ConfigError: No strengths are given, or an option is out of its range.

    References:
        L. Breiman, J. Friedman, R. Olshen, C. Stone (1984): Classification and Regression Trees, section 3.4.3.
        C. Nadeau, Y. Bengio (2003): Inference for the generalization error. Machine Learning 52, 239-281.
    """
    stages = tuple(stages)
    if not strengths or splits < 1 or min_improvement < 0 or standard_errors < 0:
        raise ConfigError(
            f"select_anchor needs strengths, splits of 1 or more, standard_errors and min_improvement of 0 or more; "
            f"got {tuple(strengths)!r}, {splits!r}, {standard_errors!r}, {min_improvement!r}"
        )
    if taken := [name for name in _OWN if name in options]:
        raise ConfigError(f"select_anchor decides {listed(taken)} itself; leave it out")
    _, weights, _ = take_apart(pipeline)
    require_parameters(pipeline, weights, stages, "stages")
    ordered = sorted(set(strengths), key=lambda s: -math.inf if s is None else -s)
    *inner_keys, outer_key = jax.random.split(key, splits + 1)

    def fitted(rows: Dataset, strength: Strength, **more: Any) -> FitResult:
        return fit(
            pipeline,
            rows,
            loss,
            optimizer=optimizer,
            trainable=[name for name in weights if strength is not None or name not in stages],
            anchor=dict.fromkeys(stages, strength or 0.0),
            **more,
        )

    fits: list[list[FitResult]] = [[] for _ in ordered]
    scores: list[list[float]] = [[] for _ in ordered]
    for inner_key in inner_keys:
        inner = split(data, fraction=fraction, key=inner_key, by=by, stratify=stratify)
        # stopping early takes the held-out rows along; otherwise they are looked at once, at the end
        rows = data if options.get("patience") else Subset(data, inner.train)
        seen = {"validation": inner.validation} if options.get("patience") else {}
        for strength, done, reached in zip(ordered, fits, scores, strict=True):
            result = fitted(rows, strength, epochs=epochs, key=inner_key, **{**options, **seen, "progress": False})
            done.append(result)
            held_out = {"score": metric or loss}
            reached.append(evaluate(result.pipeline, data, held_out, key=inner_key, rows=inner.validation)["score"])
    candidates = _compared(ordered, fits, np.array(scores), fraction, maximize=maximize and metric is not None)
    chosen = next(c for c in candidates if c.shortfall <= max(standard_errors * c.noise, min_improvement))
    outer = {name: value for name, value in options.items() if name not in _JUDGING}
    last = fitted(data, chosen.strength, epochs=chosen.epochs, key=outer_key, **outer)
    compilations = last.compilations + sum(result.compilations for done in fits for result in done)
    return AnchorSelection(chosen.strength, last, candidates, compilations)


def _compared(
    strengths: list[Strength], fits: list[list[FitResult]], scores: np.ndarray, fraction: float, *, maximize: bool
) -> tuple[Candidate, ...]:
    """Return how each strength did, compared split by split with the one of the best mean score."""
    losses = -scores if maximize else scores
    shortfalls = losses - losses[np.argmin(losses.mean(axis=1))]
    splits = scores.shape[1]
    overlap = math.sqrt(1 / splits + fraction / (1 - fraction))
    noise = shortfalls.std(axis=1, ddof=1) * overlap if splits > 1 else np.zeros(len(strengths))
    return tuple(
        Candidate(
            strength=strength,
            score=float(scores[i].mean()),
            shortfall=float(shortfalls[i].mean()),
            noise=float(noise[i]),
            epochs=max(1, round(np.median([result.best_epoch for result in fits[i]]))),
        )
        for i, strength in enumerate(strengths)
    )
