"""Scores of Plan 7 in NumPy and float64, cell by cell from the probabilities of a file: slow, plain, independent."""

from __future__ import annotations

import numpy as np


def plan7_score(
    match_odds: np.ndarray, transitions: np.ndarray, *, local: bool, multihit: bool, plus: np.ufunc = np.logaddexp
) -> float:
    """Return the log-odds of a sequence in bits; insert states have the background's letters.

    Args:
        match_odds: Of each residue and node, e / f.
        transitions: MM, MI, MD, IM, II, DM, DD of each node, from 0 on.
        local: Whether a path may enter at any node and leave after any.
        multihit: Whether a path may pass more than once.
        plus: `np.logaddexp` for Forward, `np.maximum` for Viterbi.
    """
    size, n = match_odds.shape
    with np.errstate(divide="ignore"):
        emitted, steps = np.log(match_odds), np.log(np.asarray(transitions, np.float64))
    mm, mi, md, im, ii, dm, dd = steps.T
    visited = [0.0, 1 - np.exp(md[0])]
    for k in range(1, n):
        visited.append(visited[k] * (1 - np.exp(md[k])) + (1 - visited[k]) * np.exp(dm[k]))
    if local:
        begin = np.log(visited[1:]) - np.log(sum(visited[k] * (n - k + 1) for k in range(1, n + 1)))
    else:
        begin = np.array([np.log1p(-np.exp(md[0]))] + [md[0] + dd[1:k].sum() + dm[k] for k in range(1, n)])
    flanks = 3 if multihit else 2
    loop, move = np.log(size / (size + flanks)), np.log(flanks / (size + flanks))
    again, stop = (np.log(0.5), np.log(0.5)) if multihit else (-np.inf, 0.0)
    match, insert, delete = np.full((3, n + 1), -np.inf)  # of nodes 1 to n
    before, between, after = 0.0, -np.inf, -np.inf
    for i in range(size):
        begun = plus(before, between) + move
        onward = plus(plus(match[:-1] + mm[:-1], insert[:-1] + im[:-1]), delete[:-1] + dm[:-1])
        following = np.full(n + 1, -np.inf)
        following[1:] = emitted[i] + plus(onward, begun + begin)
        insert = plus(match + mi, insert + ii)
        insert[n] = -np.inf
        match = following
        delete = np.full(n + 1, -np.inf)
        for k in range(2, n + 1):
            delete[k] = plus(match[k - 1] + md[k - 1], delete[k - 1] + dd[k - 1])
        ends = np.concatenate([match, delete]) if local else np.array([match[n], delete[n]])
        end = plus.reduce(ends)
        before, between, after = before + loop, plus(between + loop, end + again), plus(after + loop, end + stop)
    null = size * np.log(size / (size + 1)) - np.log(size + 1)
    return float(after + move - null) / np.log(2)
