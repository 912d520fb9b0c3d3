"""The profile HMM beside HMMER on real profiles and proteins; its limit, its edges, its training."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from plan7_reference import plan7_score

from diffbio.core.errors import ConfigError, ContractError
from diffbio.io.sequence.alphabets import DNA, PROTEIN, encode
from diffbio.io.sequence.hmmer_files import read_hmm, write_hmm
from diffbio.operators.alignment.plan7 import background, path_weights
from diffbio.operators.alignment.profile_hmm import ProfileHMM, ProfileHMMConfig
from diffbio.operators.alignment.profile_partition import STATES, best_profile_path

pyhmmer = pytest.importorskip("pyhmmer")
DATA = Path(pyhmmer.__file__).parent / "tests" / "data"
PROTEINS = DATA / "seqs" / "938293.PRJEB85.HG003687.faa"  # 2,100 proteins of a bacterium
EXAMPLES = Path("/usr/share/doc/hmmer/examples/tutorial")  # of Debian's package hmmer
REFERENCE = f"pyhmmer {pyhmmer.__version__}"
AMINO = pyhmmer.easel.Alphabet.amino()
needs_debian = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="needs the files of Debian's package hmmer")


def sequences_of(path: Path, *, most: int = 10**6, shortest: int = 1, longest: int = 10**6) -> list[str]:
    with pyhmmer.easel.SequenceFile(path) as file:
        found = [sequence.sequence.rstrip("*").upper() for sequence in file]
    return [sequence for sequence in found if shortest <= len(sequence) <= longest][:most]


def batch(sequences: list[str], alphabet: str = PROTEIN, size: int | None = None) -> dict[str, jax.Array]:
    letters, lengths = encode(sequences, alphabet, size=size)
    return {"sequences": jnp.asarray(letters), "sequence_length": jnp.asarray(lengths)}


def digital(sequences: list[str], alphabet=AMINO):
    texts = [
        pyhmmer.easel.TextSequence(name=f"s{number}", sequence=sequence) for number, sequence in enumerate(sequences)
    ]
    return pyhmmer.easel.DigitalSequenceBlock(alphabet, [text.digitize(alphabet) for text in texts])


def hmmer_scores(path: Path, sequences: list[str]) -> dict[int, float]:
    """Return Forward scores in bits, of the sequences that pass HMMER's filters with all thresholds off."""
    with pyhmmer.plan7.HMMFile(path) as file:
        hmm = file.read()
    options = {"bias_filter": False, "null2": False, "F1": 1.0, "F2": 1.0, "F3": 1.0, "T": -1e6, "domT": -1e6}
    hits = pyhmmer.plan7.Pipeline(hmm.alphabet, **options).search_hmm(hmm, digital(sequences, hmm.alphabet))
    return {int(str(hit.name).strip("b'")[1:]): hit.pre_score for hit in hits}


@jax.jit
def _apply(graph_and_state, data):
    return nnx.merge(*graph_and_state).apply(data, {}, None)[0]


def applied(operator: ProfileHMM, data: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return _apply(nnx.split(operator), data)


def largest_difference(path: Path, sequences: list[str]) -> tuple[float, int]:
    theirs = hmmer_scores(path, sequences)
    operator = ProfileHMM.from_profile(read_hmm(path)[0])
    ours = np.asarray(applied(operator, batch(sequences))["profile_score"])
    return max(abs(float(ours[number]) - score) for number, score in theirs.items()), len(theirs)


@pytest.mark.parametrize(
    ("name", "path", "options"),
    [
        ("Thioesterase on 20 proteins of a bacterium", PROTEINS, {"most": 20, "longest": 200}),
        pytest.param("LuxC on 12 of its members", DATA / "seqs" / "LuxC.faa", {}, marks=pytest.mark.slow),
    ],
)
def test_scores_are_those_of_hmmer(certificate, name: str, path: Path, options: dict) -> None:
    profile = DATA / "hmms" / "txt" / f"{name.split(maxsplit=1)[0]}.hmm"
    difference, count = largest_difference(profile, sequences_of(path, **options))
    certificate(
        operator="ProfileHMM",
        reference=REFERENCE,
        data=name,
        quantity=f"Forward score, largest difference of {count}, bits",
        value=difference,
        bar="<= 0.01",
    )
    assert count >= 9
    assert difference <= 0.01


@pytest.mark.slow
@needs_debian
@pytest.mark.parametrize(
    ("profile", "sequences", "bar"),
    [("fn3", "7LESS_DROME", 0.01), ("Pkinase", "7LESS_DROME", 0.01), ("globins4", "globins45.fa", 0.01)],
)
def test_scores_of_several_domains_and_of_a_family_are_those_of_hmmer(profile, sequences, bar, certificate) -> None:
    """The receptor 7LESS has one kinase and nine fibronectin domains in 2,554 residues."""
    difference, count = largest_difference(EXAMPLES / f"{profile}.hmm", sequences_of(EXAMPLES / sequences))
    certificate(
        operator="ProfileHMM",
        reference=REFERENCE,
        data=f"{profile} on {sequences}",
        quantity=f"Forward score, largest difference of {count}, bits",
        value=difference,
        bar=f"<= {bar}",
    )
    assert difference <= bar


@pytest.mark.slow
@needs_debian
def test_scores_of_a_dna_profile_are_those_of_hmmer(certificate) -> None:
    chromosome = sequences_of(EXAMPLES / "dna_target.fa")[0]
    windows = [chromosome[start : start + 500] for start in range(302_000, 305_200, 400)]
    path = EXAMPLES / "MADE1.hmm"
    theirs = hmmer_scores(path, windows)
    ours = applied(ProfileHMM.from_profile(read_hmm(path)[0]), batch(windows, DNA))["profile_score"]
    difference = max(abs(float(ours[number]) - score) for number, score in theirs.items())
    certificate(
        operator="ProfileHMM",
        reference=REFERENCE,
        data="MADE1 on 8 windows of a human chromosome",
        quantity=f"Forward score, largest difference of {len(theirs)}, bits",
        value=difference,
        bar="<= 0.01",
    )
    assert max(theirs.values()) > 30
    assert difference <= 0.01


@pytest.mark.slow
def test_scores_of_ten_profiles_on_hundreds_of_proteins_are_those_of_hmmer(tmp_path, certificate) -> None:
    sequences = sequences_of(PROTEINS, longest=250)[:300]
    worst, total = 0.0, 0
    for number, profile in enumerate(read_hmm(DATA / "hmms" / "txt" / "RREFam.hmm")):
        path = tmp_path / f"{number}.hmm"
        write_hmm(path, [profile])
        difference, count = largest_difference(path, sequences)
        worst, total = max(worst, difference), total + count
    certificate(
        operator="ProfileHMM",
        reference=REFERENCE,
        data="ten RREFam profiles on 300 proteins of a bacterium",
        quantity=f"Forward score, largest difference of {total}, bits",
        value=worst,
        bar="<= 0.01",
    )
    assert total > 1000
    assert worst <= 0.01


@pytest.mark.parametrize(("local", "multihit"), [(True, True), (True, False), (False, True), (False, False)])
def test_forward_and_viterbi_are_those_of_a_plain_program(local: bool, multihit: bool, certificate) -> None:
    """HMMER shows neither glocal scores nor exact Viterbi scores: in float64, cell by cell, from the file."""
    profile = read_hmm(DATA / "hmms" / "txt" / "RREFam.hmm")[0]
    sequences = sequences_of(PROTEINS, most=6, shortest=60, longest=140)
    operator = ProfileHMM.from_profile(profile, local=local, multihit=multihit)
    data = batch(sequences)
    order = [profile.alphabet.index(letter) for letter in PROTEIN]
    odds = profile.match[:, order].astype(float) / background(PROTEIN)
    soft, hard = [], []
    for letters, length in zip(*map(np.asarray, data.values()), strict=True):
        given = (letters[:length] @ odds.T, profile.transitions)
        soft.append(plan7_score(*given, local=local, multihit=multihit))
        hard.append(plan7_score(*given, local=local, multihit=multihit, plus=np.maximum))
    differences = {"Forward": np.abs(applied(operator, data)["profile_score"] - np.array(soft)).max()}
    operator.softness.set(1e-3)
    differences["Viterbi, softness 0.001"] = np.abs(applied(operator, data)["profile_score"] - np.array(hard)).max()
    for name, value in differences.items():
        certificate(
            operator="ProfileHMM",
            reference="NumPy in float64",
            data="RREFam on 6 proteins of a bacterium",
            quantity=f"{name}, {'local' if local else 'glocal'}, {'multihit' if multihit else 'unihit'}, bits",
            value=float(value),
            bar="<= 0.01",
        )
        assert value <= 0.01


def test_posterior_is_that_of_hmmer(certificate) -> None:
    """HMMER's aligner decodes the local profile with one pass; its trace has the posterior of each residue's state."""
    path = DATA / "hmms" / "txt" / "PF02826.hmm"
    proteins = sequences_of(PROTEINS, longest=330)
    scores = hmmer_scores(path, proteins)
    sequences = [proteins[number] for number in sorted(scores, key=lambda number: -scores[number])[2:8]]
    with pyhmmer.plan7.HMMFile(path) as file:
        hmm = file.read()
    aligner, given = pyhmmer.plan7.TraceAligner(), digital(sequences)
    traces = aligner.compute_traces(hmm, given)
    rows = aligner.align_traces(hmm, given, traces, all_consensus_cols=True).alignment
    operator = ProfileHMM.from_profile(read_hmm(path)[0], multihit=False)
    found = applied(operator, batch(sequences))
    worst, count = 0.0, 0
    for number, (row, trace) in enumerate(zip(rows, traces, strict=True)):
        theirs = [p for p in trace.posterior_probabilities if p > 0]  # states that emit nothing have 0
        if len(theirs) != len(sequences[number]):
            continue  # a residue whose state has the posterior 0 in float32
        node, place = 0, 0
        for column in row:
            if column.isupper():
                ours = float(found["match_posterior"][number, place, node])
                worst, count = max(worst, abs(ours - theirs[place])), count + 1
            node += column.isupper() or column == "-"
            place += column.isalpha()
    certificate(
        operator="ProfileHMM",
        reference=REFERENCE,
        data="2-Hacid_dh_C on 6 proteins of a bacterium, members and strangers",
        quantity=f"posterior of {count} aligned residues, largest difference",
        value=worst,
        bar="<= 0.001",
    )
    assert count > 300
    assert worst <= 1e-3


@pytest.mark.slow
def test_softness_leads_from_forward_to_viterbi_and_its_path() -> None:
    """In between the score falls with the softness, down to the best path's; nothing compiles again."""
    profile = read_hmm(DATA / "hmms" / "txt" / "RREFam.hmm")[0]
    operator, data = ProfileHMM.from_profile(profile), batch(sequences_of(PROTEINS, most=1, longest=140), size=140)
    scores = []
    traced = []

    @jax.jit
    def at(state: nnx.State, softness: jax.Array) -> dict[str, jax.Array]:
        traced.append(softness)
        operator = nnx.merge(graph, state)
        operator.softness.set(softness)
        return operator.apply(data, {}, None)[0]

    graph, state = nnx.split(operator)
    found = {}
    for softness in (1.0, 0.3, 0.1, 1e-3):
        found = at(state, jnp.float32(softness))
        scores.append(float(found["profile_score"][0]))
    assert len(traced) == 1
    assert scores == sorted(scores, reverse=True)
    letters, length = (value[0] for value in data.values())
    weights = path_weights(operator.core(), letters, length, frequencies=operator.frequencies[...])
    path = jax.jit(best_profile_path)(weights, length)
    matched = np.asarray(path.state) == STATES.index("M")
    places, nodes = np.flatnonzero(matched), np.asarray(path.node)[matched] - 1
    assert len(places) > 3
    np.testing.assert_allclose(found["match_posterior"][0, places, nodes], 1, atol=1e-3)
    assert float(found["match_posterior"].sum()) == pytest.approx(len(places), abs=1e-2)


@pytest.mark.slow
def test_padding_and_empty_sequences_are_inert() -> None:
    operator = ProfileHMM(ProfileHMMConfig(n_nodes=4, alphabet=DNA, inserts="own"))
    operator.initialize(batch(["ACGT"], DNA)["sequences"])
    data = batch(["ACGT", "TTACGTT", "AC"], DNA, size=9)
    data["sequence_length"] = jnp.array([4, 7, 0])
    found = applied(operator, data)
    alone = applied(operator, batch(["ACGT", "G", "G"], DNA, size=9))
    np.testing.assert_allclose(found["profile_score"][0], alone["profile_score"][0], rtol=1e-6)
    assert float(found["profile_score"][2]) == 0
    both = found["match_posterior"] + found["insert_posterior"]
    assert float(jnp.abs(both[0, 4:]).max()) == 0
    assert float(jnp.abs(both[2]).max()) == 0
    assert float(both.sum(-1).max()) <= 1 + 1e-5
    graph, state = nnx.split(operator)

    @jax.jit
    @jax.grad
    def slopes(state):
        found = nnx.merge(graph, state).apply(data, {}, None)[0]
        return found["profile_score"].sum() + (found["match_posterior"] ** 2).sum()

    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(slopes(state)))


def trained(operator: ProfileHMM, data: dict[str, jax.Array], n_steps: int) -> list[float]:
    """Maximize the mean score by Adam, and return the scores."""
    optimizer = nnx.Optimizer(operator, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(operator: ProfileHMM, optimizer: nnx.Optimizer) -> jax.Array:
        def loss(operator: ProfileHMM) -> jax.Array:
            return -operator.apply(data, {}, None)[0]["profile_score"].mean()

        value, slopes = nnx.value_and_grad(loss)(operator)
        optimizer.update(operator, slopes)
        return -value

    return [float(step(operator, optimizer)) for _ in range(n_steps)]


def ranking(members: np.ndarray, others: np.ndarray) -> float:
    """Return the area under the ROC curve."""
    return float((members[:, None] > others).mean() + 0.5 * (members[:, None] == others).mean())


@pytest.mark.slow
def test_training_on_unaligned_sequences_finds_the_family(tmp_path, certificate) -> None:
    """A domain of LuxC without its gaps, of different lengths; one sequence is the start, five are held out."""
    with pyhmmer.easel.MSAFile(DATA / "msa" / "LuxC.sto") as file:
        rows = ["".join(row[170:260]) for row in file.read().alignment]
    members = [row.replace("-", "").replace(".", "").upper() for row in rows]
    members, held_out = [row for number, row in enumerate(members) if number % 3], members[::3]
    random = np.random.default_rng(0)
    shuffled = ["".join(random.permutation(list(sequence))) for sequence in held_out for _ in range(5)]
    others = [protein[:80] for protein in sequences_of(PROTEINS, most=20, shortest=80)]
    operator = ProfileHMM(ProfileHMMConfig(n_nodes=80, multihit=False))
    data = batch(members, size=90)
    operator.initialize(**data)
    tested = batch(held_out + shuffled + others, size=90)
    before = np.asarray(applied(operator, tested)["profile_score"])[: len(held_out)]
    scores = trained(operator, data, 30)
    found = np.asarray(applied(operator, tested)["profile_score"])
    after, decoys = found[: len(held_out)], found[len(held_out) :]
    print(
        f"{len(members)} members: {scores[0]:.1f} -> {scores[-1]:.1f} bits; held out {before.mean():.1f} -> "
        f"{after.mean():.1f}; shuffled and other proteins at most {decoys.max():.1f}"
    )
    certificate(
        operator="ProfileHMM",
        reference="labels",
        data="LuxC's domain unaligned, 5 members held out, 45 shuffled and other proteins",
        quantity="area under the ROC curve",
        value=ranking(after, decoys),
        bar=">= 0.99",
    )
    assert scores[-1] > scores[0] + 30
    assert after.mean() > before.mean() + 10
    assert ranking(after, decoys) >= 0.99
    statistics = {"MSV": (-9.0, 0.7), "VITERBI": (-9.0, 0.7), "FORWARD": (-4.0, 0.7)}  # any: only scores are compared
    profile = dataclasses.replace(operator.to_profile("learned"), statistics=statistics)
    write_hmm(tmp_path / "learned.hmm", [profile])
    theirs = hmmer_scores(tmp_path / "learned.hmm", held_out)
    again = ProfileHMM.from_profile(read_hmm(tmp_path / "learned.hmm")[0], multihit=True)
    ours = applied(again, tested)["profile_score"]
    for number, score in theirs.items():
        assert float(ours[number]) == pytest.approx(score, abs=0.01)
    assert len(theirs) == 5


@pytest.mark.slow
@needs_debian
def test_training_on_unaligned_globins_comes_near_hmmbuild(certificate) -> None:
    """30 globins for training and 15 held out; globins4.hmm, from an alignment of four, is what to come near."""
    sequences = sequences_of(EXAMPLES / "globins45.fa")
    random = np.random.default_rng(0)
    random.shuffle(sequences)
    held_out = sequences[:15]
    shuffled = ["".join(random.permutation(list(sequence))) for sequence in held_out for _ in range(4)]
    operator = ProfileHMM(ProfileHMMConfig(n_nodes=148, multihit=False))
    operator.initialize(**batch(sequences[15:]))
    trained(operator, batch(sequences[15:]), 40)
    after, decoys = (np.asarray(applied(operator, batch(given))["profile_score"]) for given in (held_out, shuffled))
    built = ProfileHMM.from_profile(read_hmm(EXAMPLES / "globins4.hmm")[0])
    theirs = np.asarray(applied(built, batch(held_out))["profile_score"])
    print(f"held out {after.mean():.0f} bits, by globins4.hmm {theirs.mean():.0f}; shuffled at most {decoys.max():.1f}")
    certificate(
        operator="ProfileHMM",
        reference="labels",
        data="globins45 unaligned, 15 held out, 60 shuffled",
        quantity="area under the ROC curve",
        value=ranking(after, decoys),
        bar=">= 0.99",
    )
    assert ranking(after, decoys) >= 0.99
    assert after.mean() > theirs.mean()


@pytest.mark.slow
def test_speed_beside_hmmer(certificate) -> None:
    path, sequences = DATA / "hmms" / "txt" / "Thioesterase.hmm", sequences_of(PROTEINS, most=100, longest=250)
    operator, data = ProfileHMM.from_profile(read_hmm(path)[0]), batch(sequences)
    graph, state = nnx.split(operator)

    def score(state) -> jax.Array:
        return nnx.merge(graph, state).apply(data, {}, None)[0]["profile_score"].sum()

    cells = int(data["sequence_length"].sum()) * operator.config.n_nodes
    rates = {}
    for name, function in (("score", jax.jit(score)), ("score and gradient", jax.jit(jax.value_and_grad(score)))):
        jax.block_until_ready(function(state))
        start = time.process_time()
        jax.block_until_ready(function(state))
        rates[name] = cells / (time.process_time() - start) / 1e6
    start = time.process_time()
    hmmer_scores(path, sequences)
    rates["pyhmmer, forward and what follows"] = cells / (time.process_time() - start) / 1e6
    print({name: f"{rate:.1f} M cells per CPU-s" for name, rate in rates.items()})
    certificate(
        operator="ProfileHMM",
        reference="its own bar",
        data="Thioesterase on 100 proteins",
        quantity="score and gradient, M cells per CPU-s",
        value=rates["score and gradient"],
        bar=">= 2",
    )
    assert rates["score and gradient"] >= 2


def test_a_dna_profile_and_wrong_letters() -> None:
    profile = read_hmm(DATA / "hmms" / "txt" / "RF00001.hmm")[0]
    assert ProfileHMM.from_profile(profile).config.alphabet == "ACGU"
    with pytest.raises(ConfigError, match="the letters of profile 5S_rRNA are 'ACGU'"):
        ProfileHMM.from_profile(profile, alphabet=DNA)
    with pytest.raises(ContractError, match="distributions over 20 letters, and the profile's alphabet is 'ACGU'"):
        ProfileHMM.from_profile(profile).apply({"sequences": np.zeros((1, 5, 20), np.float32)}, {}, None)
    with pytest.raises(ConfigError, match="n_nodes"):
        ProfileHMMConfig(n_nodes=1)
