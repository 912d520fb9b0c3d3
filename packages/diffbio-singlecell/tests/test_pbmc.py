"""The cells that come with the package are scanpy's, and readable without scanpy."""

from importlib.resources import files

import numpy as np
import pytest

from diffbio.io.singlecell import pbmc68k_reduced


def test_the_cells_are_those_of_scanpy() -> None:
    scanpy = pytest.importorskip("scanpy")
    theirs, ours = scanpy.datasets.pbmc68k_reduced(), pbmc68k_reduced()
    assert ours.shape == (700, 765)
    assert ours.X.dtype == np.float32
    assert abs(ours.X - theirs.raw.X).max() == 0
    assert list(ours.obs_names) == list(theirs.obs_names)
    assert list(ours.var_names) == list(theirs.raw.var_names)
    for column in ("bulk_labels", "phase"):
        assert list(ours.obs[column]) == list(theirs.obs[column])
    np.testing.assert_allclose(ours.obsm["X_umap"], theirs.obsm["X_umap"], rtol=1e-6)


def test_the_types_are_ten_and_uneven() -> None:
    sizes = pbmc68k_reduced().obs["bulk_labels"].value_counts()
    print(sizes.to_dict())
    assert len(sizes) == 10
    assert sizes["Dendritic"] == 240
    assert sizes["CD4+/CD45RA+/CD25- Naive T"] == 8


def test_each_call_gives_its_own_cells() -> None:
    pbmc68k_reduced().X.data[:] = 0
    assert pbmc68k_reduced().X.max() > 0


def test_the_file_is_small_and_has_its_licence_beside_it() -> None:
    folder = files("diffbio.io.singlecell") / "data"
    size = len((folder / "pbmc68k_reduced.h5ad").read_bytes())
    print(f"{size} bytes")
    assert size < 1_200_000
    licence = (folder / "LICENSE-pbmc68k.txt").read_text()
    assert "BSD 3-Clause License" in licence
    assert "Redistributions of source code must retain the above copyright notice" in licence
