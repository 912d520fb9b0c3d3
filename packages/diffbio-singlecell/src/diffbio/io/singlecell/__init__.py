"""Single-cell files in and out: AnnData and 10x Genomics."""

from diffbio.io.singlecell.dataset import AnnDataDataset
from diffbio.io.singlecell.hsmm import hsmm_myoblasts
from diffbio.io.singlecell.pbmc import pbmc68k_reduced
from diffbio.io.singlecell.read import read
from diffbio.io.singlecell.write import add_results, write

__all__ = ["AnnDataDataset", "add_results", "hsmm_myoblasts", "pbmc68k_reduced", "read", "write"]
