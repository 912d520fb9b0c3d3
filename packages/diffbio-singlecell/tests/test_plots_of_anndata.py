"""The plots of an AnnData read what they say from where they say."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import sparse

from diffbio.core.errors import ContractError, MissingKeyError
from diffbio.singlecell import pl

scanpy = pytest.importorskip("scanpy")


@pytest.fixture(scope="module")
def pbmc() -> AnnData:
    return scanpy.datasets.pbmc68k_reduced()


def test_categories_numbers_and_genes_colour_an_embedding(pbmc: AnnData) -> None:
    by_type = pl.embedding(pbmc, "umap", color="bulk_labels")
    drawn = np.concatenate([np.asarray(points.get_offsets()) for points in by_type.collections])
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(pbmc.obsm["X_umap"], axis=0))
    assert len({to_hex(points.get_facecolor()[0]) for points in by_type.collections if len(points.get_offsets())}) == 10
    assert by_type.get_legend() is not None
    depth = pl.embedding(pbmc, "X_pca", color="n_counts", title="depth")
    np.testing.assert_allclose(depth.collections[1].get_array(), np.sort(pbmc.obs["n_counts"]))
    np.testing.assert_allclose(
        np.sort(depth.collections[1].get_offsets(), axis=0), np.sort(pbmc.obsm["X_pca"][:, :2], axis=0)
    )
    assert depth.get_title() == "depth"
    for options, matrix in (({}, pbmc.raw[:, "CST3"].X), ({"use_raw": False}, pbmc[:, "CST3"].X)):
        ax = pl.embedding(pbmc, "umap", color="CST3", **options)
        values = matrix.toarray() if sparse.issparse(matrix) else matrix
        np.testing.assert_allclose(ax.collections[1].get_array(), np.sort(np.ravel(values)))


def test_text_truth_values_and_unused_categories(pbmc: AnnData) -> None:
    few = pbmc[pbmc.obs["bulk_labels"].isin(["Dendritic", "CD19+ B"])].copy()
    few.obs["is_b"] = (few.obs["bulk_labels"] == "CD19+ B").to_numpy()
    few.obs["text"] = few.obs["bulk_labels"].astype(str).to_numpy()
    for color, names in (("bulk_labels", ["CD19+ B (95)", "Dendritic (240)"]), ("is_b", ["False (240)", "True (95)"])):
        legend = pl.embedding(few, "umap", color=color).get_legend()
        assert [text.get_text() for text in legend.get_texts()] == names
    assert len(pl.embedding(few, "umap", color="text", on_data=True).texts) == 2


def test_dot_plot_of_hard_and_soft_groups(pbmc: AnnData) -> None:
    adata = pbmc.copy()
    codes = adata.obs["bulk_labels"].cat.codes.to_numpy()
    adata.obsm["cluster_assignments"] = np.eye(10)[codes]
    adata.obsm["named"] = pd.DataFrame(
        np.eye(10)[codes], index=adata.obs_names, columns=adata.obs["bulk_labels"].cat.categories
    )
    axes = [pl.dot_plot(adata, ["CST3", "NKG7"], groups) for groups in ("bulk_labels", "cluster_assignments", "named")]
    for ax in axes[1:]:
        np.testing.assert_allclose(ax.collections[0].get_array(), axes[0].collections[0].get_array(), rtol=1e-6)
    ticks = [[text.get_text() for text in ax.get_yticklabels()] for ax in axes]
    assert ticks[0] == ticks[2]
    assert ticks[1][0] == "0 (68)"
    assert (
        pl.dot_plot(adata, "CST3", "bulk_labels", ax=Figure().add_subplot()).get_xticklabels()[0].get_text() == "CST3"
    )


def test_confusion_of_columns_with_other_categories() -> None:
    adata = AnnData(np.zeros((5, 1), np.float32))
    adata.obs["truth"] = pd.Categorical(["B", "T", "T", None, "B"], ["T", "B"])
    adata.obs["predicted"] = ["B", "NK", "T", "T", None]
    ax = pl.confusion_matrix(adata, "truth", "predicted")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["T (2)", "B (1)", "NK (0)"]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "truth (cells)")


def test_errors_name_what_is_there(pbmc: AnnData) -> None:
    with pytest.raises(MissingKeyError, match=r"no 'tsne' in obsm.*X_umap.*basis="):
        pl.embedding(pbmc, "tsne", color="bulk_labels")
    with pytest.raises(MissingKeyError, match=r"no gene 'CST4' among 765.*did you mean.*columns of obs: .*bulk_labels"):
        pl.embedding(pbmc, "umap", color="CST4")
    with pytest.raises(MissingKeyError, match="no gene 'XYZ'"):
        pl.dot_plot(pbmc, ["CST3", "XYZ"], "bulk_labels")
    with pytest.raises(MissingKeyError, match="groupby="):
        pl.dot_plot(pbmc, ["CST3"], "bulk_label")
    with pytest.raises(MissingKeyError, match="predicted="):
        pl.confusion_matrix(pbmc, "bulk_labels", "nothing")
    with pytest.raises(ContractError, match="have no name in common"):
        pl.confusion_matrix(pbmc, "bulk_labels", "louvain")
    line = AnnData(np.zeros((3, 1), np.float32), obsm={"X_line": np.zeros((3, 1))}, obs={"a": ["x", "y", "z"]})
    with pytest.raises(ContractError, match="two dimensions are needed"):
        pl.embedding(line, "line", color="a")
