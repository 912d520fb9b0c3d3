"""Benchmarks of diffbio: cost beside the tool that a user would pick instead, in one run, as ratios.

`python -m benchmarks` runs all of them from the root of the repository, `python -m benchmarks apply fit` some. Each
writes `results/<name>.json`, and the table in README.md is made from these files.
"""

BENCHMARKS = {
    "imports": "CPU seconds that importing and listing take, in fresh processes",
    "apply": "what the checked contract adds to an operator, eager and compiled",
    "fit": "compilations, cost of a step beside a hand-written loop, exactness of resuming",
    "scale": "100,000 cells x 2,000 genes, from memory and from disk, beside scanpy and scikit-learn",
    "soft_ops": "CPU time and memory of soft_ops beside SoftJAX, value and gradient, over sizes",
    "singlecell": "CPU time of the single-cell algorithms beside scikit-learn, SciPy and scanpy, over sizes",
    "alignment": "CPU time and memory of pairwise alignment beside parasail, and of trimming beside cutadapt",
    "families": "multiple alignment beside MAFFT, MUSCLE, ClustalW and Kalign, profile HMMs beside HMMER",
    "pileup": "CPU time of aligned reads as arrays beside pysam alone, and of the pileup beside reads x reference",
    "variants": "variants called from simulated reads beside bcftools and freebayes, trained jointly and frozen",
}
