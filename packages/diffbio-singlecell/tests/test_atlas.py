"""`diffbio atlas`: what it measures on real cells, and what it says where it can't."""

import csv
import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from real_counts import pbmc_counts
from scipy import sparse

from diffbio.cli import main
from diffbio.core.errors import DataError, MissingKeyError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.pipelines.singlecell.atlas import FAMILIES, Bar, Comparison, Family, NotRun, compare, read_cells


@pytest.fixture
def atlas(monkeypatch, capsys, tmp_path):
    """Run the command; return its exit status, what it printed or complained about, and its report."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(file, *arguments):
        out = tmp_path / "report"
        monkeypatch.setattr(sys, "argv", ["diffbio", "atlas", str(file), *map(str, arguments), "--out", str(out)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        report = json.loads((out / "report.json").read_text()) if (out / "report.json").exists() else None
        return ended.value.code, printed.out + printed.err, report

    return run


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """PBMC 68k with counts, types, two batches drawn at random, and a time that orders the types."""
    adata = pbmc68k_reduced()
    adata.layers["counts"] = sparse.csr_matrix(pbmc_counts())
    adata.obs["batch"] = np.random.default_rng(0).choice(["one", "two"], len(adata), p=[0.6, 0.4])
    adata.obs["day"] = adata.obs["bulk_labels"].cat.codes.to_numpy() % 3
    path = tmp_path_factory.mktemp("atlas") / "cells.h5ad"
    adata.write_h5ad(path)
    return path


def test_families_are_measured_and_reported(atlas, cells, tmp_path):
    arguments = ("--labels", "bulk_labels", "--only", "annotation,pca,neighbors", "--cells", "400")
    status, printed, report = atlas(cells, *arguments)
    assert status == 0
    rows = report["comparisons"]
    assert list(dict.fromkeys(row["family"] for row in rows)) == ["pca", "neighbors", "annotation"]
    for row in rows:
        print(f"{row['family']}: {row['quantity']}: {row['measured']:.2g} ({row['bar']})")
    assert all(row["met"] for row in rows)
    assert report["summary"] == f"{len(rows)} of {len(rows)} within the bar"
    assert report["summary"] in printed
    assert report["cells"] < 400  # types of fewer than ten cells are left out
    assert "pca: 2 measured" in printed
    with (tmp_path / "report" / "report.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["quantity"] for row in table] == [row["quantity"] for row in rows]
    assert all(float(row["cpu_seconds"]) >= 0 and row["tool"].split()[1][0].isdigit() for row in table)


def test_counts_are_normalized_as_by_scanpy(atlas, cells):
    pytest.importorskip("scanpy")
    status, printed, report = atlas(cells, "--layer", "counts", "--only", "normalization")
    assert status == 0
    assert [row["met"] for row in report["comparisons"]] == [True, True]
    assert "x 765 genes, raw counts" in printed


@pytest.mark.slow
def test_genes_are_chosen_as_by_scanpy(cells):
    pytest.importorskip("skmisc")
    pytest.importorskip("scanpy")
    rows = compare("genes", read_cells(cells, layer="counts", batch="batch"))
    assert [row.met for row in rows] == [True] * 8


def test_pseudotime_is_judged_by_times(cells):
    pytest.importorskip("scanpy")
    drawn = read_cells(cells, time="day", n_cells=300)
    rows = compare("pseudotime", drawn)
    assert [row.met for row in rows] == [True] * 3
    assert rows[-1].ours == pytest.approx(rows[-1].theirs, abs=1e-3)


def test_what_is_not_there_is_said_with_what_to_do(atlas, cells, monkeypatch):
    monkeypatch.setitem(sys.modules, "harmonypy", None)
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    few = {name: FAMILIES[name] for name in ("normalization", "tsne", "harmony", "metrics")}
    monkeypatch.setattr("diffbio.pipelines.singlecell.atlas.command.FAMILIES", few)
    status, printed, report = atlas(cells, "--batch", "batch")
    assert status == 0
    for line in (
        "not run: normalization: the values are no whole numbers; name raw counts with --layer NAME or --use-raw",
        "not run: harmony: pip install harmonypy",
        "not run: metrics: give --labels COLUMN",
        "not run: tsne: it takes long: ask for it with --only tsne",
    ):
        assert line in printed
    assert "harmony: not run" in printed
    assert report["summary"] == "0 of 0 within the bar"
    assert [row["family"] for row in report["comparisons"]] == list(few)
    _, printed, _ = atlas(cells, "--labels", "bulk_labels", "--only", "harmony,metrics")
    assert "not run: harmony: give --batch COLUMN" in printed
    assert "not run: metrics: pip install scib-metrics" in printed


def test_a_failure_and_a_missed_bar_are_reported_and_the_rest_goes_on(atlas, cells, monkeypatch):
    def failing(cells):
        yield Comparison("length", float(len(cells)), Bar("<=", 1.0))
        yield Comparison("no number", float("nan"), Bar("<=", 1.0))
        raise RuntimeError("out of luck\nand more lines")

    monkeypatch.setitem(FAMILIES, "pca", Family(failing, {"sklearn": "scikit-learn"}))
    status, printed, report = atlas(cells, "--only", "pca,neighbors")
    assert status == 0
    assert "failed: pca: RuntimeError: out of luck\n" in printed
    assert "pca: 2 measured, 2 beyond the bar, failed" in printed
    assert report["summary"] == "2 of 4 within the bar"
    assert [row["met"] for row in report["comparisons"]] == [False, False, None, True, True]
    assert [row["measured"] is None for row in report["comparisons"]] == [False, True, True, False, False]


def test_columns_and_families_that_are_not_there_are_errors(atlas, cells):
    for arguments, message in (
        (("--labels", "cell_type"), "no column 'cell_type' in obs; its columns: 'bulk_labels', 'phase'"),
        (("--batch", "batches"), "did you mean 'batch'"),
        (("--time", "days"), "did you mean 'day'"),
        (("--layer", "count"), "no layer 'count' in this AnnData; its layers: 'counts'"),
        (("--only", "pca,umaps"), "there is no family 'umaps' (did you mean 'umap'?)"),
    ):
        status, complaint, report = atlas(cells, *arguments)
        assert status == 1
        assert message in complaint
        assert report is None


def test_cells_are_drawn_by_the_key(cells):
    first, again, other = (read_cells(cells, layer="counts", n_cells=100, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.counts, again.counts)
    assert first.counts.shape != other.counts.shape or (first.counts != other.counts).any()
    assert len(first) <= 100
    assert first.counts.any(1).all()
    assert ((first.counts > 0).sum(0) >= 3).all()
    whole = read_cells(cells, layer="counts", labels="bulk_labels", batch="batch", time="day")
    assert len(whole) == 692  # all but the type of eight cells
    assert set(whole.labels) == set(range(9))
    assert set(whole.batches) == {0, 1}
    assert len(whole.times) == len(whole)


def test_cells_without_a_label_or_count_and_orders_of_categories(tmp_path):
    random = np.random.default_rng(0)
    counts = random.poisson(2.0, (60, 5)).astype(np.float32)
    counts[7] = 0
    adata = anndata.AnnData(counts)
    adata.obs["type"] = ["a", "b"] * 29 + [None, "c"]
    adata.obs["stage"] = anndata.AnnData(counts).obs_names.map(lambda name: ["late", "early"][int(name) % 2])
    adata.obs["stage"] = adata.obs["stage"].astype("category").cat.reorder_categories(["late", "early"])
    adata.layers["scaled"] = counts - 1
    path = tmp_path / "few.h5ad"
    adata.write_h5ad(path)
    drawn = read_cells(path, labels="type", time="stage")
    assert len(drawn) == 57  # an empty cell, one without a type, and one alone of its type are left out
    np.testing.assert_array_equal(drawn.labels, drawn.times)
    with pytest.raises(DataError, match="negative, as if they were scaled"):
        read_cells(path, layer="scaled")
    with pytest.raises(DataError, match=r"none of 5 cells is left.*'type'"):
        read_cells(path, labels="type", n_cells=5)
    with pytest.raises(MissingKeyError, match=r"no column 'stages'.*did you mean 'stage'"):
        read_cells(path, time="stages")


@pytest.mark.slow
def test_every_family_runs_and_nearly_all_are_within_their_bar(cells):
    for module in ("harmonypy", "leidenalg", "scanpy", "scib_metrics", "scrublet"):
        pytest.importorskip(module)
    drawn = read_cells(cells, layer="counts", labels="bulk_labels", batch="batch", time="day")
    rows = {name: compare(name, drawn, asked=False) for name in FAMILIES}
    for name, each in rows.items():
        for row in each:
            print(name, row)
    assert [name for name, each in rows.items() if isinstance(each[0], NotRun)] == ["tsne", "vae"]
    assert not [row for each in rows.values() for row in each if isinstance(row, NotRun) and row.failed]
    met = [row.met for each in rows.values() for row in each if isinstance(row, Comparison) and row.bar]
    assert np.mean(met) > 0.9
