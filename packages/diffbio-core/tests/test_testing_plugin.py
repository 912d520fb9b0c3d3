"""The laws as tests: one line in a test file, `pytest --diffbio`, and the table that `check_operator` gives."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
import typer
from jaxtyping import Array, Float

from diffbio.cli.checking import check_command
from diffbio.core import Operator, OperatorConfig
from diffbio.core.errors import RegistryError
from diffbio.core.hookspecs import OperatorDeclaration, Plugin, hookimpl
from diffbio.core.registry import Registry
from diffbio.testing import LAWS, Example, LawViolation, NotApplicable, check_operator, examples_of
from diffbio.testing.capabilities import CAPABILITIES
from diffbio.testing.check import example_of
from diffbio.testing.cost import Cost, cost_of

pytest_plugins = "pytester"


@dataclass(frozen=True, kw_only=True)
class StretchConfig(OperatorConfig):
    factor: float = 2.0


class Stretched(NamedTuple):
    stretched: Float[Array, "*cells genes"]


class Stretching(Operator[StretchConfig]):
    def compute(self, counts: Float[Array, "*cells genes"]) -> Stretched:
        return Stretched(self.config.factor * counts)


class Sorting(Operator[StretchConfig]):
    """Not symmetric in cells, although its example says so."""

    def compute(self, counts: Float[Array, "cells genes"]) -> Stretched:
        return Stretched(self.config.factor * jnp.sort(counts, axis=0))


class Fixed(Operator[StretchConfig]):
    def compute(self, counts: Float[Array, "3 2"]) -> Stretched:
        return Stretched(self.config.factor * counts)


def example(kind: type[Operator[Any]]) -> Example:
    data = {"counts": np.array([[3.0, 1.0], [1.5, 4.0], [2.0, 2.5]], np.float32)}
    return Example(
        kind(StretchConfig()), data, symmetric=("cells",), exempt={"limit_is_hard_reference": "hard already"}
    )


def stretching() -> Example:
    return example(Stretching)


def sorting() -> Example:
    return example(Sorting)


def declaration(kind: type[Operator[Any]], function: str) -> OperatorDeclaration:
    return OperatorDeclaration(
        name=kind.__name__,
        target=f"{__name__}:{kind.__name__}",
        summary="For these tests.",
        reads=("counts",),
        writes=("stretched",),
        example=f"{__name__}:{function}",
    )


def installed(*operators: OperatorDeclaration) -> Registry:
    plugin = SimpleNamespace(diffbio_plugin=hookimpl(lambda: Plugin(api=1, operators=operators)))
    dist = SimpleNamespace(name="diffbio-stretch", version="1.0")
    return Registry([SimpleNamespace(name="stretch", value="stretch", dist=dist, load=lambda: plugin)])  # type: ignore[list-item]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Replaces the registry that the laws look into by one with the given operators."""

    def install(*operators: OperatorDeclaration) -> None:
        found = installed(*operators)
        for module in ("diffbio.testing.check", "diffbio.testing.laws.contract"):
            monkeypatch.setattr(f"{module}.registry", lambda: found)

    example_of.cache_clear()
    yield install
    example_of.cache_clear()


def test_one_line_makes_a_test_for_each_operator_and_law(registry: Any, pytester: pytest.Pytester) -> None:
    registry(declaration(Stretching, "stretching"), declaration(Sorting, "sorting"))
    pytester.makepyfile('from diffbio.testing import operator_laws\ntest_laws = operator_laws("diffbio-stretch")')
    result = pytester.runpytest_inprocess("-rs", "-v", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2 * (len(LAWS) - 3) - 1, failed=1, skipped=6)
    result.stdout.fnmatch_lines_random(
        [
            "*test_laws?Stretching-eager_equals_jit? PASSED*",
            "*test_laws?Sorting-permutation_symmetry? FAILED*",
            "*exempt: hard already*",
            "*not applicable: no input is a mask*",
        ]
    )


def test_the_option_needs_no_test_file(registry: Any, pytester: pytest.Pytester) -> None:
    registry(declaration(Stretching, "stretching"), declaration(Sorting, "sorting"))
    pytester.makepyfile("def test_that_is_not_asked_for(): pass")
    result = pytester.runpytest_inprocess("--diffbio", "diffbio-stretch", "-v", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2 * (len(LAWS) - 3) - 1, failed=1, skipped=6)
    result.stdout.fnmatch_lines(["permutation_symmetry (Sorting, 'stretched'): differs by *", "*To mend it: *"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.fnmatch_lines(
        [
            "operator *jit *limit *masks *symmetry *",
            "Sorting *yes *exempt *- *no *yes *",
            "Stretching *yes *exempt *- *yes *yes *",
        ]
    )


def test_the_option_works_with_test_files_and_selections(registry: Any, pytester: pytest.Pytester) -> None:
    registry(declaration(Stretching, "stretching"))
    path = pytester.makepyfile("def test_that_is_asked_for(): pass")
    arguments = ("--diffbio", "diffbio-stretch", "-p", "no:cacheprovider")
    result = pytester.runpytest_inprocess(path, *arguments, "-k", "asked_for or Stretching-keeps_input_keys")
    result.assert_outcomes(passed=2, deselected=len(LAWS) - 1)


def test_the_command_shows_what_operators_can_do_and_what_to_mend(
    registry: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    registry(declaration(Stretching, "stretching"), declaration(Sorting, "sorting"))
    check_command("diffbio-stretch", ["Stretching"])
    assert re.search(r"Stretching +(\d\S* +){3}cells +n\^-?\d\.\d", capsys.readouterr().out)
    with pytest.raises(typer.Exit) as ended:
        check_command("diffbio-stretch", cost=False)
    assert ended.value.exit_code == 1
    printed = capsys.readouterr().out
    assert re.search(r"Sorting breaks permutation_symmetry: 'stretched' differs by .* To mend it: ", printed)
    assert "1 of 2 operators of diffbio-stretch keep all laws" in printed
    with pytest.raises(RegistryError, match="diffbio-stretch has no operator 'Sort'; it has"):
        check_command("diffbio-stretch", ["Sort"])


def test_the_command_names_an_operator_whose_example_fails(registry: Any, capsys: pytest.CaptureFixture[str]) -> None:
    registry(declaration(Stretching, "nowhere"), declaration(Sorting, "stretching"))
    with pytest.raises(typer.Exit):
        check_command("diffbio-stretch", cost=False)
    printed = capsys.readouterr().out
    assert "Stretching breaks ships_an_example: its example" in printed
    assert "Sorting breaks ships_an_example: " in printed


def test_capabilities_are_all_laws() -> None:
    assert sorted(law for laws in CAPABILITIES.values() for law in laws) == sorted(LAWS)


def test_cost_grows_along_the_first_dimension_of_any_size() -> None:
    cost = cost_of(stretching(), (2, 4, 8))
    assert (cost.dim, cost.sizes, len(cost.seconds)) == ("cells", (2, 4, 8), 3)
    assert Cost("cells", (10, 100), (1.0, 100.0)).exponent == pytest.approx(2)
    fixed = Example(Fixed(StretchConfig()), {"counts": np.ones((3, 2), np.float32)})
    with pytest.raises(NotApplicable, match="no dimension"):
        cost_of(fixed)


def test_an_unknown_distribution_is_one_sentence(registry: Any, pytester: pytest.Pytester) -> None:
    registry(declaration(Stretching, "stretching"))
    result = pytester.runpytest_inprocess("--diffbio", "diffbio-strech", "-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --diffbio diffbio-strech: no plugin of *did you mean 'diffbio-stretch'?*"])
    with pytest.raises(RegistryError, match="did you mean 'diffbio-stretch'"):
        examples_of("diffbio-strech")


@pytest.mark.parametrize(
    ("function", "seen"),
    [
        ("nowhere", "can't be built: ImportError"),
        ("example", "can't be built: TypeError"),
        ("StretchConfig", "returns a StretchConfig"),
        ("sorting", "holds a Sorting"),
    ],
)
def test_an_operator_without_its_example_is_a_violation(registry: Any, function: str, seen: str) -> None:
    registry(declaration(Stretching, function))
    with pytest.raises(LawViolation, match=rf"ships_an_example \(Stretching\): .*{seen}"):
        examples_of()


def test_examples_are_built_once(registry: Any) -> None:
    registry(declaration(Stretching, "stretching"))
    assert examples_of("diffbio-stretch")["Stretching"] is examples_of()["Stretching"]


def test_a_report_prints_as_a_table() -> None:
    sound, broken = check_operator(stretching()), check_operator(sorting())
    assert str(sound).startswith("Stretching keeps all laws")
    assert str(broken).startswith(f"Sorting breaks 1 of {len(LAWS)} laws")
    assert [finding.law for finding in broken.violations] == ["permutation_symmetry"]
    for law in LAWS:
        assert law in str(broken)
    for text in ("hard already", "differs by", "To mend it"):
        assert text in " ".join(str(broken).split())
    assert sound.ok
    assert not broken.ok


@pytest.mark.parametrize("law", LAWS)
def test_each_law_describes_itself_and_says_how_to_mend_a_violation(law: str) -> None:
    first, _, rest = (LAWS[law].__doc__ or "").partition("\n\n")
    assert first.endswith(".")
    assert "\n" not in first
    assert len(rest.split()) > 20


def test_the_plugin_that_pytest_always_loads_is_light() -> None:
    program = "import sys, diffbio.testing.pytest_plugin; print({'jax', 'flax', 'numpy', 'rich'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the maps of memory cannot be counted here")
def test_compiled_programs_are_forgotten_in_time(pytester, monkeypatch):
    monkeypatch.setattr("diffbio.testing.compiled.MOST_MAPS", 0)
    monkeypatch.setattr("diffbio.testing.compiled.INTERVAL", 2)
    pytester.makepyfile(
        """
        import jax

        add_one = jax.jit(lambda x: x + 1)

        def test_first():
            assert add_one(1.0) == 2.0

        def test_second():
            assert add_one._cache_size() == 1

        def test_third():
            assert add_one._cache_size() == 0
        """
    )
    pytester.runpytest_inprocess("-p", "diffbio.testing.compiled").assert_outcomes(passed=3)
