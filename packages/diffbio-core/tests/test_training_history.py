import csv
import io

import pytest
from rich.console import Console

from diffbio.core.errors import ConfigError
from diffbio.training import History

RECORDS = [
    {"epoch": e, "step": 4 * e, "train_loss": 1 / e, "validation_loss": 1 / e + 0.02 * e, "temperature/head": 0.9**e,
     "grad_norm/projection": 0.5 / e, "grad_norm/head": 0.0, "seconds": 0.1}
    for e in range(1, 31)
]  # fmt: skip


def test_columns_and_csv(tmp_path):
    history = History(RECORDS, best_epoch=7)
    history.to_csv(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_loss"]) for row in rows] == history.columns()["validation_loss"]
    assert list(rows[0]) == list(history.columns())
    assert len(history) == 30
    assert history[6]["epoch"] == 7


def test_table_shows_best_and_last():
    console = Console(width=200, file=io.StringIO())
    table = History(RECORDS, best_epoch=7).table(rows=10)
    console.print(table)
    assert table.row_count == 11  # ten evenly spaced epochs and the best
    shown = [line.split("│")[1].strip() for line in console.file.getvalue().splitlines() if line.startswith("│")]
    assert "7" in shown
    assert shown[-1] == "30"


def test_plot_has_a_panel_for_what_was_recorded(tmp_path):
    figure = History(RECORDS, best_epoch=7).plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 10_000
    assert [axis.get_title() for axis in figure.axes] == ["loss", "gradient norm per stage", "temperature"]
    plain = History([{"epoch": 1, "train_loss": 1.0}]).plot()
    assert [axis.get_title() for axis in plain.axes] == ["loss"]
    with pytest.raises(ConfigError, match="no epoch to plot"):
        History().plot()


def test_gradient_norms_are_those_of_the_last_epoch():
    assert History([{"grad_norm/head": 2.0, "step": 1}, {"grad_norm/head": 1.0}]).gradient_norms() == {"head": 1.0}
    assert History().gradient_norms() == {}
