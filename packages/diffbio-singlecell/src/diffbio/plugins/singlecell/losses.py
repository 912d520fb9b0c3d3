"""Declarations: losses."""

from diffbio.core.hookspecs import Declaration

_SUMMARIES = {
    "cell_type_cross_entropy": "Cross-entropy of cell-type logits on labelled cells.",
    "cluster_compactness": "Soft within-cluster sum of squares per cell.",
    "cluster_silhouette": "1 less the soft silhouette of clusters.",
    "cell_type_silhouette": "How far labelled cell types are from separate, by silhouette (scib).",
    "batch_silhouette": "How far batches are from mixed within cell types, by silhouette (scib).",
    "batch_lisi": "How far batches are from mixed, by the inverse Simpson index.",
    "cell_type_lisi": "How far cell types mix, by the inverse Simpson index.",
    "batch_kbet": "Share of neighbourhoods that reject the batches' overall composition (kBET).",
    "modularity_loss": "Less the modularity of soft communities on the neighbour graph.",
    "negative_elbo": "Negative evidence lower bound of variational autoencoders, per cell.",
    "semi_supervised_elbo": "The same with cell types, and the cross-entropy of those that are known (scANVI).",
    "masked_values": "Negative log-likelihood of counts that the network was not shown.",
    "doublet_cross_entropy": "Cross-entropy of simulated doublets against observed cells.",
    "mmd_batch_correction": "Reconstruction, and the discrepancy of batches in the latent space.",
    "adversarial_batch_correction": "Reconstruction, and the recognition of batches behind a reversed gradient.",
    "umap_cross_entropy": "Cross-entropy between the fuzzy graph and a map (UMAP).",
    "tsne_divergence": "Divergence between the affinities and a map (t-SNE).",
    "pseudotime_disorder": "1 less the correlation of pseudotime with known time points.",
}

LOSSES = tuple(
    Declaration(name=name, target=f"diffbio.losses.singlecell:{name}", summary=summary)
    for name, summary in _SUMMARIES.items()
)
