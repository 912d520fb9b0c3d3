"""Sequences: alphabets and encodings, FASTA and FASTQ files, batches, words of k letters, alignments and profiles."""

from diffbio.io.sequence.alignments import Alignment, aligned_rows, read_alignment, write_alignment
from diffbio.io.sequence.alphabets import (
    AMBIGUOUS,
    DNA,
    PROTEIN,
    RNA,
    IndexedSequences,
    Sequences,
    decode,
    encode,
    encode_indices,
)
from diffbio.io.sequence.batches import BUCKETS, Batch, bucketed
from diffbio.io.sequence.files import Record, read_pairs, read_sequences
from diffbio.io.sequence.hmmer_files import read_hmm, write_hmm
from diffbio.io.sequence.kmers import (
    kmer_counts,
    kmer_counts_of_codes,
    kmers,
    reverse_complement,
    reverse_complement_of,
)
from diffbio.io.sequence.profiles import Profile
from diffbio.io.sequence.qualities import error_probability, with_quality
from diffbio.io.sequence.regions import read_region
from diffbio.io.sequence.writing import kept_pairs, kept_records, write_fasta, write_fastq

__all__ = [
    "AMBIGUOUS",
    "BUCKETS",
    "DNA",
    "PROTEIN",
    "RNA",
    "Alignment",
    "Batch",
    "IndexedSequences",
    "Profile",
    "Record",
    "Sequences",
    "aligned_rows",
    "bucketed",
    "decode",
    "encode",
    "encode_indices",
    "error_probability",
    "kept_pairs",
    "kept_records",
    "kmer_counts",
    "kmer_counts_of_codes",
    "kmers",
    "read_alignment",
    "read_hmm",
    "read_pairs",
    "read_region",
    "read_sequences",
    "reverse_complement",
    "reverse_complement_of",
    "with_quality",
    "write_alignment",
    "write_fasta",
    "write_fastq",
    "write_hmm",
]
