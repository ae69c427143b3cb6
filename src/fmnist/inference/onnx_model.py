"""ONNX files of other people: the input formats that they could take, and their results."""

from pathlib import Path

import numpy as np

from fmnist.errors import FmnistError, printable
from fmnist.files import MAX_MODEL_BYTES, read_bounded, sha256
from fmnist.inference.input_format import LAYOUTS, InputFormat, list_formats
from fmnist.inference.runtime import open_session

Shape = list[int | str | None]
"""As ONNX Runtime gives it: names or None stand for any size; empty if none is declared."""
DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
}
"""NumPy's name of each type of input."""
EXPORT_HINT = (
    "export it as one file of standard operators; with PyTorch, torch.onnx.export(..., external_data=False) or "
    "dynamo=False"
)


class OnnxModel:
    """A graph with one input and one output of interest.

    Attributes:
        name: of the file.
        sha256: of the file.
        num_bytes: size of the file.
        formats: the input formats that fit the declared shape and type.
    """

    def __init__(self, path: Path, num_classes: int):
        """Open a file.

        Args:
            path: the ONNX file.
            num_classes: of the data set, by which the output is found.

        Raises:
            FmnistError: if the graph is damaged, not safe to open, or takes no images of 28x28 pixels.
        """
        self.name = printable(str(path))
        content = read_bounded(path, MAX_MODEL_BYTES, "check the name, or name another file", follow_links=True)
        self.sha256, self.num_bytes = sha256(content), len(content)
        self._session = open_session(content, self.name, EXPORT_HINT)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise FmnistError(f"the graph of {self.name} has {len(inputs)} inputs; expected one, for the images")
        (self._input,) = inputs
        self.formats = self._list_formats()
        first, *_ = self._input.shape or [None]
        self._batch_size = first if isinstance(first, int) else None
        widths = {output.name: (output.shape or [None])[-1] for output in self._session.get_outputs()}
        self._output = next((name for name, width in widths.items() if width == num_classes), next(iter(widths)))

    def _list_formats(self) -> list[InputFormat]:
        shape, dtype = self._input.shape, self._input.type
        layouts = [name for name, layout in LAYOUTS.items() if not shape or _fits(shape, layout)]
        if not layouts or dtype not in DTYPES:
            raise FmnistError(
                f"the graph of {self.name} takes {dtype} of shape {_show(shape)}; expected one of "
                f"{', '.join(_show(['n', *layout]) for layout in LAYOUTS.values())}, and one of "
                f"{', '.join(DTYPES.values())}. A function can convert the images to what the model takes: "
                "file.py:function"
            )
        return list_formats(layouts, [DTYPES[dtype]])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Compute the output of interest.

        Args:
            images: in one of the formats. For a graph of a fixed number of images, they are passed in batches of that
                number, of which the last is filled with zeros.

        Returns:
            The output for each image.
        """
        size = self._batch_size or len(images)
        padding = np.zeros((-len(images) % size, *images.shape[1:]), images.dtype)
        padded = np.concatenate([images, padding]) if len(padding) else images
        results = [
            self._session.run([self._output], {self._input.name: padded[start : start + size]})[0]
            for start in range(0, len(padded), size)
        ]
        if len(results) == 1 and not len(padding):
            return results[0]
        return np.concatenate(results)[: len(images)]


def _fits(shape: Shape, layout: tuple[int, ...]) -> bool:
    """Check whether a declared shape can be that of images in a layout. Sizes with names can be any."""
    return len(shape) == len(layout) + 1 and all(
        not isinstance(given, int) or given == size for given, size in zip(shape[1:], layout, strict=True)
    )


def _show(shape: Shape) -> str:
    return f"({', '.join(str(size) if isinstance(size, int) else 'n' for size in shape)})"
