"""What is trained: a classifier beside logistic regression, a variational autoencoder beside scVI."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from anndata import AnnData
from flax import nnx
from jaxtyping import Array
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from diffbio.core import Pipeline
from diffbio.losses.singlecell import cell_type_cross_entropy, negative_elbo
from diffbio.operators.normalization import VAENormalizer, VAENormalizerConfig
from diffbio.operators.singlecell import CellTypeClassifier, CellTypeClassifierConfig
from diffbio.pipelines.singlecell.atlas.cells import Atlas
from diffbio.pipelines.singlecell.atlas.rows import Bar, Comparison, largest, quality, versus
from diffbio.training import ArrayDataset, fit, split, transform

_HELD_OUT = 0.2
_PENALTY = 0.01  # per cell, on half the squared weights
_STEPS = 300
_LATENT, _HIDDEN, _ROWS, _DRAWS = 10, 128, 64, 5
_MOST_MODELLED = 1500
_MOST_EPOCHS, _LEAST_EPOCHS, _CELLS_SEEN = 200, 20, 100_000


def annotation(cells: Atlas) -> Iterator[Comparison]:
    """Compare the types of held-out cells, by the same penalized logistic regression, with scikit-learn's."""
    assert cells.labels is not None
    held = split(len(cells), fraction=_HELD_OUT, key=cells.key, stratify=cells.labels)
    components = PCA(min(cells.n_components, len(held.train)), svd_solver="full").fit(cells.scaled[held.train])
    x = components.transform(cells.scaled)
    x = (x / x[held.train].std(0)[0]).astype(np.float32)
    data = {"embeddings": x[held.train], "labels": cells.labels[held.train]}
    ours, theirs, timing = versus(
        lambda: _trained_classifier(data),
        lambda: LogisticRegression(C=1 / (_PENALTY * len(held.train)), tol=1e-8, max_iter=10_000).fit(*data.values()),
    )
    found = np.asarray(ours.compute(jnp.asarray(x[held.validation])).cell_type_probabilities)
    expected = theirs.predict_proba(x[held.validation])
    quantity = "probability of a type, largest difference"
    yield Comparison(quantity, largest(found - expected), Bar("<=", 2e-3), timing=timing)
    truth = cells.labels[held.validation]
    mine, other = (f1_score(truth, each.argmax(1), average="macro") for each in (found, expected))
    yield quality(f"macro-F1 of {len(truth)} held-out cells", mine, other, Bar(">=", -0.01), timing)


def _trained_classifier(data: dict[str, np.ndarray]) -> CellTypeClassifier:
    """Return the minimum of cross-entropy and penalty, by L-BFGS."""
    sizes = {"n_features": data["embeddings"].shape[1], "n_classes": int(data["labels"].max()) + 1}
    classifier = CellTypeClassifier(CellTypeClassifierConfig(**sizes))
    graph, params, rest = nnx.split(classifier, nnx.Param, ...)
    optimizer = optax.lbfgs()

    def loss(params: Any) -> Array:
        model = nnx.merge(graph, params, rest)
        penalty = sum(jnp.square(kernel[...]).sum() for kernel in model.kernels)
        return cell_type_cross_entropy(model.apply(data, {}, None)[0]) + _PENALTY / 2 * penalty

    @jax.jit
    def descended(params: Any) -> Any:
        def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
            params, state = carry
            value, gradient = optax.value_and_grad_from_state(loss)(params, state=state)
            updates, state = optimizer.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=_STEPS)[0][0]

    nnx.update(classifier, descended(params))
    return classifier


def vae(cells: Atlas) -> Iterator[Comparison]:
    """Compare the likelihood of held-out counts with that of scVI, of the same size and training."""
    assert cells.counts is not None
    genes = cells.variable_genes
    scores = cells.normalized[:, genes].var(0)
    counts = cells.counts[:, np.sort(genes[np.argsort(-scores, kind="stable")[:_MOST_MODELLED]])]
    held = split(len(cells), fraction=_HELD_OUT, key=cells.key, stratify=cells.labels)
    train, test = counts[held.train], counts[held.validation]
    epochs = int(np.clip(_CELLS_SEEN // len(train), _LEAST_EPOCHS, _MOST_EPOCHS))
    ours, theirs, timing = versus(
        lambda: _trained_vae(train, epochs, cells.key), lambda: _scvi(train, epochs, cells.seed), warm_up=False
    )
    drawn = [
        transform(ours, ArrayDataset({"counts": test}), key=key)["reconstruction_log_likelihood"].mean()
        for key in jax.random.split(cells.key, _DRAWS)
    ]
    table = AnnData(test)
    expected = [-float(theirs.get_reconstruction_error(table)["reconstruction_loss"]) for _ in range(_DRAWS)]
    found, reference = float(np.mean(drawn)), float(np.mean(expected))
    quantity = f"log-likelihood of {len(test)} held-out cells, {epochs} epochs, ratio; less is better"
    yield Comparison(quantity, found / reference, Bar("<=", 1.01), found, reference, timing)


def _trained_vae(counts: np.ndarray, epochs: int, key: Array) -> Pipeline:
    config = VAENormalizerConfig(n_genes=counts.shape[1], n_latent=_LATENT, hidden_sizes=(_HIDDEN,), likelihood="nb")
    start, training = jax.random.split(key)
    normalizer = VAENormalizer(config, rngs=nnx.Rngs(start))
    normalizer.initialize(jnp.asarray(counts))
    warm_up = max(epochs // 2 * (len(counts) // _ROWS), 1)
    return fit(
        Pipeline(normalizer, names=("vae",)),
        ArrayDataset({"counts": counts}),
        negative_elbo,
        optimizer=optax.adamw(1e-3, weight_decay=3.0, mask=_kernels),
        epochs=epochs,
        batch_size=_ROWS,
        key=training,
        anneal={"vae": lambda step: jnp.minimum(1.0, (step + 1) / warm_up)},
        progress=False,
    ).pipeline


def _kernels(weights: Any) -> Any:
    """Return which weights may decay: the matrices, and not what the genes are."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in jax.tree_util.keystr(path), weights)


def _scvi(counts: np.ndarray, epochs: int, seed: int) -> Any:
    scvi: Any = import_module("scvi")
    table = AnnData(counts)
    logging.disable(logging.INFO)  # else it tells of each step, and gives advice
    try:
        scvi.settings.seed = seed
        scvi.model.SCVI.setup_anndata(table)
        model = scvi.model.SCVI(table, n_latent=_LATENT, n_hidden=_HIDDEN, n_layers=1, gene_likelihood="nb")
        model.train(
            max_epochs=epochs,
            train_size=1.0,
            batch_size=_ROWS,
            accelerator="cpu",
            plan_kwargs={"n_epochs_kl_warmup": epochs // 2},
            enable_progress_bar=False,
            logger=None,
        )
    finally:
        logging.disable(logging.NOTSET)
    return model
