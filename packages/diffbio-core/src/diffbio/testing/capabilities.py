"""What operators can do, as a table: one row for each, one column for each group of laws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

    from diffbio.testing.cost import Cost

Outcome = Literal["ok", "not applicable", "exempt", "violated"]

CAPABILITIES: dict[str, tuple[str, ...]] = {
    "contract": (
        "keeps_input_keys",
        "mutates_nothing",
        "eval_shape_agrees",
        "declaration_agrees",
        "no_dead_config_field",
    ),
    "jit": ("eager_equals_jit",),
    "vmap": ("vmap_equals_loop",),
    "grad": ("finite_gradients", "gradients_match_finite_differences", "trainable_parameters_learn"),
    "limit": ("limit_is_hard_reference",),
    "masks": ("masked_padding_is_inert",),
    "symmetry": ("permutation_symmetry",),
    "dtype": ("keeps_float32",),
    "key": ("same_key_same_output",),
    "saving": ("config_round_trip", "save_load_round_trip"),
}
"""The laws that stand behind each column."""

_FROM_THE_WORST: tuple[Outcome, ...] = ("violated", "ok", "exempt")
_SHOWN = {"violated": "[bold red]no[/]", "ok": "[green]yes[/]", "exempt": "[yellow]exempt[/]"}


def capability(column: str, outcomes: Mapping[str, Outcome]) -> Outcome:
    """Return what the laws of a column say together: the worst of them, and `ok` where one is kept at least.

    Args:
        column: A key of `CAPABILITIES`.
        outcomes: What was found, by law; a law that is missing was not run.

    Example:
        >>> capability("saving", {"config_round_trip": "ok", "save_load_round_trip": "violated"})
        'violated'
    """
    found = {outcomes[law] for law in CAPABILITIES[column] if law in outcomes}
    for outcome in _FROM_THE_WORST:
        if outcome in found:
            return outcome
    return "not applicable"


def capability_table(outcomes: Mapping[str, Mapping[str, Outcome]]) -> Table:
    """Return the table that rich prints, of what was found by operator and law."""
    table = _table(*CAPABILITIES)
    for operator, of_operator in outcomes.items():
        table.add_row(operator, *(_SHOWN.get(capability(column, of_operator), "[dim]-[/]") for column in CAPABILITIES))
    return table


def cost_table(costs: Mapping[str, Cost]) -> Table:
    """Return the table that rich prints, of CPU times in milliseconds by operator; all at the same sizes."""
    sizes = next(iter(costs.values())).sizes if costs else ()
    table = _table(*(f"ms at {size}" for size in sizes), "of", "growth")
    for operator, cost in costs.items():
        times = (f"{1000 * seconds:.2g}" for seconds in cost.seconds)
        table.add_row(operator, *times, cost.dim, f"n^{cost.exponent:.1f}")
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("operator", *columns):
        table.add_column(column, no_wrap=True)
    return table
