"""The cells that several conformance examples share, and the reason for which some have no hard limit."""

from __future__ import annotations

import numpy as np

COUNTS = np.array(
    [
        [3, 0, 1, 7, 2, 12],
        [0, 5, 2, 1, 9, 30],
        [8, 1, 0, 2, 4, 18],
        [1, 2, 6, 11, 0, 9],
        [2, 14, 1, 3, 5, 41],
        [6, 3, 4, 0, 1, 22],
        [0, 1, 9, 5, 3, 7],
    ],
    np.float32,
)  # 7 cells, 6 genes

RELAXES_NOTHING = {"limit_is_hard_reference": "relaxes no hard algorithm"}
