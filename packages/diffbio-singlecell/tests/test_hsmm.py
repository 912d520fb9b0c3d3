"""The time course that comes with the package."""

from importlib.resources import files

import numpy as np

from diffbio.io.singlecell import hsmm_myoblasts


def test_it_is_abundances_of_cells_in_time() -> None:
    cells = hsmm_myoblasts()
    assert cells.shape == (271, 1000)
    assert cells.X.dtype == np.float32
    assert cells.X.data.min() >= 0.5
    assert cells.obs["hours"].cat.categories.tolist() == ["0", "24", "48", "72"]
    later = cells.obs.groupby("hours", observed=True)["monocle_pseudotime"].median()
    print(later.to_dict())
    assert later["72"] > later["0"]


def test_the_file_is_small_and_has_its_licence_beside_it() -> None:
    folder = files("diffbio.io.singlecell") / "data"
    assert len((folder / "hsmm_myoblasts.h5ad").read_bytes()) < 1_000_000
    licence = (folder / "LICENSE-hsmm.txt").read_text()
    assert "Artistic License 2.0" in licence
    assert "Changes:" in licence
