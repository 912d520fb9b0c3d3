"""The page of soft_ops holds every function of it, and its figures can be drawn from what is there now."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from diffbio.core import soft_ops

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/soft_ops.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"`([a-z_]+)(?:\([^`]*\))?`", PAGE))


@pytest.mark.parametrize("name", [*soft_ops.__all__, *vars(soft_ops.random).get("__all__", [])])
def test_each_name_is_on_the_page(name):
    assert name in CODE or f"`{name}`" in PAGE or f"`soft_ops.{name}`" in PAGE


@pytest.mark.parametrize("name", ["sort", "argsort", "rank", "top_k", "quantile", "max"])
def test_each_method_is_on_the_page(name):
    annotation = inspect.signature(getattr(soft_ops, name), eval_str=True).parameters["method"].annotation
    assert set(annotation.__args__) - CODE - {"auto"} == set()


@pytest.mark.slow
def test_the_figures_of_the_page_are_drawn(tmp_path):
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs/figures/soft_ops.py")
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    drawn = figures.draw(tmp_path)
    assert {path.name for path in drawn} == {path.name for path in (ROOT / "docs/images").glob("soft_ops-*.png")}
    for path in drawn:
        assert f"../images/{path.name}" in PAGE
        assert path.stat().st_size > 10_000
