"""The command line as a biologist meets it: files in, files out, and errors that say what to do."""

import json
import struct
from importlib.resources import as_file, files

import anndata
import numpy as np
import pytest

from diffbio.core.registry import registry

RECIPE = """
format = 1
inputs = ["normalized"]

[[steps]]
operator = "Scaling"
name = "scaling"

[[steps]]
operator = "PCAProjection"
name = "projection"
config = { n_components = 5, learnable = true }

[[steps]]
operator = "CellTypeClassifier"
name = "classifier"

[data]
key = "normalized"

[training]
loss = "cell_type_cross_entropy"
learning_rate = 3e-2
epochs = 3

[training.data]
labels = "bulk_labels"
"""


@pytest.fixture(scope="module")
def cells():
    with as_file(files("diffbio.io.singlecell") / "data" / "pbmc68k_reduced.h5ad") as path:
        yield path


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def edited(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def png_size(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return struct.unpack(">II", content[16:24])


def test_operators_are_listed_by_distribution_with_their_keys(diffbio):
    status, printed, _ = diffbio("operators")
    assert status == 0
    assert "diffbio-singlecell" in printed
    words = " ".join(printed.split())  # long lists of keys are broken into lines
    for name, found in registry().operators.items():
        assert name in words
        assert ", ".join(found.declaration.writes) in words


def test_show_gives_shapes_and_the_configuration(diffbio):
    status, printed, _ = diffbio("show", "SoftKMeansClustering")
    assert status == 0
    lines = [line.split() for line in printed.splitlines()]
    assert ["reads", "embeddings", "(cells,", "features)"] in [line[:4] for line in lines]
    assert any(line[:2] == ["writes", "cluster_assignments"] for line in lines)
    assert any(line[:1] == ["n_clusters"] and line[-1] == "required" for line in lines)
    assert any(line[:1] == ["temperature"] and line[-1] == "1.0" for line in lines)


@pytest.mark.parametrize("operator", list(registry().operators))
def test_show_knows_every_operator(diffbio, operator):
    status, printed, _ = diffbio("show", operator)
    assert status == 0
    assert printed.startswith(operator)


def test_an_unknown_operator_answers_with_the_nearest(diffbio):
    status, _, complaint = diffbio("show", "SoftKMeanClustering")
    assert status == 1
    assert "no operator is called 'SoftKMeanClustering'" in complaint
    assert "SoftKMeansClustering (diffbio-singlecell)" in complaint


def test_help_names_the_commands_of_core_and_of_plugins(diffbio):
    status, printed, _ = diffbio("--help")
    assert status == 0
    for command in ("operators", "show", "fit", "apply", *registry().commands):
        assert command in printed


def test_fit_and_apply_from_file_to_file(diffbio, recipe, cells, tmp_path):
    run, annotated = tmp_path / "run", tmp_path / "results" / "annotated.h5ad"
    status, printed, _ = diffbio("fit", recipe, cells, "--out", run, "--seed", 1)
    assert status == 0
    assert "best epoch" in printed
    assert {path.name for path in run.iterdir()} == {
        "history.csv",
        "pipeline.json",
        "recipe.toml",
        "training.png",
        "weights.safetensors",
    }
    assert (run / "recipe.toml").read_text() == RECIPE
    epochs = (run / "history.csv").read_text().splitlines()
    assert epochs[0].startswith("epoch")
    assert len(epochs) == 1 + 3
    assert min(png_size(run / "training.png")) > 100
    saved = json.loads((run / "pipeline.json").read_text())
    assert [step["operator"] for step in saved["recipe"]["steps"]] == ["Scaling", "PCAProjection", "CellTypeClassifier"]
    assert saved["recipe"]["training"]["epochs"] == 3
    assert set(saved["distributions"]) == {"diffbio-core", "diffbio-singlecell"}
    assert len(saved["metadata"]["classes"]) == 10

    status, printed, _ = diffbio("apply", run, cells, "--out", annotated)
    assert status == 0
    assert "700 rows" in printed
    written, given = anndata.read_h5ad(annotated), anndata.read_h5ad(cells)
    assert list(written.obs_names) == list(given.obs_names)
    assert set(written.obs["diffbio_cell_type"]) <= set(given.obs["bulk_labels"])
    agreement = (written.obs["diffbio_cell_type"].astype(str) == given.obs["bulk_labels"].astype(str)).mean()
    print(f"after 3 epochs {agreement:.3f} of the cells are labelled as in bulk_labels")
    assert agreement > 0.3
    assert written.obs["diffbio_confidence"].between(0.1, 1).all()
    assert written.obsm["X_diffbio"].shape == (700, 5)
    assert np.isfinite(written.obsm["X_diffbio"]).all()
    np.testing.assert_array_equal(written.X.toarray(), given.X.toarray())
    figures = sorted(annotated.parent.glob("*.png"))
    assert figures
    for figure in figures:
        assert min(png_size(figure)) > 100
        assert str(figure) in printed


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 3", "epoks = 3", ["'epoks'", "'epochs'"]),
        ("epochs = 3", "epochs = 0", ["epochs is 0", ">= 1"]),
        ('name = "scaling"', 'nane = "scaling"', ["'nane'", "'name'"]),
        ('operator = "Scaling"', 'operator = "Scalling"', ["no operator is called 'Scalling'", "Scaling"]),
        ("n_components = 5", "n_component = 5", ["'n_component'", "'n_components'"]),
        ("format = 1", "format = 9", ["format 9"]),
        ('loss = "cell_type_cross_entropy"', 'loss = "cell_type_entropy"', ["cell_type_cross_entropy"]),
        ('labels = "bulk_labels"', 'labels = "bulk_label"', ["bulk_label", "bulk_labels"]),
        ('key = "normalized"', 'kay = "normalized"', ["'kay'", "'key'"]),
        ("[[steps]]", "[[steps]", ["not valid TOML"]),
    ],
)
def test_a_mistake_in_a_recipe_is_one_message(diffbio, recipe, cells, tmp_path, old, new, said):
    status, _, complaint = diffbio("fit", edited(recipe, old, new), cells, "--out", tmp_path / "run")
    assert status == 1
    assert complaint.startswith("error:")
    assert "Traceback" not in complaint
    for words in said:
        assert words in complaint
    assert not (tmp_path / "run").exists(), "a run that did not happen leaves nothing behind"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit", "recipe.toml", "absent.h5ad", "--out", "run"], "absent.h5ad"),
        (["fit", "absent.toml", "cells.h5ad", "--out", "run"], "there is no recipe file absent.toml"),
        (["apply", "absent", "cells.h5ad", "--out", "out.h5ad"], "holds no saved pipeline"),
        (["fit", "recipe.toml", "cells.xyz", "--out", "run"], "known suffixes"),
    ],
)
def test_a_file_that_is_not_there_is_one_message(diffbio, recipe, monkeypatch, tmp_path, arguments, said):
    monkeypatch.chdir(recipe.parent)
    (tmp_path / "cells.xyz").write_text("")
    status, _, complaint = diffbio(*arguments)
    assert status == 1
    assert said in complaint
    assert "Traceback" not in complaint


def test_further_options_are_those_of_the_reader(diffbio, recipe, cells, tmp_path):
    edited(recipe, 'key = "normalized"', "").write_text(recipe.read_text().replace('labels = "bulk_labels"', ""))
    options = ("--key", "normalized", "--labels=bulk_labels")
    status, printed, complaint = diffbio("fit", recipe, cells, "--out", tmp_path / "run", *options)
    assert status == 0, complaint
    assert "best epoch" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kay", "normalized"], "no option 'kay'"),
        (["--key"], "has no value"),
        (["more.h5ad"], "one argument too many"),
    ],
)
def test_an_option_that_the_reader_lacks_is_one_message(diffbio, recipe, cells, tmp_path, arguments, said):
    status, _, complaint = diffbio("fit", recipe, cells, "--out", tmp_path / "run", *arguments)
    assert status == 1
    assert complaint.startswith("error:")
    assert said in complaint


def test_square_brackets_of_a_message_reach_the_reader(diffbio, recipe, cells, tmp_path):
    recipe.write_text("format = 1")
    _, _, complaint = diffbio("fit", recipe, cells, "--out", tmp_path / "run")
    assert "write at least one [[steps]] table" in complaint
