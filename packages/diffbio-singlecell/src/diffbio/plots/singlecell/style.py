"""What the figures have in common: ink, frame, and a page cropped to what is drawn."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#222222"
FRAME = "#BBBBBB"
_MARGIN = 0.06  # inches


def frame(ax: Axes, title: str | None) -> None:
    """Give axes the thin frame and the title of all figures."""
    ax.spines[:].set(color=FRAME, linewidth=0.6)
    if title:
        ax.set_title(title, fontsize=10, color=INK)


def crop(figure: Figure) -> None:
    """Resize the page to what is drawn on it; axes and text keep their size in inches."""
    drawn = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    width, height = figure.get_size_inches()
    new_width, new_height = drawn.width + 2 * _MARGIN, drawn.height + 2 * _MARGIN
    places = [ax.get_position(original=True) for ax in figure.axes]
    figure.set_size_inches(new_width, new_height)
    for ax, place in zip(figure.axes, places, strict=True):
        ax.set_position(
            (
                (place.x0 * width - drawn.x0 + _MARGIN) / new_width,
                (place.y0 * height - drawn.y0 + _MARGIN) / new_height,
                place.width * width / new_width,
                place.height * height / new_height,
            )
        )
