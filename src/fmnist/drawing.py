"""Parts of figures: images with titles, names beside axes, legends."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fmnist.fonts import Labels, labels_for


def draw_image(axes: Axes, image: np.ndarray, title: str, fontsize: int = 10, labels: Labels | None = None) -> None:
    """Draw an image, (size, size) uint8, with a title above it."""
    labels = labels or labels_for([title])
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(labels.text(title), fontsize=fontsize, fontfamily=[*labels.families])
    axes.axis("off")


def place_legend(axes: Axes, **options: Any) -> None:
    """Draw the legend to the right of the axes, where it covers nothing."""
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), **options)


def hide_spines(axes: Axes) -> None:
    """Leave only the left and the lower spine."""
    axes.spines[["top", "right"]].set_visible(False)


def set_names(
    axes: Axes, positions: Sequence[float] | np.ndarray, names: Sequence[str], labels: Labels | None = None
) -> None:
    """Write names beside the vertical axis."""
    labels = labels or labels_for(names)
    axes.set_yticks(positions, [*map(labels.text, names)], fontfamily=[*labels.families])
