"""Pages of HTML that need no other file and no network."""

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import numpy as np
from PIL import Image


def render(template: str, filters: Mapping[str, Callable[..., str]] | None = None, /, **values: Any) -> str:
    """Return a page.

    Args:
        template: file name of a Jinja template in this package.
        filters: by name, beside `percent` and `with_commas`.
        values: its variables. Text is escaped.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("fmnist.evaluation", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["percent"] = lambda fraction, digits=2: f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"
    templates.filters["with_commas"] = "{:,}".format
    templates.filters.update(filters or {})
    return templates.get_template(template).render(**values)


def data_url(pixels: np.ndarray) -> str:
    """Return an image, (28, 28) or (28, 28, 3) uint8, as the address of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
