"""Operators as functions of an AnnData, called and stored as in scanpy: `pp`, `tl`, `pl`.

    import diffbio.singlecell as db

    db.pp.library_size_normalization(adata, layer="counts")
    db.tl.harmony(adata, batch_key="batch")
    db.pl.embedding(adata, "X_harmony", color="cell_type")

Each function is made from the operator of that name when it is first asked for: the operator's configuration gives its
keyword arguments, the data keys that the operator reads and writes give the places in the AnnData (see `places`).
"""

from diffbio.singlecell import pl, pp, tl

__all__ = ["pl", "pp", "tl"]
