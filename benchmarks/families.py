"""Protein families: multiple alignments beside MAFFT, MUSCLE, ClustalW and Kalign, and a profile HMM beside HMMER.

The alignments to be found are curated seeds that come with HMMER. Of each tool all CPU time counts, with its children:
of the others their start, and of diffbio compilation, without anything that was compiled in an earlier process.

HMMER is run by its pipeline: filters drop most sequences, and the others get Forward and Backward, then domains and
their alignments. With open filters all sequences get Forward, which is what diffbio computes; its gradient is by the
whole profile.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from benchmarks.measure import RESULTS, Figure, cpu_seconds, interleaved, publish
from diffbio.io.sequence.alignments import Alignment, read_alignment
from diffbio.io.sequence.alphabets import DNA, PROTEIN, encode
from diffbio.io.sequence.hmmer_files import read_hmm
from diffbio.operators.alignment.plan7 import Plan7
from diffbio.operators.alignment.profile_hmm import ProfileAlignment, ProfileHMM, profile_alignment
from diffbio.pipelines.alignment.multiple import align_sequences
from diffbio.pipelines.alignment.reference_pairs import sum_of_pairs_score

pyhmmer: Any = importlib.import_module("pyhmmer")

SEEDS = Path("/usr/share/doc/hmmer/examples")
FAMILIES = {
    "globins4": "tutorial/globins4.sto",
    "Caudal_act": "testsuite/Caudal_act.sto.gz",
    "LuxC": "testsuite/LuxC.sto.gz",
    "RRM_1": "testsuite/RRM_1.sto.gz",
    "Pkinase": "tutorial/Pkinase.sto",
    "Patched": "testsuite/Patched.sto.gz",
    "MADE1": "tutorial/MADE1.sto",  # of DNA
    "SMC_N": "testsuite/SMC_N.sto.gz",  # some sequences are fragments
}
_LARGE = ("Pkinase", "SMC_N")
_BARS = ("RRM_1", "Caudal_act", "Patched", "MADE1", "SMC_N")  # untaught; ClustalW may miss no fewer pairs of them
TOOLS = {
    "mafft": "mafft --auto --quiet {given} > {found}",
    "muscle": "muscle -align {given} -output {found} -threads 1",
    "clustalw": "clustalw -INFILE={given} -OUTPUT=FASTA -OUTFILE={found}",
    "kalign": "kalign -i {given} -o {found} -f fasta",
}

_HMMER = Path(pyhmmer.__file__).parent / "tests" / "data"
_PROFILE, _PROTEINS = _HMMER / "hmms" / "txt" / "LuxC.hmm", _HMMER / "seqs" / "938293.PRJEB85.HG003687.faa"
_SHORTEST, _LONGEST, _N_PROTEINS = 193, 256, 64
_REPEATS = 5
_OPEN: dict[str, Any] = {"bias_filter": False, "null2": False, "F1": 1.0, "F2": 1.0, "F3": 1.0, "T": -1e6, "domT": -1e6}


def main() -> None:
    """Align each family by each tool, and score proteins by a profile; publish, and draw."""
    jax.config.update("jax_enable_compilation_cache", False)
    scored, profile = _profile()
    aligned, families = _families()
    versions = {name: importlib.metadata.version(name) for name in ("diffbio-alignment", "pyhmmer")}
    publish("families", [*aligned, *scored], {"families": families, "profile": profile, "versions": versions})
    if families:
        _draw(families)


def _families() -> tuple[list[Figure], dict[str, Any]]:
    """Return how much of each curated alignment each tool finds, and at which cost."""
    if not SEEDS.is_dir():
        print(f"multiple alignments are left out: there is no {SEEDS}, which the Debian package hmmer-examples brings")
        return [], {}
    tools: dict[str, Callable[[list[str]], list[str]]] = {"diffbio": _aligned}
    for tool, command in TOOLS.items():
        if shutil.which(tool):
            tools[tool] = lambda sequences, command=command: _by(command, sequences)
        else:
            print(f"{tool} is left out: it is not on the path")
    align_sequences(["HEAGAWGHEE", "HEAWGHEE"])  # what a process pays once
    found: dict[str, Any] = {}
    for name, path in FAMILIES.items():
        reference = read_alignment(SEEDS / path)
        lengths = list(map(len, reference.sequences))
        by_tool = {tool: _found_by(align, reference) for tool, align in tools.items()}
        found[name] = {"sequences": len(lengths), "residues": sum(lengths), "longest": max(lengths), "tools": by_tool}
        listing = ", ".join(f"{tool} {row['found']:.3f} in {row['cpu_seconds']:.1f} s" for tool, row in by_tool.items())
        print(f"{name}, {len(lengths)} sequences of up to {max(lengths)}: {listing}", flush=True)
    return _family_figures(found), found


def _family_figures(found: dict[str, Any]) -> list[Figure]:
    """Return the shares that are found, then the missed ones over those of others."""
    figures = []
    for name, family in found.items():
        others = ", ".join(f"{tool} {row['found']:.3f}" for tool, row in family["tools"].items() if tool != "diffbio")
        size = f"{family['sequences']} sequences of up to {family['longest']}"
        what = f"curated pairs of residues found in {name}, {size} ({others})"
        figures.append(Figure(what, family["tools"]["diffbio"]["found"], ""))
    for other, limit in (("clustalw", 1.0), ("mafft", None)):
        for name in (name for name in _BARS if other in found[name]["tools"]):
            ours, theirs = (1 - found[name]["tools"][tool]["found"] for tool in ("diffbio", other))
            figures.append(
                Figure(f"curated pairs of residues missed in {name}, over {other}", ours / theirs, "x", limit)
            )
    for name in _LARGE:
        tools = found[name]["tools"]
        for other in (tool for tool in tools if tool != "diffbio"):
            ratio = tools["diffbio"]["cpu_seconds"] / tools[other]["cpu_seconds"]
            figures.append(Figure(f"multiple alignment of {name}, over {other}", ratio, "x"))
    return figures


def _found_by(align: Callable[[list[str]], list[str]], reference: Alignment) -> dict[str, float]:
    """Return the sum-of-pairs score of an aligner, and its CPU seconds with those of its children."""

    def used() -> float:
        usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    before = used()
    rows = align(reference.sequences)
    return {"cpu_seconds": used() - before, "found": sum_of_pairs_score(reference, rows)}


def _aligned(sequences: list[str]) -> list[str]:
    """Return the rows of diffbio's alignment, with its defaults for proteins."""
    options = {"alphabet": DNA, "matrix": "NUC.4.4"} if set("".join(sequences)) <= set(DNA) else {}
    return align_sequences(sequences, **options)[0]


def _by(command: str, sequences: list[str]) -> list[str]:
    """Return the rows of an alignment by a command of the shell."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.fasta", Path(folder) / "found.fasta"
        given.write_text("".join(f">{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
        subprocess.run(command.format(given=given, found=found), shell=True, check=True, capture_output=True)
        aligned = read_alignment(found)
    rows = dict(zip(aligned.names, aligned.rows, strict=True))
    return [rows[str(number)] for number in range(len(sequences))]


def _profile() -> tuple[list[Figure], dict[str, Any]]:
    """Return what scoring proteins by a profile HMM costs per residue and node, beside HMMER."""
    with pyhmmer.easel.SequenceFile(_PROTEINS) as file:
        proteins = [sequence.sequence.rstrip("*").upper() for sequence in file]
    proteins = [protein for protein in proteins if _SHORTEST <= len(protein) <= _LONGEST][:_N_PROTEINS]
    operator = ProfileHMM.from_profile(read_hmm(_PROFILE)[0])
    encoded = encode(proteins, PROTEIN, size=_LONGEST)
    letters, lengths = jnp.asarray(encoded.letters), jnp.asarray(encoded.lengths)

    def aligned(core: Plan7) -> ProfileAlignment:
        options = {"frequencies": operator.frequencies[...], "softness": 1.0}
        return jax.vmap(lambda protein, length: profile_alignment(core, protein, length, **options))(letters, lengths)

    core = operator.core()
    score = jax.jit(lambda core: aligned(core).profile_score)
    gradient = jax.jit(jax.value_and_grad(lambda core: aligned(core).profile_score.sum()))
    with pyhmmer.plan7.HMMFile(_PROFILE) as file:
        model = file.read()
    texts = [pyhmmer.easel.TextSequence(name=str(n), sequence=protein) for n, protein in enumerate(proteins)]
    block = pyhmmer.easel.DigitalSequenceBlock(model.alphabet, [text.digitize(model.alphabet) for text in texts])

    def hmmer(**options: Any) -> Any:
        return pyhmmer.plan7.Pipeline(model.alphabet, **options).search_hmm(model, block)

    calls: dict[str, Callable[[], Any]] = {
        "diffbio, score": lambda: jax.block_until_ready(score(core)),
        "diffbio, score and gradient": lambda: jax.block_until_ready(gradient(core)),
        "HMMER's pipeline": hmmer,
        "HMMER's pipeline, open filters": lambda: hmmer(**_OPEN),
    }
    for call in calls.values():
        call()
    seconds = interleaved([lambda call=call: cpu_seconds(call) for call in calls.values()], _REPEATS)
    cells = int(lengths.sum()) * operator.config.n_nodes
    per_cell = {name: 1e9 * second / cells for name, second in zip(calls, seconds, strict=True)}
    theirs = {int(hit.name): hit.pre_score for hit in hmmer(**_OPEN)}
    ours = score(core)
    difference = max(abs(float(ours[number]) - found) for number, found in theirs.items())
    details = {
        "proteins": len(proteins), "nodes": operator.config.n_nodes, "cells": cells, "ns_per_cell": per_cell,
        "largest difference in bits": difference, "proteins scored by HMMER": len(theirs),
    }  # fmt: skip
    what = f"profile HMM of {operator.config.n_nodes} nodes, {len(proteins)} proteins"
    figures = [Figure(f"{what}: {name}", value, "ns per cell") for name, value in per_cell.items()]
    ratio = per_cell["diffbio, score and gradient"] / per_cell["HMMER's pipeline, open filters"]
    return [*figures, Figure(f"{what}: score and gradient, over HMMER's pipeline, open filters", ratio, "x")], details


def _draw(found: dict[str, Any]) -> None:
    """Draw the share of curated pairs found, and CPU seconds, by family and tool."""
    figure, (share, cost) = plt.subplots(1, 2, figsize=(11.0, 4.0), layout="constrained")
    styles = {"diffbio": ("o", "#1f77b4"), "mafft": ("s", "#d62728"), "muscle": ("^", "#2ca02c")}
    styles |= {"clustalw": ("D", "#777777"), "kalign": ("v", "#d9a300")}
    for tool, (marker, color) in styles.items():
        families = [name for name, family in found.items() if tool in family["tools"]]
        rows = [found[name]["tools"][tool] for name in families]
        options = {"color": color, "linestyle": "none", "markersize": 6, "label": tool}
        share.plot(families, [row["found"] for row in rows], marker, **options)
        cost.semilogy(families, [row["cpu_seconds"] for row in rows], marker, **options)
    share.set_ylabel("share of curated pairs of residues found")
    cost.set_ylabel("CPU seconds, one core, all included")
    for ax in (share, cost):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    labels = [f"{name}\n{family['sequences']} x {family['longest']}" for name, family in found.items()]
    for ax in (share, cost):
        ax.set_xticks(range(len(labels)), labels)
    figure.legend(*share.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.savefig(RESULTS / "families.png", dpi=130)


if __name__ == "__main__":
    main()
