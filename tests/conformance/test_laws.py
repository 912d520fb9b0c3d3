"""Every operator of the first-party packages, held to every law of `diffbio.testing`."""

from diffbio.testing import operator_laws

test_singlecell = operator_laws("diffbio-singlecell")
test_alignment = operator_laws("diffbio-alignment")
test_variant = operator_laws("diffbio-variant")
