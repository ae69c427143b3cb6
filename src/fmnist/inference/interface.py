"""What goes into the graphs that `fmnist export` writes, and what comes out of them."""

import json

from fmnist.config import IMAGE_SIZE
from fmnist.data.names import are_class_names
from fmnist.errors import FmnistError
from fmnist.inference.runtime import onnxruntime

OUTPUTS = ("probabilities", "probabilities_single_view", "features")
OUTPUTS_WITH_NONE = (*OUTPUTS, "none_probability")
"""Of a network that is trained on photos."""
PLAIN_OUTPUTS = ("probabilities",)
"""Of a graph by `fmnist export --plain`."""


def check_interface(session: onnxruntime.InferenceSession, name: str) -> None:
    """Refuse a graph with other inputs or outputs than `fmnist export` writes."""
    inputs = {part.name: (part.type, len(part.shape), *part.shape[1:]) for part in session.get_inputs()}
    outputs = {part.name: (part.type, len(part.shape)) for part in session.get_outputs()}
    if inputs != {"images": ("tensor(uint8)", 3, IMAGE_SIZE, IMAGE_SIZE)}:
        raise FmnistError(f"the graph of {name} has inputs {inputs}; expected images, uint8 of shape (n, 28, 28)")
    known = (OUTPUTS, OUTPUTS_WITH_NONE, PLAIN_OUTPUTS)
    if outputs not in [dict.fromkeys(names, ("tensor(float)", 2)) for names in known]:
        raise FmnistError(
            f"the graph of {name} has outputs {outputs}; expected {', '.join(OUTPUTS[:-1])} and {OUTPUTS[-1]}, float32 "
            "with two dimensions"
        )


def read_class_names(session: onnxruntime.InferenceSession, name: str) -> list[str]:
    """Return the class names in the metadata of a graph."""
    text = session.get_modelmeta().custom_metadata_map.get("class_names", "")
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not are_class_names(names):
        raise FmnistError(
            f"the graph of {name} has no class names in its metadata; name the folder of its run, or write it anew: "
            "`fmnist export RUN`, and then the same with --int8 or --plain"
        )
    found: list[str] = names
    return found
