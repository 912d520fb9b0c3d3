"""Alignment to a profile, from a file of HMMER or learned from the sequences themselves."""

import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from diffbio.io.sequence import read_alignment, read_hmm
from diffbio.operators.alignment import ProfileHMM
from diffbio.pipelines.alignment.profile import align_to_profile, learn_profile
from diffbio.pipelines.alignment.reference_pairs import sum_of_pairs_score

FAMILIES = Path("/usr/share/doc/hmmer/examples")
"""Of Debian's package hmmer-examples: curated seeds of Pfam, and the profiles that HMMER builds of them."""


@pytest.mark.slow
def test_a_learned_profile_aligns_relatives() -> None:
    whole = "HEAGAWGHEEWLPKDRTV"
    relatives = [whole, whole[:5] + whole[7:], whole[2:], whole[:12] + "GG" + whole[12:], whole[:-3]]
    profile = learn_profile(relatives, key=jax.random.key(0), steps=20, progress=False)
    rows = align_to_profile(profile, relatives)
    assert [row.replace("-", "") for row in rows] == relatives
    assert len({len(row) for row in rows}) == 1
    for letter in "LPKD":  # of what no relative lacks
        assert len({row.index(letter) for row in rows}) == 1


@pytest.mark.slow
@pytest.mark.skipif(
    not FAMILIES.exists() or not shutil.which("hmmalign"), reason="needs Debian's hmmer, hmmer-examples"
)
@pytest.mark.parametrize("family", ["RRM_1", "Caudal_act"])
def test_real_profiles_align_as_well_as_hmmaligns(certificate, tmp_path: Path, family: str) -> None:
    file = tmp_path / f"{family}.hmm"
    subprocess.run(f"zcat {FAMILIES}/testsuite/{family}.hmm.gz > {file}", shell=True, check=True)
    reference = read_alignment(FAMILIES / "testsuite" / f"{family}.sto.gz")
    given, found = tmp_path / "given.fasta", tmp_path / "found.afa"
    given.write_text("".join(f">{n}\n{sequence}\n" for n, sequence in enumerate(reference.sequences)))
    subprocess.run(["hmmalign", "--outformat", "afa", "-o", found, file, given], check=True)
    theirs = sum_of_pairs_score(reference, read_alignment(found).rows)
    profile = ProfileHMM.from_profile(read_hmm(file)[0], multihit=False)
    ours = sum_of_pairs_score(reference, align_to_profile(profile, reference.sequences))
    certificate(
        operator="ProfileHMM",
        reference="hmmalign 3.3.2",
        data=f"{family} of Pfam, to HMMER's profile of it",
        quantity="sum of pairs, less the tool's",
        value=ours - theirs,
        bar=">= -0.01",
    )
    assert ours - theirs >= -0.01
