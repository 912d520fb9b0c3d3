"""A pipeline of this package that was saved long ago loads, and gives what it gave then.

`data/saved-format-N` was written by the first version that wrote layout N, and is never written again: a new layout
gets a folder of its own beside it.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from diffbio.core import load
from diffbio.core.storage import describe_saved

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("folder", sorted(path.name for path in DATA.glob("saved-format-*")))
def test_an_old_pipeline_gives_what_it_gave(folder):
    expected = json.loads((DATA / folder / "expected.json").read_text(encoding="utf-8"))
    pipeline = load(DATA / folder)
    inputs = {key: jnp.asarray(values, jnp.float32) for key, values in expected["inputs"].items()}
    outputs, _, _ = pipeline.apply(inputs, {}, None)
    for key, values in expected["outputs"].items():
        np.testing.assert_allclose(outputs[key], values, rtol=1e-4, atol=1e-4)
    assert pipeline.names == ("normalization", "scaling", "projection", "groups")
    assert describe_saved(DATA / folder)["metadata"] == {"genes": list("abcdef")}
