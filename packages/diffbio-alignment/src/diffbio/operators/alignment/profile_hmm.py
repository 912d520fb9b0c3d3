"""A profile HMM with a softness: how well sequences fit a family, and which residue is which node of it.

Hard: the log-odds S of the most likely path through HMMER's Plan 7 (Viterbi), and the nodes that it visits. Relaxed,
over all paths a,

    score = tau log sum_a exp(S_a / tau)      P(i ~ k) = sum of exp((S_a - score) / tau) over a with residue i in node k

With tau = 1, and only so, the score is that of the Forward algorithm, the likelihood ratio of the family and the null
model, and P the posterior; HMMER reports it less its correction for biased composition. As tau -> 0 the score becomes
Viterbi's and P its path.

References:
    Krogh, Brown, Mian, Sjolander and Haussler, Hidden Markov models in computational biology, Journal of Molecular
    Biology 1994.
    Eddy, Accelerated profile HMM searches, PLoS Computational Biology 2011.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Lt
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from diffbio.core import Operator, OperatorConfig, Softness
from diffbio.core.errors import ConfigError, ContractError
from diffbio.io.sequence.alphabets import DNA, PROTEIN, RNA
from diffbio.io.sequence.profiles import Profile
from diffbio.operators.alignment.plan7 import (
    Plan7,
    background,
    null_length,
    path_weights,
    plan7_with_gaps,
)
from diffbio.operators.alignment.profile_partition import path_sum
from diffbio.operators.alignment.semirings import NEVER

_LN2 = 0.6931471805599453
_LEAST = 1e-30  # of probabilities, so that their logarithms are finite
_SEED = 0.5  # how much of a match state is the seed's letter at first, and not the background


@dataclass(frozen=True, kw_only=True)
class ProfileHMMConfig(OperatorConfig):
    """Size and kind of a profile HMM.

    Args:
        n_nodes: Match states, about the length of the family's domain.
        alphabet: The letters, in the order of the sequences' last axis.
        local: Whether a path may enter at any node and leave after any, or passes all from first to last (glocal).
        multihit: Whether a path may pass more than once, on average twice.
        inserts: Whether insert states emit the letters of the background, as HMMER searches, or their own.
        gap_open: Probability of an insertion, and of a deletion, after a match state, before data or a file say more.
        gap_extend: Probability of each further residue or node of it, likewise.
        temperature: The softness tau; with 1 the score is a likelihood ratio.
        learnable: Whether training changes the profile.
    """

    n_nodes: Annotated[int, Ge(2)]
    alphabet: str = PROTEIN
    local: bool = True
    multihit: bool = True
    inserts: Literal["background", "own"] = "background"
    gap_open: Annotated[float, Gt(0), Lt(0.5)] = 0.02
    gap_extend: Annotated[float, Gt(0), Lt(1)] = 0.4
    temperature: Annotated[float, Gt(0)] = 1.0
    learnable: bool = True


class ProfileAlignment(NamedTuple):
    """How sequences fit a profile.

    Attributes:
        profile_score: Log-odds against the null model, in bits (*batch,).
        match_posterior: Probability that a residue is in a node's match state (*batch, positions, nodes).
        insert_posterior: Probability that it is in its insert state; beside both, a residue may be in a flank.
        expected_domains: How often a path passes the profile (*batch,).
    """

    profile_score: Float[Array, "*batch"]
    match_posterior: Float[Array, "*batch positions nodes"]
    insert_posterior: Float[Array, "*batch positions nodes"]
    expected_domains: Float[Array, "*batch"]


@partial(jax.jit, static_argnames=("local", "multihit"))
def profile_alignment(
    core: Plan7,
    letters: Float[Array, "positions letters"],
    length: Int[Array, ""],
    *,
    frequencies: Float[Array, " letters"],
    softness: ArrayLike = 1.0,
    local: bool = True,
    multihit: bool = True,
) -> ProfileAlignment:
    """Return score and posterior of a sequence.

    Args:
        core: Of the profile.
        letters: A distribution over the letters for each position; see `path_weights`.
        length: How many positions count, the first ones.
        frequencies: Of the letters in the null model.
        softness: tau > 0; with 1 the score is that of the Forward algorithm, towards 0 Viterbi's.
        local: Whether a path may enter at any node and leave after any.
        multihit: Whether it may pass more than once.

    Returns:
        Score (), posteriors (positions, nodes), 0 beyond the length, and domains (). A sequence without residues has
        the score 0. Time grows as positions x nodes; memory is that of the posteriors, and for their own derivative
        twice.

    References:
        HMMER3's Forward and posterior decoding.

    Example:
        >>> core = plan7_with_gaps(jnp.eye(4)[jnp.array([0, 1, 3])])  # the profile ACT
        >>> found = profile_alignment(core, jnp.eye(4), jnp.array(4), frequencies=jnp.full(4, 0.25))  # on ACGT
        >>> round(float(found.profile_score), 2), found.match_posterior.round(1).argmax(0).tolist()
        (0.93, [0, 1, 3])
    """
    weights = path_weights(core, letters, length, frequencies=frequencies, local=local, multihit=multihit)
    softened = jax.tree.map(lambda weight: jnp.maximum(weight / softness, NEVER), weights)
    log_sum, counts = path_sum(softened, length)
    score = jnp.where(length > 0, softness * log_sum - null_length(length), 0.0) / _LN2
    match, insert = counts.emissions
    return ProfileAlignment(score, match, insert, counts.moves.begin.sum())


class ProfileHMM(Operator[ProfileHMMConfig]):
    """Score sequences by a profile HMM, and decode which residue is which node.

    Reads `sequences` (*batch, positions, letters), distributions over the letters, and optionally `sequence_length`
    (*batch,), how many positions count; writes `profile_score` (*batch,) in bits, `match_posterior` and
    `insert_posterior` (*batch, positions, nodes), and `expected_domains` (*batch,). Parameters, if learnable, are
    logits, whose softmax counts: `match_logits` (nodes, letters), `insert_logits` (nodes - 1, letters) for
    `inserts="own"`, `from_match_logits` (nodes, 3), `from_insert_logits` and `from_delete_logits` (nodes - 1, 2).

    At first all match states have the letters of the background, and no sequence scores. `from_profile` takes the
    profile of a file; `initialize` one of the sequences, from which training goes on.

    Args:
        config: Size and kind.
        rngs: Not used: nothing is drawn.

    Example:
        >>> family = ProfileHMM(ProfileHMMConfig(n_nodes=3, alphabet="ACGT"))
        >>> family.initialize(jnp.eye(4)[jnp.array([[0, 1, 3]])])  # ACT
        >>> data, _, _ = family.apply({"sequences": jnp.eye(4)[jnp.array([[0, 1, 3], [2, 2, 0]])]}, {}, None)
        >>> [round(score, 1) for score in data["profile_score"].tolist()]
        [2.4, -0.9]
    """

    def __init__(self, config: ProfileHMMConfig, *, rngs: nnx.Rngs | None = None) -> None:
        super().__init__(config, rngs=rngs)
        kind = nnx.Param if config.learnable else nnx.Variable
        self.frequencies = nnx.Variable(jnp.asarray(background(config.alphabet)))
        match = jnp.tile(self.frequencies[...], (config.n_nodes, 1))
        core = plan7_with_gaps(match, gap_open=config.gap_open, gap_extend=config.gap_extend)
        self.match_logits = kind(core.match)
        self.from_match_logits = kind(core.from_match)
        self.from_insert_logits = kind(core.from_insert)
        self.from_delete_logits = kind(core.from_delete)
        self.insert_logits = kind(core.match[1:]) if config.inserts == "own" else None
        self.softness = Softness(config.temperature)

    @classmethod
    def from_profile(cls, profile: Profile, **settings: Any) -> Self:
        """Return the operator of a profile, such as one of `read_hmm`.

        Args:
            profile: Its probabilities, in any order of the letters.
            **settings: Fields of the configuration; else the alphabet is `PROTEIN`, `DNA` or `RNA`.

        Raises:
            ConfigError: The alphabet of the settings has other letters than the profile.
        """
        usual = [letters for letters in (PROTEIN, DNA, RNA) if sorted(letters) == sorted(profile.alphabet)]
        known = {"alphabet": (usual or [profile.alphabet])[0], "n_nodes": len(profile.match)}
        config = ProfileHMMConfig(**(known | settings))
        if sorted(config.alphabet) != sorted(profile.alphabet):
            raise ConfigError(
                f"the alphabet is {config.alphabet!r}, and the letters of profile {profile.name} are "
                f"{profile.alphabet!r}; give the same letters, in any order"
            )
        operator = cls(config)
        order = np.array([profile.alphabet.index(letter) for letter in config.alphabet])
        logs = [jnp.log(jnp.maximum(part, _LEAST)) for part in (profile.match, profile.insert, profile.transitions)]
        operator.match_logits[...] = logs[0][:, order]
        operator.from_match_logits[...] = logs[2][:-1, :3]
        operator.from_insert_logits[...] = logs[2][1:-1, 3:5]
        operator.from_delete_logits[...] = logs[2][1:-1, 5:]
        if operator.insert_logits is not None:
            operator.insert_logits[...] = logs[1][1:-1, order]
        return operator

    def to_profile(self, name: str) -> Profile:
        """Return the probabilities that the parameters stand for, as `write_hmm` writes them.

        HMMER reads such a profile, but its filters and E-values need `statistics`, which hmmbuild fits to random
        sequences and which are not known here.

        Args:
            name: Of the model, without blanks.
        """
        core = jax.tree.map(lambda logs: np.asarray(jnp.exp(logs)), self.core())
        insert = np.tile(self.frequencies[...], (len(core.match) + 1, 1))
        if core.insert is not None:
            insert[1:-1] = core.insert
        from_insert = np.pad(core.from_insert, ((1, 1), (0, 0)), mode="edge")  # what no path reaches is as next to it
        transitions = np.zeros((len(insert), 7), np.float32)
        transitions[:-1, :3], transitions[:, 3:5], transitions[1:-1, 5:] = (
            core.from_match,
            from_insert,
            core.from_delete,
        )
        transitions[-1, 0] = transitions[0, 5] = transitions[-1, 5] = 1
        letters = [self.config.alphabet[place] for place in core.match.argmax(axis=1)]
        return Profile(
            name=name,
            alphabet=self.config.alphabet,
            match=core.match,
            insert=insert,
            transitions=transitions,
            composition=core.match.mean(axis=0),
            consensus="".join(
                a if p > 0.5 else a.lower() for a, p in zip(letters, core.match.max(axis=1), strict=True)
            ),
        )

    def initialize(
        self,
        sequences: Float[Array, "*batch positions letters"],
        sequence_length: Int[Array, "*batch"] | None = None,
    ) -> None:
        """Set the match states from the sequence whose length is nearest to the number of nodes.

        They have its letters, stretched over the nodes, each mixed with the background in equal parts. It is what
        training by likelihood starts from.

        Args:
            sequences: Members of the family, not aligned.
            sequence_length: How many positions of each count.
        """
        flat = sequences.reshape(-1, *sequences.shape[-2:])
        lengths = jnp.full(len(flat), flat.shape[1]) if sequence_length is None else sequence_length.reshape(-1)
        seed = jnp.argmin(jnp.abs(lengths - self.config.n_nodes))
        middles = (jnp.arange(self.config.n_nodes) + 0.5) / self.config.n_nodes
        letters = flat[seed, jnp.floor(middles * lengths[seed]).astype(int)]
        self.match_logits[...] = jnp.log(_SEED * letters + (1 - _SEED) * self.frequencies[...])

    def core(self) -> Plan7:
        """Return the logarithms of the probabilities that the parameters stand for."""
        own = self.insert_logits
        return Plan7(
            *(
                jax.nn.log_softmax(logits[...])
                for logits in (
                    self.match_logits,
                    self.from_match_logits,
                    self.from_insert_logits,
                    self.from_delete_logits,
                )
            ),
            insert=None if own is None else jax.nn.log_softmax(own[...]),
        )

    def compute(
        self,
        sequences: Float[Array, "*batch positions letters"],
        sequence_length: Int[Array, "*batch"] | None = None,
    ) -> ProfileAlignment:
        """Return score and posterior of each sequence."""
        if sequences.shape[-1] != len(self.config.alphabet):
            raise ContractError(
                f"the sequences have distributions over {sequences.shape[-1]} letters, and the profile's alphabet is "
                f"{self.config.alphabet!r}; encode them with it"
            )
        length = jnp.full(sequences.shape[:-2], sequences.shape[-2]) if sequence_length is None else sequence_length
        align: Callable[..., ProfileAlignment] = partial(
            profile_alignment,
            self.core(),
            frequencies=self.frequencies[...],
            softness=self.softness(),
            local=self.config.local,
            multihit=self.config.multihit,
        )
        for _ in sequences.shape[:-2]:
            align = jax.vmap(align)
        return align(sequences, length)
