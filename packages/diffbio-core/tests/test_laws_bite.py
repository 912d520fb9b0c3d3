"""Each law catches the operator that was broken for it, and a sound operator keeps them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from annotated_types import Ge, Gt
from flax import nnx
from jaxtyping import Array, Bool, Float

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.core.errors import ConfigError
from diffbio.testing import LAWS, Example, LawViolation, Limit, check_operator


@dataclass(frozen=True, kw_only=True)
class GateConfig(OperatorConfig):
    n_genes: Annotated[int, Ge(1)]
    threshold: float = 1.0
    temperature: Annotated[float, Gt(0)] = 0.5


class Gates(NamedTuple):
    gates: Float[Array, "cells genes"]
    open_fraction: Float[Array, " genes"]


class SoundGate(Operator[GateConfig]):
    """A soft threshold per gene, and the fraction of unmasked cells above it."""

    def __init__(self, config: GateConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.thresholds = nnx.Param(jnp.full((config.n_genes,), config.threshold))
        self.softness = Softness(config.temperature)

    def compute(self, counts: Float[Array, "cells genes"], cell_mask: Bool[Array, " cells"] | None = None) -> Gates:
        mask = jnp.ones(counts.shape[0], bool) if cell_mask is None else cell_mask
        return self.gate(counts, mask[:, None])

    def gate(self, counts: Array, mask: Array) -> Gates:
        gates = jax.nn.sigmoid((counts - self.thresholds[...]) / self.softness())
        return Gates(gates, jnp.where(mask, gates, 0.0).sum(0) / jnp.maximum(mask.sum(), 1))


def sharpened(operator: Any) -> Any:
    operator.softness.set(1e-3)
    return operator


def hard_gate(data: Any) -> dict[str, Any]:
    gates = np.asarray(data["counts"]) > 1.0
    return {"gates": gates, "open_fraction": gates[data["cell_mask"]].mean(0)}


COUNTS = np.random.default_rng(3).gamma(2.0, 1.0, (5, 3)).astype(np.float32)
MASK = np.array([True, True, False, True, True])
CONFIG = GateConfig(n_genes=3)
LIMIT = Limit(sharpened, hard_gate, atol=1e-3)
GATED = {"limit": LIMIT, "symmetric": ("cells",), "masks": {"cell_mask": "cells"}}
SOFT_ONLY = {"exempt": {"limit_is_hard_reference": "relaxes nothing"}}


def gate_example(kind: type[SoundGate], config: GateConfig = CONFIG, **changes: Any) -> Example:
    return Example(kind(config), {"counts": COUNTS, "cell_mask": MASK}, **{**GATED, **changes})


class Forgetful(SoundGate): ...


def _lossy_apply(self: Any, data: Any, state: Any, metadata: Any, key: Any = None, stats: Any = None) -> Any:
    gates, fraction = self.compute(jnp.asarray(data["counts"]), jnp.asarray(data["cell_mask"]))
    return {"gates": gates, "open_fraction": fraction}, state, metadata


Forgetful.apply = _lossy_apply  # goes round `__init_subclass__`, which keeps it final


class Remembering(SoundGate):
    def __init__(self, config: GateConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros(()))

    def gate(self, counts: Array, mask: Array) -> Gates:
        self.calls[...] += 1
        return super().gate(counts, mask)


class PythonBranch(SoundGate):
    def gate(self, counts: Array, mask: Array) -> Gates:
        return super().gate(counts if counts.sum() > 0 else -counts, mask)


class Transposed(SoundGate):
    def gate(self, counts: Array, mask: Array) -> Gates:
        gates, fraction = super().gate(counts, mask)
        return Gates(gates.T, fraction)


class NaNAtTies(SoundGate):
    def gate(self, counts: Array, mask: Array) -> Gates:
        gates, fraction = super().gate(counts, mask)
        spread = jnp.sqrt(((counts - counts[:, :1]) ** 2).sum(1, keepdims=True))
        return Gates(gates + 1e-5 * spread, fraction)


@jax.custom_vjp
def doubled_slope(x: Array) -> Array:
    return x


doubled_slope.defvjp(lambda x: (x, None), lambda _, slope: (2 * slope,))


class WrongGradient(SoundGate):
    def gate(self, counts: Array, mask: Array) -> Gates:
        return super().gate(doubled_slope(counts), mask)


class Untrained(SoundGate):
    def __init__(self, config: GateConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(()))

    def gate(self, counts: Array, mask: Array) -> Gates:
        return super().gate(counts + jnp.round(self.bias[...]), mask)


class WrongLimit(SoundGate):
    def gate(self, counts: Array, mask: Array) -> Gates:
        return super().gate(counts - 0.7, mask)


class MaskLeak(SoundGate):
    def gate(self, counts: Array, mask: Array) -> Gates:
        gates, _ = super().gate(counts, mask)
        return Gates(gates, gates.mean(0))


class LooksAtFirstCell(SoundGate):
    def gate(self, counts: Array, mask: Array) -> Gates:
        gates, fraction = super().gate(counts, mask)
        return Gates(gates + 5e-4 * jnp.tanh(counts[:1]), fraction)


class Float64Leak(SoundGate):
    def gate(self, counts: Array, mask: Array) -> Gates:
        return super().gate(counts * np.float64(1.0), mask)


class HiddenSeed(SoundGate):
    def gate(self, counts: Array, mask: Array) -> Gates:
        noise = 1e-4 * jax.random.normal(jax.random.key(0), counts.shape[1:], counts.dtype)
        return super().gate(counts + noise, mask)


class KeyIgnored(SoundGate):
    def compute(self, counts: Float[Array, "cells genes"], cell_mask: Bool[Array, " cells"], *, key: Array) -> Gates:
        return self.gate(counts, cell_mask[:, None])


@dataclass(frozen=True, kw_only=True)
class MomentumConfig(GateConfig):
    momentum: float = 0.9


class DeadField(SoundGate, Operator[MomentumConfig]): ...


@dataclass(frozen=True, kw_only=True)
class DriftingConfig(GateConfig):
    patience: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "patience", 2 * self.patience)


class Drifting(SoundGate, Operator[DriftingConfig]):
    def __init__(self, config: DriftingConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        self.patience = config.patience


class UnsavedState(SoundGate):
    shift = 0.0

    def initialize(self, counts: Array) -> None:
        self.shift = float(counts.min())

    def gate(self, counts: Array, mask: Array) -> Gates:
        return super().gate(counts - self.shift, mask)


def unsaved_state() -> Example:
    example = gate_example(UnsavedState, limit=None, **SOFT_ONLY)
    example.operator.initialize_from(example.data)
    return example


class Centered(NamedTuple):
    centered: Float[Array, "*cells genes"]


class CellLeak(Operator[GateConfig]):
    """Says that it works per cell, yet subtracts a mean over cells."""

    def compute(self, counts: Float[Array, "*cells genes"]) -> Centered:
        scale = self.config.threshold * self.config.temperature / self.config.n_genes
        return Centered(scale * (counts - counts.mean(0)))


TRACED = set(LAWS) - {"keeps_input_keys", "config_round_trip", "declaration_agrees"}
BROKEN: dict[str, tuple[Callable[[], Example], set[str]]] = {
    "keeps_input_keys": (lambda: gate_example(Forgetful), set()),
    "mutates_nothing": (lambda: gate_example(Remembering), TRACED),
    "eager_equals_jit": (lambda: gate_example(PythonBranch), TRACED),
    "vmap_equals_loop": (lambda: Example(CellLeak(CONFIG), {"counts": COUNTS}, **SOFT_ONLY), set()),
    "eval_shape_agrees": (lambda: gate_example(Transposed), TRACED | {"keeps_input_keys"}),
    "finite_gradients": (lambda: gate_example(NaNAtTies, masks={}), set()),
    "gradients_match_finite_differences": (lambda: gate_example(WrongGradient), set()),
    "trainable_parameters_learn": (lambda: gate_example(Untrained), set()),
    "limit_is_hard_reference": (lambda: gate_example(WrongLimit), set()),
    "masked_padding_is_inert": (lambda: gate_example(MaskLeak, limit=None, **SOFT_ONLY), set()),
    "permutation_symmetry": (lambda: gate_example(LooksAtFirstCell), set()),
    "keeps_float32": (lambda: gate_example(Float64Leak), set()),
    "same_key_same_output": (lambda: gate_example(HiddenSeed), set()),
    "no_dead_config_field": (lambda: gate_example(DeadField, MomentumConfig(n_genes=3)), set()),
    "config_round_trip": (lambda: gate_example(Drifting, DriftingConfig(n_genes=3)), {"save_load_round_trip"}),
    "save_load_round_trip": (unsaved_state, set()),
}


def test_a_sound_operator_keeps_all_laws() -> None:
    report = check_operator(gate_example(SoundGate))
    print(report, f"\n{report.seconds:.2f} s")
    assert report.ok, str(report)
    not_applicable = {finding.law for finding in report.findings if finding.outcome == "not applicable"}
    assert not_applicable == {"declaration_agrees"}


@pytest.mark.parametrize("law", BROKEN)
def test_a_broken_operator_breaks_its_law_and_no_other(law: str) -> None:
    build, consequences = BROKEN[law]
    report = check_operator(build())
    broken = {finding.law for finding in report.violations}
    print(report, f"\n{report.seconds:.2f} s")
    assert law in broken, str(report)
    assert broken <= {law} | consequences, str(report)


def test_every_law_has_an_operator_that_breaks_it() -> None:
    assert set(LAWS) - set(BROKEN) == {"declaration_agrees"}  # tested below, with a declaration


def test_apply_is_final() -> None:
    with pytest.raises(TypeError, match="write compute instead"):
        type("Overriding", (SoundGate,), {"apply": _lossy_apply})


def test_a_key_that_changes_nothing_is_caught() -> None:
    operator = KeyIgnored(CONFIG, rngs=nnx.Rngs(0))
    with pytest.raises(LawViolation, match="two different keys give the same outputs"):
        LAWS["same_key_same_output"](Example(operator, {"counts": COUNTS, "cell_mask": MASK}))


def test_an_input_changed_in_place_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def overwriting(self: Any, data: Any, *rest: Any) -> Any:
        data["counts"][0, 0] = -1.0
        return _lossy_apply(self, data, {}, None)

    monkeypatch.setattr(Forgetful, "apply", overwriting)
    with pytest.raises(LawViolation, match=r"'counts'.*input differs by .* at \(0, 0\)"):
        LAWS["mutates_nothing"](gate_example(Forgetful))


def test_a_wrong_declaration_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    declaration = SimpleNamespace(load=lambda: SoundGate, reads=("counts",), writes=("gates", "open_fraction"))
    known = SimpleNamespace(declaration=declaration, distribution="diffbio-gates")
    registry = SimpleNamespace(operators={"SoundGate": known})
    monkeypatch.setattr("diffbio.testing.laws.contract.registry", lambda: registry)
    LAWS["declaration_agrees"](gate_example(SoundGate))  # an optional input may be left out
    declaration.writes = ("gates",)
    with pytest.raises(LawViolation, match=r"declares that it writes 'gates'.*\n.*diffbio-gates"):
        LAWS["declaration_agrees"](gate_example(SoundGate))


def test_a_missing_limit_needs_a_written_reason() -> None:
    with pytest.raises(LawViolation, match="the example states no limit"):
        LAWS["limit_is_hard_reference"](gate_example(SoundGate, limit=None))
    with pytest.raises(ConfigError, match="without a reason"):
        gate_example(SoundGate, exempt={"limit_is_hard_reference": " "})
    with pytest.raises(ConfigError, match="no law is called 'limit'"):
        gate_example(SoundGate, exempt={"limit": "relaxes nothing"})
