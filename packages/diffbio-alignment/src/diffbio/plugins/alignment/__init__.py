"""What diffbio-alignment brings to the registry: declarations only, so that listing them imports no JAX."""

from diffbio.core.hookspecs import Declaration, Plugin, hookimpl
from diffbio.plugins.alignment import pairwise, profiles, reads, warping
from diffbio.plugins.alignment.exports import EXPORTERS
from diffbio.plugins.alignment.losses import LOSSES

_FAMILIES = (pairwise, profiles, warping, reads)


@hookimpl
def diffbio_plugin() -> Plugin:
    """Return the operators of alignment and of preprocessing, losses, exporters and commands."""
    return Plugin(
        api=1,
        operators=tuple(operator for family in _FAMILIES for operator in family.OPERATORS),
        losses=LOSSES,
        exporters=EXPORTERS,
        commands=(
            Declaration(
                name="align",
                target="diffbio.pipelines.alignment.commands:align",
                summary="Align the sequences of a FASTA file.",
            ),
            Declaration(
                name="learn-scores",
                target="diffbio.pipelines.alignment.commands:learn_scores_command",
                summary="Learn a substitution matrix and gap costs from reference alignments.",
            ),
        ),
    )
