"""Substitution matrices: scores of aligning one letter with another, from Biopython's collection or a file.

References:
    Henikoff and Henikoff, Amino acid substitution matrices from protein blocks, PNAS 1992 (BLOSUM).
    Cock et al., Biopython, Bioinformatics 2009: `Bio.Align.substitution_matrices`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import cast

import jax.numpy as jnp
import numpy as np
from Bio.Align import substitution_matrices
from jax import lax
from jaxtyping import Array, Float, Int

from diffbio.core.errors import ConfigError, ContractError, listed, nearest

_OWN = {"PFAM4": "pfam4.mat"}
"""Matrices that come with diffbio: the learned one, see `diffbio.pipelines.alignment.scores`."""


def substitution_matrix(name: str, letters: str) -> Float[np.ndarray, "letters letters"]:
    """Return a matrix by its name, in the order of an alphabet.

    Args:
        name: Such as `BLOSUM62`, `PAM250` or `NUC.4.4`; `Bio.Align.substitution_matrices.load()` lists them;
            `PFAM4`, which was learned by gradient. Or the path of a file in the format that BLAST and parasail read.
        letters: The alphabet.

    Returns:
        Scores, float32; symmetric for all that are listed.

    Raises:
        ConfigError: There is no such matrix, or it lacks a letter.

    Example:
        >>> substitution_matrix("BLOSUM62", "WCA").tolist()
        [[11.0, -2.0, -3.0], [-2.0, 9.0, 0.0], [-3.0, 0.0, 4.0]]
    """
    known = [*substitution_matrices.load(), *_OWN]
    if name in _OWN:
        with (files("diffbio.operators.alignment") / "data" / _OWN[name]).open() as file:
            table = substitution_matrices.read(file)
    elif name in known:
        table = cast("substitution_matrices.Array", substitution_matrices.load(name))
    elif Path(name).is_file():
        table = substitution_matrices.read(name)
    else:
        raise ConfigError(
            f"there is no substitution matrix {name!r}{nearest(name, known)}, and no file of that name; "
            f"there are {listed(known)}"
        )
    absent = [letter for letter in letters if letter not in table.alphabet]
    if absent:
        raise ConfigError(
            f"the matrix {name} has no scores for {listed(absent)}; its letters are {table.alphabet!r}: leave those "
            "letters out of the alphabet, or name another matrix"
        )
    return np.asarray(table.select(letters), np.float32)


def substitution_scores(
    x: Float[Array, "x letters"] | Int[Array, " x"],
    y: Float[Array, "y letters"] | Int[Array, " y"],
    matrix: Float[Array, "letters letters"],
) -> Float[Array, "x y"]:
    """Return the expected score of each pair of positions.

    Args:
        x: Distributions over the letters, or codes of letters.
        y: Likewise.
        matrix: Scores of pairs of letters.

    Returns:
        Scores, in the unit of the matrix.

    Raises:
        ContractError: Letters differ in number.

    Example:
        >>> matrix = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
        >>> substitution_scores(jnp.array([0, 1]), jnp.array([[1.0, 0.0], [0.5, 0.5]]), matrix).tolist()
        [[1.0, 0.0], [-1.0, 0.0]]
    """
    rows = _mixed(x, matrix, "x")
    if jnp.issubdtype(y.dtype, jnp.integer):
        return rows[:, y]
    _require_letters(y, matrix, "y")
    return jnp.matmul(rows, y.T, precision=lax.Precision.HIGHEST)


def _mixed(x: Array, matrix: Array, name: str) -> Array:
    if jnp.issubdtype(x.dtype, jnp.integer):
        return matrix[x]
    _require_letters(x, matrix, name)
    return jnp.matmul(x, matrix, precision=lax.Precision.HIGHEST)


def _require_letters(sequence: Array, matrix: Array, name: str) -> None:
    if sequence.shape[-1] != matrix.shape[0]:
        raise ContractError(
            f"{name} has distributions over {sequence.shape[-1]} letters, and the matrix scores {matrix.shape[0]}; "
            "encode the sequence with the alphabet of the matrix"
        )


def symmetric(matrix: Float[Array, "letters letters"]) -> Float[Array, "letters letters"]:
    """Return the mean of a matrix and its transpose: which sequence comes first means nothing."""
    return (matrix + jnp.swapaxes(matrix, 0, 1)) / 2


def write_substitution_matrix(
    path: str | Path, scores: Int[np.ndarray, "letters letters"], letters: str, comments: Iterable[str] = ()
) -> None:
    """Write a matrix in the format that BLAST, EMBOSS and parasail read.

    Args:
        path: The file.
        scores: Whole numbers, as parasail wants them.
        letters: The alphabet, in the order of the scores; for a protein's, the codes B, Z, X and * are added.
        comments: Lines to stand above.

    Example:
        >>> write_substitution_matrix("dna.mat", np.eye(4, dtype=int), "ACGT", ["matches alone"])  # doctest: +SKIP
    """
    ambiguous = {"B": "ND", "Z": "QE", "X": letters} if set("NDQE") <= set(letters) else {}
    mixed = np.eye(len(letters))
    for stands_for in ambiguous.values():
        mixed = np.vstack([mixed, np.isin(list(letters), list(stands_for)) / len(stands_for)])
    known = np.rint(mixed @ scores @ mixed.T).astype(int)
    table = substitution_matrices.Array(
        letters + "".join(ambiguous) + "*", dims=2, data=_with_stop(known, scores.min())
    )
    table.header = list(comments)
    Path(path).write_text(table.format(fmt="%4d"))


def _with_stop(scores: np.ndarray, least: int) -> np.ndarray:
    """Return scores with those of `*`: the worst with any letter, 1 with itself, as NCBI's matrices have it."""
    whole = np.full((len(scores) + 1,) * 2, float(least))
    whole[:-1, :-1], whole[-1, -1] = scores, 1
    return whole
