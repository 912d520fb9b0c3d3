"""Laws of differentiability: gradients are there, finite and right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from diffbio.testing.functional import Arrays, Gradients, Point, Surroundings, gradients_of, is_float
from diffbio.testing.subject import Subject, subject_of
from diffbio.testing.verdict import LawViolation, NotApplicable

if TYPE_CHECKING:
    from diffbio.testing.example import Example

AGREEMENT = 2e-2  # relative; a wrong gradient is wrong by far more
STEPS = {np.float64: (1e-5, 1e-4, 1e-6, 1e-3, 1e-2), np.float32: (1e-2, 3e-3, 3e-2, 1e-3)}


def finite_gradients(example: Example) -> None:
    """Outputs and gradients are finite, with ties, zeros, constants and other scales too.

    One NaN in one cell stops the training of everything. The usual causes are the derivatives of
    `sqrt`, `norm`, `log` and division at zero: guard the argument, not the result, because
    `jnp.where(x > 0, jnp.sqrt(x), 0)` still has a NaN gradient at zero.
    """
    subject = subject_of(example)
    for variant, data in _variants(subject, degenerate=example.degenerate):
        gradients = subject.gradients if variant == "the example" else subject.gradients_on(data)
        mend = f"guard the argument of sqrt, log, norm or division; seen with {variant}"
        if not np.isfinite(gradients.value):
            key = _not_finite(subject.outputs(data))
            raise LawViolation("finite_gradients", subject.name, "output not finite", mend, key)
        key = _not_finite({**gradients.params, **gradients.inputs})
        if key is not None:
            seen = "the gradient by it is not finite"
            raise LawViolation("finite_gradients", subject.name, seen, mend, key)


def gradients_match_finite_differences(example: Example) -> None:
    """Gradients agree with differences of the outputs, for each parameter and each float input.

    Checked in float64 where the operator allows it, along a random direction of each array. A
    mismatch means a wrong `custom_vjp`, a stray `stop_gradient`, or a jump. A straight-through
    estimator is wrong on purpose: exempt it and say so.
    """
    subject = subject_of(example)
    if not subject.params and not subject.differentiable():
        raise NotApplicable("it has no parameter and no real-valued input")
    magnitude = 1 + sum(float(np.abs(w * subject.compiled[key]).sum()) for key, w in subject.weights.items())
    try:
        with jax.enable_x64(True):
            _compare_slopes(subject, np.float64, magnitude)
    except (TypeError, ValueError):  # a loop or a derivative that insists on float32
        _compare_slopes(subject, np.float32, magnitude)


def trainable_parameters_learn(example: Example) -> None:
    """Every `nnx.Param` has a gradient that is not all zero.

    A parameter without gradient is shown as trainable and never learns. Use it in a differentiable
    way, or hold it as `nnx.Variable`; a zero may also come from two zero-initialized factors, or
    from an example so extreme that everything saturates.
    """
    subject = subject_of(example)
    if not subject.params:
        raise NotApplicable("the operator has no parameters")
    for path, gradient in subject.gradients.params.items():
        if not np.any(np.asarray(gradient)):
            seen = "no output depends on this parameter differentiably: its gradient is zero"
            mend = "use it in compute without argmax, rounding or stop_gradient, or make it a Variable"
            raise LawViolation("trainable_parameters_learn", subject.name, seen, mend, path)


def _variants(subject: Subject, *, degenerate: bool) -> Iterator[tuple[str, Arrays]]:
    """Yield the example's data, and the same shapes with hard values."""
    yield "the example", subject.data
    changes = {
        "all-zero inputs": jnp.zeros_like,
        "constant inputs": jnp.ones_like,
        "equal rows": lambda x: jnp.broadcast_to(x[:1], x.shape) if x.ndim else x,
        "inputs scaled by 0.001": lambda x: x * 1e-3,
        "inputs scaled by 1000": lambda x: x * 1e3,
    }
    floats = subject.differentiable()
    if degenerate and floats:
        for name, change in changes.items():
            yield name, {**subject.data, **{key: change(x) for key, x in floats.items()}}


def _not_finite(arrays: Arrays) -> str | None:
    """Return the name of the first array that holds NaN or infinity."""
    floats = {key: np.asarray(value) for key, value in arrays.items() if is_float(value)}
    return next((key for key, value in floats.items() if not np.isfinite(value).all()), None)


def _compare_slopes(subject: Subject, dtype: Any, magnitude: float) -> None:
    """Compare slope by gradient with slope by difference, for one array after the other.

    Args:
        subject: What is differentiated.
        dtype: The precision in which.
        magnitude: The size of the terms that are summed, which sets how much of a difference is rounding.
    """

    def cast(array: Any) -> Any:
        return jnp.asarray(array, dtype) if is_float(array) else array

    random, floats = subject.random, subject.differentiable()
    inputs = {key: _unsettled(np.asarray(x), random) for key, x in floats.items()}
    others = {key: x for key, x in subject.data.items() if key not in floats}
    surroundings = Surroundings(subject.rest, others, subject.key, subject.weights)
    start, surroundings = jax.tree.map(cast, (Point(subject.params, inputs), surroundings))
    arrays, tree = jax.tree.flatten(start)

    def gradients_at(arrays: list[jax.Array]) -> Gradients:
        return gradients_of(subject.structure, jax.tree.unflatten(tree, arrays), surroundings)

    at_start = gradients_at(arrays)
    gradients = jax.tree.leaves(Point(at_start.params, at_start.inputs))
    names = [*sorted(at_start.params), *sorted(at_start.inputs)]  # the order of flattening
    noise = 20 * float(np.finfo(dtype).eps) * magnitude
    for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
        direction = cast(random.normal(size=array.shape) * (float(jnp.abs(array).mean()) or 1.0))
        slope = float(jnp.sum(gradients[i] * direction))
        seen = []
        for step in STEPS[dtype]:
            ahead, behind = (
                float(gradients_at([*arrays[:i], array + moved, *arrays[i + 1 :]]).value)
                for moved in (step * direction, -step * direction)
            )
            seen.append((ahead - behind) / (2 * step))
            allowed = AGREEMENT * max(abs(slope), abs(seen[-1])) + noise / step
            if abs(seen[-1] - slope) <= allowed:
                break
        else:
            closest = min(seen, key=lambda value: abs(value - slope))
            text = f"the gradient gives a slope of {slope:.5g}, differences give {closest:.5g}"
            mend = "correct the custom_vjp, or remove the stop_gradient or the jump"
            law = "gradients_match_finite_differences"
            raise LawViolation(law, subject.name, text, mend, name)


def _unsettled(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return values slightly above the given ones: off any kink on which data such as zeros sit."""
    scale = float(np.abs(array).mean()) or 1.0
    return array + 0.01 * scale * random.uniform(0.5, 1.0, array.shape)
