"""The laws: each a plain function of an example that returns, or raises what it saw.

A law raises `LawViolation` where the operator breaks it and `NotApplicable` where it says nothing
about the operator. The first line of its docstring is its description in tables; the rest says why
the law is there and what to mend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from diffbio.testing.laws.algorithm import (
    limit_is_hard_reference,
    permutation_symmetry,
)
from diffbio.testing.laws.configuration import (
    config_round_trip,
    no_dead_config_field,
    save_load_round_trip,
)
from diffbio.testing.laws.contract import (
    declaration_agrees,
    eval_shape_agrees,
    keeps_float32,
    keeps_input_keys,
    mutates_nothing,
)
from diffbio.testing.laws.gradient import (
    finite_gradients,
    gradients_match_finite_differences,
    trainable_parameters_learn,
)
from diffbio.testing.laws.padding import masked_padding_is_inert
from diffbio.testing.laws.transformation import (
    eager_equals_jit,
    same_key_same_output,
    vmap_equals_loop,
)

LAWS: Mapping[str, Callable[[Any], None]] = MappingProxyType(
    {
        law.__name__: law
        for law in (
            keeps_input_keys,
            mutates_nothing,
            eager_equals_jit,
            vmap_equals_loop,
            eval_shape_agrees,
            finite_gradients,
            gradients_match_finite_differences,
            trainable_parameters_learn,
            limit_is_hard_reference,
            masked_padding_is_inert,
            permutation_symmetry,
            keeps_float32,
            same_key_same_output,
            no_dead_config_field,
            config_round_trip,
            save_load_round_trip,
            declaration_agrees,
        )
    }
)
"""Every law by name, in the order in which they are reported."""

__all__ = ["LAWS"]
