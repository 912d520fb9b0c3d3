"""`python -m diffbio.cli` is `diffbio`."""

from diffbio.cli import main

main()
