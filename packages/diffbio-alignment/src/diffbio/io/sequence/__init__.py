"""Sequences: alphabets and encodings."""

from diffbio.io.sequence.alphabets import AMBIGUOUS, DNA, PROTEIN, RNA, Sequences, encode

__all__ = ["AMBIGUOUS", "DNA", "PROTEIN", "RNA", "Sequences", "encode"]
