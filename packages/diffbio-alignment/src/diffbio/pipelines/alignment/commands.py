"""The commands `diffbio align` and `diffbio learn-scores`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from diffbio.core.errors import DataError
from diffbio.io.sequence.alignments import Alignment, read_alignment, write_alignment
from diffbio.io.sequence.alphabets import DNA, PROTEIN, RNA
from diffbio.io.sequence.files import read_sequences
from diffbio.io.sequence.hmmer_files import read_hmm
from diffbio.operators.alignment.pairwise import NeedlemanWunschConfig, SmoothNeedlemanWunsch
from diffbio.operators.alignment.profile_hmm import ProfileHMM
from diffbio.pipelines.alignment.exports import write_scores
from diffbio.pipelines.alignment.multiple import align_sequences
from diffbio.pipelines.alignment.profile import align_to_profile
from diffbio.pipelines.alignment.reference_pairs import ReferencePairs
from diffbio.pipelines.alignment.scores import HALF_BITS, learn_scores, pairs_recovered

_ALPHABETS = {"protein": PROTEIN, "dna": DNA, "rna": RNA}
_MATRICES = {"protein": "BLOSUM62", "dna": "NUC.4.4"}


def align(
    file: Annotated[Path, typer.Argument(help="Sequences, as FASTA, plain or compressed.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The alignment to write: .sto, .fasta or .aln.")],
    *,
    alphabet: Annotated[str, typer.Option(help="protein or dna.")] = "protein",
    matrix: Annotated[str | None, typer.Option(help="Name or file of a substitution matrix.")] = None,
    gap_open: Annotated[float | None, typer.Option(help="Cost of the first position of a gap.", min=0)] = None,
    gap_extend: Annotated[float | None, typer.Option(help="Cost of each further one.", min=0)] = None,
    temperature: Annotated[float | None, typer.Option(help="Softness, in the unit of the scores.", min=0)] = None,
    profile: Annotated[Path | None, typer.Option(help="Align to this profile of HMMER (.hmm) instead.")] = None,
) -> None:
    """Align the sequences of FILE with each other, or to a profile, and write the alignment to OUT."""
    records = list(read_sequences(file))
    if profile is not None:
        model = ProfileHMM.from_profile(read_hmm(profile)[0], multihit=False)
        rows = align_to_profile(model, [record.sequence.upper() for record in records])
        write_alignment(out, Alignment([record.name for record in records], rows))
        Console().print(f"{len(rows)} sequences in {len(rows[0])} columns; written to {out}", highlight=False)
        return
    given = {"gap_open": gap_open, "gap_extend": gap_extend, "temperature": temperature}
    found, accuracy = align_sequences(
        [record.sequence.upper() for record in records],
        alphabet=_chosen(alphabet, _ALPHABETS),
        matrix=matrix or _chosen(alphabet, _MATRICES),
        **{name: value for name, value in given.items() if value is not None},
    )
    write_alignment(out, Alignment([record.name for record in records], found))
    Console().print(
        f"{len(found)} sequences in {len(found[0])} columns; of the pairs of residues in one column, {accuracy:.0%} are"
        f" right in expectation; written to {out}",
        highlight=False,
    )


def learn_scores_command(
    families: Annotated[list[Path], typer.Argument(help="Reference alignments to learn from: .sto, .afa, .aln.")],
    *,
    held_out: Annotated[list[Path] | None, typer.Option(help="Reference alignments to judge by; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="The matrix to write, as BLAST and parasail read it.")] = Path(
        "learned.mat"
    ),
    matrix: Annotated[str, typer.Option(help="Where to start from.")] = "BLOSUM62",
    gap_open: Annotated[float, typer.Option(help="Likewise, in the unit of the matrix.")] = 11.0,
    gap_extend: Annotated[float, typer.Option(help="Likewise.")] = 1.0,
    pairs: Annotated[int, typer.Option(help="Pairs of sequences to draw from each family.", min=1)] = 64,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
) -> None:
    """Learn a substitution matrix and gap costs of proteins from reference alignments; compare on those held out."""
    console = Console()
    config = NeedlemanWunschConfig(
        matrix=matrix, gap_open=gap_open, gap_extend=gap_extend, temperature=float(HALF_BITS), learnable=True
    )
    known = {path.name: read_alignment(path) for path in families}
    aligner = learn_scores(known, config, key=jax.random.key(seed), epochs=epochs, pairs_per_family=pairs)
    costs = write_scores(out, aligner, f"learned from {', '.join(known)}, starting from {matrix}")
    console.print(f"{out}: a gap of n letters costs {costs[0]} + (n - 1) {costs[1]}", highlight=False)
    if not held_out:
        return
    start = SmoothNeedlemanWunsch(config)
    table = Table("held out", "pairs", matrix, "learned", title="aligned residues that are found again, pair by pair")
    shares = []
    for path in held_out:
        family = {path.name: read_alignment(path)}
        judged = ReferencePairs(family, config.alphabet, pairs, np.random.default_rng(seed))
        shares.append((pairs_recovered(start, judged), pairs_recovered(aligner, judged)))
        table.add_row(path.name, str(len(judged)), *(f"{share:.3f}" for share in shares[-1]))
    table.add_row("mean", "", *(f"{share:.3f}" for share in np.mean(shares, 0)), style="bold")
    console.print(table)


def _chosen(name: str, table: dict[str, str]) -> str:
    if name not in table:
        raise DataError(f"there is no alphabet {name!r}; give one of {', '.join(table)}")
    return table[name]
