"""Figures show every cell and type, read well at uneven sizes, and never touch pyplot's state."""

import io
import itertools
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from diffbio.core.errors import ContractError
from diffbio.io.singlecell import AnnDataDataset, pbmc68k_reduced
from diffbio.plots.singlecell import (
    confusion_plot,
    dot_plot,
    embedding_panels,
    embedding_plot,
    feature_plot,
    group_expression,
    training_curve,
)
from diffbio.plots.singlecell.embedding import _PALETTE
from diffbio.training import History

scanpy = pytest.importorskip("scanpy")


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """UMAP, labels and names of 700 cells of ten types, from 240 cells to 8."""
    dataset = AnnDataDataset(pbmc68k_reduced(), key="normalized", labels="bulk_labels", obsm={"umap": "X_umap"})
    rows = dataset.take(np.arange(700))
    return rows["umap"], rows["labels"], dataset.metadata["classes"]


def extents(figure: Figure) -> list:
    """Boxes of all texts that are drawn on the data."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [text.get_window_extent(renderer) for text in figure.axes[0].texts]


def saved(figure: Figure, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def test_every_cell_is_drawn_once_and_rare_types_are_on_top(cells: tuple) -> None:
    coordinates, labels, names = cells
    ax = embedding_plot(coordinates, labels, names=names)
    drawn = [np.asarray(points.get_offsets()) for points in ax.collections]
    sizes = [len(points) for points in drawn if len(points)]
    assert sizes == sorted(np.bincount(labels).tolist(), reverse=True)
    np.testing.assert_allclose(np.sort(np.concatenate(drawn), axis=0), np.sort(coordinates, axis=0))
    assert ax.get_aspect() == 1.0
    colors = [to_hex(points.get_facecolor()[0]) for points in ax.collections if len(points.get_offsets())]
    assert len(set(colors)) == 10


def test_the_legend_names_each_type_with_its_cells(cells: tuple) -> None:
    coordinates, labels, names = cells
    labels = labels.copy()
    labels[:5] = -1
    ax = embedding_plot(coordinates, labels, names=names, title="PBMC")
    figure, legend = ax.figure, ax.get_legend()
    counts = [int((labels == code).sum()) for code in range(10)]
    wanted = [f"{name} ({count})" for name, count in zip(names, counts, strict=True)]
    assert [text.get_text() for text in legend.get_texts()] == [*wanted, "unlabelled (5)"]
    renderer = FigureCanvasAgg(figure).get_renderer()
    box = legend.get_window_extent(renderer)
    assert box.x0 >= figure.axes[0].get_window_extent(renderer).x1  # beside the cells, not over them
    assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("kind", ["pbmc", "crowded"])
def test_names_on_the_data_do_not_overlap_and_stay_in_the_panel(cells: tuple, kind: str) -> None:
    coordinates, labels, names = cells
    if kind == "crowded":  # twenty types in one place
        rng = np.random.default_rng(0)
        coordinates, labels = rng.normal(size=(2000, 2)), rng.integers(0, 20, 2000)
        names = [f"cell type {code}" for code in range(20)]
    figure = embedding_plot(coordinates, labels, names=names, on_data=True).figure
    boxes = extents(figure)
    frame = figure.axes[0].get_window_extent()
    assert len(boxes) == len(names)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    for box in boxes:
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert frame.y0 <= box.y0
        assert box.y1 <= frame.y1
    renderer = FigureCanvasAgg(figure).get_renderer()
    pixels = figure.axes[0].transData.transform(coordinates)
    hidden = sum(box.count_contains(pixels) for box in extents(figure))
    print(f"{kind}: names lie over {hidden} of {len(labels)} cells")
    assert hidden < 0.2 * len(labels)
    assert figure.get_tightbbox(renderer).width <= figure.get_size_inches()[0]


def test_panels_side_by_side_share_one_legend(cells: tuple) -> None:
    coordinates, labels, names = cells
    figure = embedding_panels({"frozen": coordinates, "joint": coordinates[:, ::-1]}, labels, names)
    assert [ax.get_title() for ax in figure.axes] == ["frozen", "joint"]
    assert [ax.get_legend() is not None for ax in figure.axes] == [False, True]
    left, right = (ax.get_window_extent() for ax in figure.axes)
    assert left.x1 < right.x0
    np.testing.assert_allclose([left.width, left.height], [right.width, right.height], rtol=1e-3)
    on_data = embedding_panels({"frozen": coordinates}, labels, names, on_data=True)
    assert len(on_data.axes[0].texts) == 10


def test_axes_of_the_caller_are_drawn_into(cells: tuple) -> None:
    coordinates, labels, names = cells
    figure = Figure()
    ax = figure.subplots(1, 2)[1]
    assert embedding_plot(coordinates, labels, names=names, ax=ax, title="here") is ax
    assert ax.get_title() == "here"
    assert not figure.axes[0].collections


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_figures_are_saved_in_any_format(cells: tuple, kind: str) -> None:
    coordinates, labels, names = cells
    assert len(saved(embedding_plot(coordinates, labels, names=names).figure, kind)) > 10_000
    assert len(saved(confusion_plot(labels, labels, names).figure, kind)) > 5_000


@pytest.mark.parametrize("coordinates", [np.zeros((4, 2)), np.full((4, 2), 1e30), 1e-30 * np.eye(4, 2)], ids=str)
@pytest.mark.parametrize("on_data", [False, True])
@pytest.mark.filterwarnings("error")
def test_degenerate_coordinates_are_drawn(coordinates: np.ndarray, on_data: bool) -> None:
    ax = embedding_plot(coordinates, np.array([0, 1, 1, -1]), names=["B", "T"], on_data=on_data)
    assert saved(ax.figure)
    assert saved(feature_plot(coordinates, np.array([0.0, 1.0, 1.0, np.nan])).figure)


@pytest.mark.parametrize(
    ("coordinates", "labels", "names", "text"),
    [
        (np.zeros((3, 5)), np.zeros(3, int), ["B"], r"shape \(3, 5\) for 3 labels.*two dimensions"),
        (np.zeros((3, 2)), np.zeros(4, int), ["B"], "for 4 labels"),
        (np.array([[np.nan, 0]]), np.zeros(1, int), ["B"], "NaN or infinity"),
        (np.zeros((2, 2)), np.array([0, 1]), ["B"], "from 0 to 1 for 1 names"),
        (np.zeros((2, 2)), np.array([0.0, 1.0]), ["B", "T"], "float64"),
        (np.zeros((2, 2)), np.array([0, 1]), list("abcdefghijklmnopqrstu"), "21 names .* 20 colours"),
    ],
)
def test_wrong_input(coordinates: np.ndarray, labels: np.ndarray, names: list[str], text: str) -> None:
    with pytest.raises(ContractError, match=text):
        embedding_plot(coordinates, labels, names=names)
    with pytest.raises(ContractError, match=text):
        embedding_panels({"one": coordinates}, labels, names)


def test_no_panel() -> None:
    with pytest.raises(ContractError, match="no coordinates were given"):
        embedding_panels({}, np.zeros(2, int), ["B"])


def test_confusion_shows_counts_recall_and_row_shares(cells: tuple) -> None:
    _, labels, names = cells
    predicted = np.where(np.arange(700) % 5 == 0, 9, labels)
    ax = confusion_plot(labels, predicted, names, title="Held-out cells")
    truth = np.zeros((10, 10), int)
    np.add.at(truth, (labels, predicted), 1)
    shown = np.zeros((10, 10), int)
    for text in ax.texts:
        if text.get_text() != "recall":
            column, row = text.get_position()
            shown[int(row), int(column)] = int(text.get_text())
    np.testing.assert_array_equal(shown, truth)
    shares = truth / truth.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ax.images[0].get_array(), shares)
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        f"{name} ({size})" for name, size in zip(names, truth.sum(axis=1), strict=True)
    ]
    recall = [text.get_text() for text in ax.child_axes[0].get_yticklabels()]
    assert recall == [f"{share:.0%}" for share in shares.diagonal()]
    assert_on_the_page(ax.figure)
    inside = Figure().subplots(2)[1]
    assert confusion_plot(labels, predicted, names, ax=inside) is inside


def assert_on_the_page(figure: Figure) -> None:
    drawn = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    width, height = figure.get_size_inches()
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= height


def test_confusion_leaves_out_unlabelled_cells_and_marks_empty_rows() -> None:
    ax = confusion_plot(np.array([-1, 0, 0]), np.array([1, 0, 2]), ["B", "T", "NK"])
    recall = [text.get_text() for text in ax.child_axes[0].get_yticklabels()]
    assert recall == ["50%", "-", "-"]


@pytest.mark.parametrize(
    ("true", "predicted", "text"),
    [
        ([0, 1], [0], r"shape \(2,\), predicted ones \(1,\)"),
        ([-1, -1], [0, 0], "no cell has a true label"),
        ([0, 2], [0, 1], "true codes are int64 from 0 to 2 for 2 names"),
        ([0, 1], [0, -1], "predicted codes are int64 from -1 to 0 for 2 names"),
    ],
)
def test_confusion_of_wrong_codes(true: list[int], predicted: list[int], text: str) -> None:
    with pytest.raises(ContractError, match=text):
        confusion_plot(np.array(true), np.array(predicted), ["B", "T"])


def test_values_are_drawn_in_order_with_missing_ones_below(cells: tuple) -> None:
    coordinates, labels, _ = cells
    values = np.where(labels == 0, np.nan, labels + np.random.default_rng(0).random(700))
    ax = feature_plot(coordinates, values, label="a value", title="here")
    missing, drawn = ax.collections
    assert len(missing.get_offsets()) == (labels == 0).sum()
    np.testing.assert_array_equal(drawn.get_array(), np.sort(values[labels > 0]))
    order = np.argsort(values[labels > 0])
    np.testing.assert_allclose(np.asarray(drawn.get_offsets()), coordinates[labels > 0][order])
    assert ax.child_axes[0].get_ylabel() == "a value"
    assert_on_the_page(ax.figure)
    inside = Figure().subplots(2)[1]
    assert feature_plot(coordinates, values, ax=inside) is inside


@pytest.mark.parametrize(
    ("coordinates", "values", "text"),
    [
        (np.zeros((3, 5)), np.zeros(3), r"shape \(3, 5\) and values \(3,\)"),
        (np.zeros((3, 2)), np.zeros(4), r"values \(4,\)"),
        (np.zeros((2, 2)), np.array([0, np.inf]), "finite"),
        (np.zeros((2, 2)), np.full(2, np.nan), "not all NaN"),
    ],
)
def test_wrong_values(coordinates: np.ndarray, values: np.ndarray, text: str) -> None:
    with pytest.raises(ContractError, match=text):
        feature_plot(coordinates, values)


@pytest.fixture(scope="module")
def expression() -> tuple[np.ndarray, list[str]]:
    raw = scanpy.datasets.pbmc68k_reduced().raw.to_adata()
    genes = ["CD3D", "CD3E", "NKG7", "CD79A", "MS4A1", "LYZ", "CST3", "FCER1A"]
    return np.asarray(raw[:, genes].X.todense()), genes


def test_dots_are_those_of_scanpy(cells: tuple, expression: tuple, certificate: Callable[..., None]) -> None:
    _, labels, names = cells
    values, genes = expression
    theirs = scanpy.pl.dotplot(scanpy.datasets.pbmc68k_reduced(), genes, "bulk_labels", return_fig=True, show=False)
    ours = group_expression(values, labels, 10)
    for quantity, found, expected in (
        ("mean expression", ours.mean, theirs.dot_color_df),
        ("share of expressing cells", ours.fraction, theirs.dot_size_df),
    ):
        difference = np.abs(found - expected.loc[names, genes].to_numpy()).max()
        certificate(
            operator="group_expression",
            reference=f"scanpy {version('scanpy')} dotplot",
            data="PBMC 68k, 700 cells, 8 genes, 10 cell types",
            quantity=f"{quantity}, largest difference",
            value=difference,
            bar="<= 1e-5",
        )
        assert difference <= 1e-5
    np.testing.assert_array_equal(ours.cells, np.bincount(labels))
    memberships = np.eye(10)[labels]
    np.testing.assert_allclose(group_expression(values, memberships, 10).mean, ours.mean)
    ax = dot_plot(values, labels, genes=genes, names=names)
    dots = ax.collections[0]
    columns, rows = np.asarray(dots.get_offsets()).astype(int).T
    np.testing.assert_allclose(dots.get_array(), ours.mean[rows, columns])
    areas = np.asarray(dots.get_sizes())
    np.testing.assert_allclose(areas / areas.max(), ours.fraction[rows, columns] / ours.fraction.max())
    assert len(rows) == (ours.fraction > 0).sum()
    assert_on_the_page(ax.figure)


def test_soft_groups_weigh_cells_and_empty_groups_stay_empty() -> None:
    values, memberships = np.array([[0.0], [2.0], [4.0]]), np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [1.0, 0.0, 0]])
    found = group_expression(values, memberships, 3)
    np.testing.assert_allclose(found.mean.ravel(), [2.5, 1.0, np.nan])
    np.testing.assert_allclose(found.fraction.ravel(), [0.75, 0.5, np.nan])
    ax = dot_plot(values, memberships, genes=["LYZ"], names=["a", "b", "c"], scale_genes=True)
    np.testing.assert_allclose(ax.collections[0].get_array(), [1, 0])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a (2)", "b (1)", "c (0)"]
    np.testing.assert_allclose(group_expression(values, np.array([-1, 0, 0]), 1).mean, [[3.0]])


@pytest.mark.parametrize(("groups", "genes"), [(1, 1), (2, 3), (10, 8), (20, 30)])
def test_keys_of_dots_do_not_overlap(groups: int, genes: int) -> None:
    random = np.random.default_rng(0)
    codes = np.arange(100) % groups
    ax = dot_plot(
        random.poisson(1.0, (100, genes)),
        codes,
        genes=[f"G{i}" for i in range(genes)],
        names=[*"abcdefghijklmnopqrst"][:groups],
    )
    renderer = FigureCanvasAgg(ax.figure).get_renderer()
    bar, key = ax.child_axes[0].get_tightbbox(renderer), ax.get_legend().get_window_extent(renderer)
    assert not bar.overlaps(key)
    assert key.x0 >= ax.get_window_extent(renderer).x1 - 1
    assert_on_the_page(ax.figure)
    size, step = np.sqrt(ax.collections[0].get_sizes().max()), ax.transData.transform([[0, 0], [1, 1]])
    assert size * ax.figure.dpi / 72 < np.abs(np.diff(step, axis=0)).min()  # dots do not touch


@pytest.mark.parametrize(
    ("groups", "names", "text"),
    [
        (np.zeros(2, int), ["a"], r"shape \(3, 1\) and groups \(2,\)"),
        (np.array([0, 1, 2]), ["a", "b"], "from 0 to 2"),
        (np.zeros(3), ["a"], "float64"),
        (np.ones((3, 2)), ["a"], r"\(3, 2\) for 1 groups"),
    ],
)
def test_dots_of_wrong_groups(groups: np.ndarray, names: list[str], text: str) -> None:
    with pytest.raises(ContractError, match=text):
        dot_plot(np.zeros((3, 1)), groups, genes=["LYZ"], names=names)
    with pytest.raises(ContractError, match="1 columns for 2 names"):
        dot_plot(np.zeros((3, 1)), np.zeros(3, int), genes=["LYZ", "CST3"], names=["a"])


def test_training_curve_shows_losses_and_the_epoch_that_was_kept() -> None:
    records = [{"epoch": i, "train_loss": 1 / i, "validation_loss": 1 + abs(i - 4) / 10} for i in range(1, 9)]
    ax = training_curve(History(records, best_epoch=4), title="fit")
    training, validation, best = ax.lines
    np.testing.assert_allclose(training.get_ydata(), [record["train_loss"] for record in records])
    np.testing.assert_allclose(validation.get_ydata(), [record["validation_loss"] for record in records])
    np.testing.assert_allclose(best.get_xydata(), [[4, 1]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation"]
    assert_on_the_page(ax.figure)
    inside = Figure().add_subplot()
    alone = training_curve(History([{"epoch": 1, "train_loss": 1.0}]), ax=inside)
    assert alone is inside
    assert len(alone.lines) == 1
    assert alone.lines[0].get_marker() == "o"
    with pytest.raises(ContractError, match="no epoch"):
        training_curve(History())


VISION = {  # Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def oklab(linear: np.ndarray) -> np.ndarray:
    """Ottosson 2020: Euclidean distance is about perceived difference; 0.02 is just noticeable."""
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    opponents = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ cones.T) @ opponents.T


@pytest.mark.parametrize("vision", VISION)
def test_colours_are_told_apart(vision: str) -> None:
    rgb = np.array([to_rgb(color) for color in _PALETTE])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = oklab(np.clip(linear @ VISION[vision].T, 0, 1))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + np.eye(20)
    print(f"{vision}: nearest of 10 colours {apart[:10, :10].min():.3f}, of 20 {apart.min():.3f}")
    assert apart.min() > 0.07


def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys, numpy as np; from diffbio.plots.singlecell import *;"
        "embedding_plot(np.eye(3, 2), np.array([0, 1, 1]), names=['B', 'T'], on_data=True);"
        "confusion_plot(np.array([0, 1]), np.array([0, 1]), ['B', 'T']);"
        "dot_plot(np.eye(2), np.array([0, 1]), genes=['a', 'b'], names=['B', 'T']);"
        "feature_plot(np.eye(3, 2), np.arange(3.0));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
