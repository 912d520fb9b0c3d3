"""Every operator of the first-party packages, held to every law of `diffbio.testing`."""

from diffbio.testing import operator_laws

test_laws = operator_laws("diffbio-singlecell")
