"""Annotation by markers: accuracy on counts drawn from real cell types, beside CellAssign, and at the edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.test_util import check_grads
from scipy.stats import nbinom

from diffbio.core.errors import DataError
from diffbio.io.singlecell import pbmc68k_reduced
from diffbio.operators.singlecell.marker_annotation import MarkerAnnotation, MarkerAnnotationConfig
from diffbio.operators.singlecell.marker_model import MarkerModel, marker_log_joint
from diffbio.operators.singlecell.marker_ranking import rank_markers


@functools.cache
def real_types():
    """Return the profiles of the ten types of PBMC 68k (classes, genes), their shares, and a ranking of markers.

    Markers are ranked on one half of the cells; profiles come from the other.
    """
    adata = pbmc68k_reduced()
    expression, types = adata.to_df().to_numpy(), adata.obs["bulk_labels"].cat.codes.to_numpy()
    half = np.random.default_rng(0).random(700) < 0.5
    found = rank_markers(jnp.asarray(expression[half]), jax.nn.one_hot(types[half], 10), softness=1e-3)
    score = np.where(np.asarray(found.marker_log2_fold_changes) > 1, np.asarray(found.marker_auroc), 0)
    profiles = np.stack([np.expm1(expression[~half & (types == k)]).mean(0) + 1e-3 for k in range(10)])
    return profiles / profiles.sum(1, keepdims=True), np.bincount(types) / 700, score


def markers_of(n_markers):
    """Return the table of the best markers of each type, and the genes that are in it."""
    score = real_types()[2]
    table = np.zeros(score.shape, np.float32)
    np.put_along_axis(table, (-score).argsort(1)[:, :n_markers], 1, axis=1)
    genes = table.any(0)
    return table[:, genes], genes


def drawn(n_cells, depth, seed):
    """Return negative binomial counts of the ten types, and their types."""
    profiles, shares, _ = real_types()
    random = np.random.default_rng(seed)
    types = random.choice(10, n_cells, p=shares)
    means = depth * random.lognormal(0, 0.4, (n_cells, 1)) * profiles[types]
    return random.poisson(random.gamma(5.0, means / 5)).astype(np.float32), types


def annotated(counts, sizes, table, **options):
    annotation = MarkerAnnotation(MarkerAnnotationConfig(n_genes=table.shape[1], n_classes=len(table), **options))
    annotation.initialize(jnp.asarray(counts), jnp.asarray(table), jnp.asarray(sizes))
    return annotation


def types_of(annotation, counts, sizes):
    data = annotation.apply({"counts": counts, "size_factors": sizes}, {}, None)[0]
    return np.asarray(data["cell_type_probabilities"]).argmax(1)


@pytest.mark.slow
@pytest.mark.parametrize(("n_markers", "bar"), [(10, 0.92), (20, 0.93)])
def test_types_are_found_and_stay_when_depth_falls_to_a_fifth(n_markers, bar, certificate):
    table, genes = markers_of(n_markers)
    accuracies = []
    for seed in range(2):
        counts, types = drawn(1000, 1000, seed)
        shallow, shallow_types = drawn(1000, 200, seed + 100)
        annotation = annotated(counts[:, genes], counts.sum(1), table)
        accuracies.append(
            (
                (types_of(annotation, counts[:, genes], counts.sum(1)) == types).mean(),
                (types_of(annotation, shallow[:, genes], shallow.sum(1)) == shallow_types).mean(),
            )
        )
    full, fifth = np.mean(accuracies, axis=0)
    for quantity, value, limit in (
        (f"accuracy, {n_markers} markers a type", full, f">= {bar}"),
        (f"loss of accuracy at a fifth of the depth, {n_markers} markers a type", full - fifth, "<= 0.05"),
    ):
        certificate(
            operator="MarkerAnnotation",
            reference="true types",
            data="counts drawn from ten types of PBMC 68k, markers from the other half of the cells",
            quantity=quantity,
            value=value,
            bar=limit,
        )
    assert full >= bar
    assert full - fifth <= 0.05


@pytest.mark.slow
def test_accuracy_is_not_below_that_of_cellassign(certificate):
    scvi, anndata, pandas = (pytest.importorskip(name) for name in ("scvi", "anndata", "pandas"))
    table, genes = markers_of(10)
    counts, types = drawn(500, 1000, 0)
    ours = (
        types_of(annotated(counts[:, genes], counts.sum(1), table), counts[:, genes], counts.sum(1)) == types
    ).mean()
    scvi.settings.seed = 0
    cells = anndata.AnnData(counts[:, genes])
    cells.obs["size"] = counts.sum(1) / counts.sum(1).mean()
    scvi.external.CellAssign.setup_anndata(cells, size_factor_key="size")
    names = [str(k) for k in range(10)]
    reference = scvi.external.CellAssign(cells, pandas.DataFrame(table.T.astype(int), cells.var_names, names))
    reference.train(max_epochs=400, accelerator="cpu", enable_progress_bar=False)
    theirs = (reference.predict().to_numpy().argmax(1) == types).mean()
    print(f"accuracy: ours {ours:.3f}, CellAssign {theirs:.3f}")
    certificate(
        operator="MarkerAnnotation",
        reference="scvi-tools CellAssign",
        data="500 cells drawn from ten types of PBMC 68k, 10 markers a type",
        quantity="accuracy less CellAssign's",
        value=ours - theirs,
        bar=">= -0.01",
    )
    assert ours >= theirs - 0.01


def test_joint_probability_is_scipys():
    random = np.random.default_rng(0)
    table = (random.random((3, 6)) < 0.4).astype(np.float32)
    model = MarkerModel(*(jnp.asarray(random.normal(size=shape), jnp.float32) for shape in (3, 6, (3, 6), 6, (2, 6))))
    counts, sizes = random.poisson(3.0, (5, 6)).astype(np.float32), random.uniform(0.5, 2, 5).astype(np.float32)
    batches = np.array([0, 1, -1, 0, 1], np.int32)
    found = marker_log_joint(
        jnp.asarray(counts),
        jnp.asarray(sizes),
        jnp.asarray(table),
        model,
        jnp.asarray(batches),
        least_overexpression=0.5,
    )
    logits, baseline, excess, dispersion, effects = (np.asarray(leaf, float) for leaf in model)
    effects = np.vstack([effects - effects.mean(0), np.zeros(6)])[batches][:, None]
    mean = sizes[:, None, None] * np.exp(baseline + effects + table * (0.5 + np.log1p(np.exp(excess))))
    theta = np.exp(dispersion)
    expected = nbinom.logpmf(counts[:, None], theta, theta / (theta + mean)).sum(-1)
    np.testing.assert_allclose(found, expected + np.asarray(jax.nn.log_softmax(logits)), atol=1e-4)


def test_a_row_without_markers_takes_what_expresses_none():
    random = np.random.default_rng(0)
    table = np.repeat(np.eye(3, dtype=np.float32)[:3], 5, axis=1)
    table[2] = 0  # 'other'
    types = np.arange(300) % 3
    counts = random.poisson(np.where(table[types] > 0, 12.0, 2.0)).astype(np.float32)
    annotation = annotated(counts, np.ones(300, np.float32), table)
    assert (types_of(annotation, counts, np.ones(300, np.float32)) == types).mean() > 0.97


@pytest.mark.slow
def test_batch_effects_are_taken_off():
    random = np.random.default_rng(0)
    table = np.repeat(np.eye(2, dtype=np.float32), 6, axis=1)
    types, batches = np.arange(400) % 2, (np.arange(400) // 2 % 2).astype(np.int32)
    fold = np.exp(random.normal(0, 1.0, (2, 12)))
    counts = random.poisson(2 * fold[batches] * np.where(table[types] > 0, 4, 1)).astype(np.float32)
    sizes = np.ones(400, np.float32)
    annotation = MarkerAnnotation(MarkerAnnotationConfig(n_genes=12, n_classes=2, n_batches=2, n_steps=200))
    annotation.initialize(jnp.asarray(counts), jnp.asarray(table), jnp.asarray(sizes), jnp.asarray(batches))
    with_batches = annotation.apply({"counts": counts, "size_factors": sizes, "batch_labels": batches}, {}, None)[0]
    accuracy = (np.asarray(with_batches["cell_type_probabilities"]).argmax(1) == types).mean()
    without = (types_of(annotated(counts, sizes, table), counts, sizes) == types).mean()
    found = np.asarray(annotation.batch_effects[...])
    correlation = np.corrcoef(found[0] - found[1], np.log(fold[0] / fold[1]))[0, 1]
    print(f"accuracy {accuracy:.3f}, without batches {without:.3f}; correlation with true effects {correlation:.3f}")
    assert accuracy >= max(without, 0.95)
    assert correlation > 0.95


@pytest.mark.slow
def test_training_by_likelihood_raises_it():
    table, genes = markers_of(10)
    counts, types = drawn(300, 1000, 3)
    chosen, sizes = jnp.asarray(counts[:, genes]), jnp.asarray(counts.sum(1))
    annotation = annotated(chosen, sizes, table, n_steps=0)
    optimizer = nnx.Optimizer(annotation, optax.adam(0.02), wrt=nnx.Param)

    @nnx.jit
    def step(annotation, optimizer):
        def loss(annotation):
            return -annotation.compute(chosen, sizes).cell_type_log_likelihood.mean()

        value, gradients = nnx.value_and_grad(loss)(annotation)
        optimizer.update(annotation, gradients)
        return value

    values = [float(step(annotation, optimizer)) for _ in range(60)]
    accuracy = (types_of(annotation, chosen, sizes) == types).mean()
    print(f"loss {values[0]:.2f} -> {values[-1]:.2f}, accuracy {accuracy:.3f}")
    assert values[-1] < values[0] - 1
    assert accuracy > 0.8


def test_gradients_are_right():
    random = np.random.default_rng(0)
    table = jnp.asarray(random.random((3, 5)) < 0.5, jnp.float32)
    model = MarkerModel(*(jnp.asarray(random.normal(size=shape), jnp.float32) for shape in (3, 5, (3, 5), 5, (2, 5))))
    counts, sizes = jnp.asarray(random.gamma(2.0, 2.0, (4, 5)), jnp.float32), jnp.ones(4)
    batches = jnp.array([0, 1, 0, 1])

    @jax.jit
    def joint(counts, sizes, model):
        return marker_log_joint(counts, sizes, table, model, batches, least_overexpression=0.7)

    check_grads(joint, (counts, sizes, model), order=1, modes=("rev",), rtol=3e-2, atol=3e-2)


def test_empty_cells_and_extreme_counts_stay_finite():
    random = np.random.default_rng(0)
    table = np.eye(3, 6, dtype=np.float32)
    counts = random.poisson(3.0, (20, 6)).astype(np.float32)
    counts[:2] = 0
    annotation = MarkerAnnotation(MarkerAnnotationConfig(n_genes=6, n_classes=3, n_steps=20))

    @jax.jit
    def total_and_gradient(counts, model, mean_size):
        def total(counts, model):
            sizes = counts.sum(1) / mean_size
            joint = marker_log_joint(counts, sizes, jnp.asarray(table), model, least_overexpression=0.7)
            return jax.nn.softmax(joint)[:, 0].sum() + 1e-6 * joint.sum()

        return jax.value_and_grad(total, argnums=(0, 1))(counts, model)

    for cells in (counts, np.zeros_like(counts), np.ones_like(counts), counts * 1e6, counts[:1], counts[:1] + 1):
        points = jnp.asarray(cells)
        annotation.initialize(points, jnp.asarray(table))
        found = total_and_gradient(points, annotation.model, annotation.mean_size[...])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_errors_say_what_is_wanted():
    annotation = MarkerAnnotation(MarkerAnnotationConfig(n_genes=3, n_classes=2))
    with pytest.raises(DataError, match="0 and 1"):
        annotation.initialize(jnp.ones((4, 3)), jnp.full((2, 3), 0.5))
    with pytest.raises(DataError, match="types 0 and 1 of marker_genes have the same 3 markers"):
        annotation.initialize(jnp.ones((4, 3)), jnp.ones((2, 3)))
    with pytest.raises(DataError, match=r"shape \(2, 4\)"):
        annotation.initialize(jnp.ones((4, 3)), jnp.eye(2, 4))
