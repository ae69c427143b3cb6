"""Untrusted graphs: no other file is read, only standard operators are run."""

import contextlib

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import fmnist
from fmnist.errors import FmnistError
from fmnist.inference import runtime
from fmnist.inference.onnx_check import check_graph

NAMES = ("cold", "warm")
OUTPUTS = ("probabilities", "probabilities_single_view", "features")
WEIGHTS = np.linspace(-1, 1, 784 * 2, dtype=np.float32).reshape(784, 2)


def plain_model() -> onnx.ModelProto:
    """Make a small graph like those of `fmnist export`: one layer, two classes."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["features"], axis=1),
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("Softmax", ["logits"], ["probabilities_single_view"], axis=1),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 784 if name == "features" else 2])
        for name in OUTPUTS
    ]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "plain",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 28, 28])],
            outputs,
            [numpy_helper.from_array(WEIGHTS, "weights")],
        ),
        opset_imports=[helper.make_opsetid("", 15)],
        ir_version=8,
    )


def external(location="secret.bin", name="weights"):
    """Make a tensor whose values are in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[784, 2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def sparse():
    return helper.make_sparse_tensor(
        helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("indices", TensorProto.INT64, [1], [0]),
        [10**6, 10**6],
    )


def subgraph():
    return helper.make_graph([], "inner", [], [], [external()])


def set_initializer_location(location):
    def change(model):
        model.graph.initializer[0].CopyFrom(external(location))

    return change


def add_node(*arguments, **named):
    def change(model):
        model.graph.node.append(helper.make_node(*arguments, **{key: make() for key, make in named.items()}))

    return change


def add_operator(operator, domain):
    def change(model):
        model.graph.node.append(helper.make_node(operator, ["logits"], ["more"], domain=domain))
        model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def set_location_without_name(model):
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def add_function(model):
    model.functions.append(
        helper.make_function("", "Softmax", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], model.opset_import)
    )


def add_training(model):
    model.training_info.add().initialization.initializer.append(external())


def add_sparse_initializer(model):
    model.graph.sparse_initializer.append(sparse())


def rename_input(model):
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels_in"


def retype_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def reshape_input(model):
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 32, 32]))


def add_input(model):
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def remove_output(model):
    del model.graph.output[0]


def add_output(model):
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2]))


def retype_output(model):
    model.graph.node[3].output[0] = "narrow"
    model.graph.node.append(helper.make_node("Cast", ["narrow"], ["probabilities"], to=TensorProto.DOUBLE))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def set_wrong_dimensions(model):
    model.graph.initializer[0].dims[:] = [2**20, 2**20]


def set_unknown_operator(model):
    model.graph.node[3].op_type = "System"


EXTERNAL_DATA = "contains a tensor with external data"
REFUSED_CHANGES = {
    "external data": (set_initializer_location("secret.bin"), EXTERNAL_DATA),
    "external data in a parent folder": (set_initializer_location("../../secret.bin"), EXTERNAL_DATA),
    "external data at an absolute path": (set_initializer_location("/etc/passwd"), EXTERNAL_DATA),
    "external data without a name": (set_location_without_name, EXTERNAL_DATA),
    "external data in an attribute": (add_node("Constant", [], ["c"], value=external), EXTERNAL_DATA),
    "external data in a list of tensors": (add_node("Constant", [], ["c"], value=lambda: [external()]), EXTERNAL_DATA),
    "external data in a subgraph": (
        add_node("If", ["b"], ["c"], then_branch=subgraph, else_branch=subgraph),
        "contains a subgraph",
    ),
    "external data in a list of subgraphs": (
        add_node("Any", [], ["c"], branches=lambda: [subgraph()]),
        "contains a subgraph",
    ),
    "a loop": (add_node("Loop", ["", ""], ["c"], body=subgraph), "contains a subgraph"),
    "a sparse tensor": (add_node("Constant", [], ["c"], sparse_value=sparse), "contains a sparse tensor"),
    "sparse tensors": (add_node("Any", [], ["c"], values=lambda: [sparse()]), "contains a sparse tensor"),
    "a sparse initializer": (add_sparse_initializer, "contains a sparse tensor"),
    "a function": (add_function, "contains custom functions"),
    "training steps": (add_training, "contains training steps"),
    "a custom operator": (add_operator("Run", "com.example"), "non-standard operator .domain b'com.example'"),
    "an operator of ONNX Runtime": (add_operator("Gelu", "com.microsoft"), "non-standard operator"),
    "an operator of machine learning": (add_operator("Normalizer", "ai.onnx.ml"), "non-standard operator"),
    "an unknown operator": (set_unknown_operator, "ONNX Runtime cannot read the graph .*System"),
    "wrong dimensions": (set_wrong_dimensions, "ONNX Runtime cannot read the graph"),
    "another input": (rename_input, "has inputs .*pixels_in.*; expected images, uint8 of shape .n, 28, 28."),
    "an input of another type": (retype_input, r"has inputs .*float.*; expected images, uint8"),
    "an input of another shape": (reshape_input, r"has inputs .*32.*; expected images, uint8"),
    "an additional input": (add_input, "has inputs .*more.*; expected images"),
    "a missing output": (
        remove_output,
        "has outputs .*; expected probabilities, probabilities_single_view and features",
    ),
    "an additional output": (add_output, "has outputs .*logits.*; expected probabilities"),
    "an output of another type": (retype_output, "has outputs .*double.*; expected probabilities"),
}


def test_a_plain_graph_is_opened():
    probabilities = fmnist.Classifier(plain_model().SerializeToString(), NAMES).predict(
        np.full((3, 28, 28), 9, np.uint8)
    )
    assert probabilities.shape == (3, 2)


def test_an_exported_graph_passes(small_run):
    check_graph(small_run.onnx_path.read_bytes(), "the run")


@pytest.mark.parametrize("case", REFUSED_CHANGES)
def test_an_unsafe_graph_is_refused_in_one_line(case, tmp_path, monkeypatch):
    """The external file exists in the current folder."""
    change, expected = REFUSED_CHANGES[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    model = plain_model()
    change(model)
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.Classifier(model.SerializeToString(), NAMES, "runs/downloaded")
    assert "\n" not in str(caught.value)
    assert "runs/downloaded" in str(caught.value)


def test_onnx_runtime_alone_reads_external_data(tmp_path, monkeypatch):
    """The reason for the check. If this fails, ONNX Runtime has become stricter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    model = plain_model()
    set_initializer_location("secret.bin")(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"images": np.full((1, 28, 28), 9, np.uint8)})
    assert probabilities.shape == (1, 2)


def test_the_ort_format_is_refused(tmp_path, monkeypatch):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(plain_model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    content = (tmp_path / "model.ort").read_bytes()
    assert content[4:8] == b"ORTM"
    with pytest.raises(FmnistError, match="damaged or not an ONNX file"):
        fmnist.Classifier(content, NAMES)
    # The session refuses it too, in case a file is valid in both formats.
    monkeypatch.setattr(runtime, "check_graph", lambda *_: None)
    with pytest.raises(FmnistError, match="ONNX Runtime cannot read the graph"):
        fmnist.Classifier(content, NAMES)


def test_probabilities_of_nan_are_refused():
    model = plain_model()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full_like(WEIGHTS, np.nan), "weights"))
    with pytest.raises(FmnistError, match="expected finite numbers of shape"):
        fmnist.Classifier(model.SerializeToString(), NAMES).predict(np.ones((1, 28, 28), np.uint8))


def test_features_of_nan_are_refused():
    model = plain_model()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(np.nan), "nan"))
    model.graph.node[1].output[0] = "flat"
    model.graph.node[2].input[0] = "flat"
    model.graph.node.append(helper.make_node("Mul", ["flat", "nan"], ["features"]))
    with pytest.raises(FmnistError, match=r"returns features of shape \(1, 784\) or with NaN"):
        fmnist.Classifier(model.SerializeToString(), NAMES).predict(np.ones((1, 28, 28), np.uint8))


def test_probabilities_of_another_shape_than_declared_are_refused():
    """Two rows for one image, which the declared shape allows."""
    model = plain_model()
    model.graph.node[3].output[0] = "once"
    model.graph.node.append(helper.make_node("Concat", ["once", "once"], ["probabilities"], axis=0))
    with pytest.raises(FmnistError, match=r"of shape \(2, 2\).*expected finite numbers of shape \(1, 2\)"):
        fmnist.Classifier(model.SerializeToString(), NAMES).predict(np.ones((1, 28, 28), np.uint8))


def test_an_error_during_inference_becomes_one_line():
    """The graph needs two images per batch and gets one."""
    model = plain_model()
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 784]), "shape"))
    model.graph.node[1].CopyFrom(helper.make_node("Reshape", ["pixels", "shape"], ["features"]))
    classifier = fmnist.Classifier(model.SerializeToString(), NAMES)
    with pytest.raises(FmnistError, match="cannot be computed") as caught:
        classifier.predict(np.ones((1, 28, 28), np.uint8))
    assert "\n" not in str(caught.value)


def is_safe(message):
    """Check the same as `check_graph` with the package onnx, which is slow to import."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.name in {"GraphProto"} and message.DESCRIPTOR.name != "ModelProto":
            return False
        if field.message_type.name in {"SparseTensorProto", "FunctionProto", "TrainingInfoProto"}:
            return False
        for item in value if field.is_repeated else [value]:
            name = item.DESCRIPTOR.name
            if name == "NodeProto" and item.domain not in {"", "ai.onnx"}:
                return False
            if name == "TensorProto" and (item.external_data or item.HasField("data_location")):
                return False
            if not is_safe(item):
                return False
    return True


UNSAFE_GRAPHS = []
for change, message in REFUSED_CHANGES.values():
    if not message.startswith(("contains", "non-standard")):
        continue
    unsafe_model = plain_model()
    unsafe_model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHTS[:2], "weights"))
    change(unsafe_model)
    UNSAFE_GRAPHS.append(unsafe_model.SerializeToString())


@settings(max_examples=1_000, deadline=None)
@given(
    content=st.sampled_from(UNSAFE_GRAPHS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
    start=st.floats(0, 1),
    more=st.sampled_from([b"", *UNSAFE_GRAPHS]) | st.binary(max_size=12),
)
def test_a_damaged_unsafe_graph_is_refused_or_safe(content, changes, start, more):
    """A graph that passes the check is also safe for the parser of the package onnx."""
    damaged = bytearray(content)
    for position, byte in changes:
        damaged[int(position * len(damaged))] = byte
    start = int(start * len(damaged))
    damaged[start:start] = more
    try:
        check_graph(bytes(damaged), "any")
    except FmnistError:
        return
    try:
        model = onnx.load_from_string(bytes(damaged))
    except Exception:
        return  # the package onnx is stricter
    assert is_safe(model)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(content):
    with contextlib.suppress(FmnistError):
        check_graph(content, "any")


AMBIGUOUS_BYTES = {
    "a tag of more than 32 bits": bytes([0x82 | 0x80, 0x80, 0x80, 0x80, 0x10, 0]),
    "a tag of six bytes": b"\x82\x80\x80\x80\x80\x00\x00",
    "a group": b"\x0b\x0c",
    "a length beyond the end": b"\x3a\x7f",
    "an integer of more than 10 bytes": b"\x08" + b"\xff" * 11,
    "half an integer": b"\x08\xff",
    "half a float": b"\x3d\x00",
}


@pytest.mark.parametrize("case", AMBIGUOUS_BYTES)
def test_bytes_that_parsers_read_differently_are_refused(case):
    with pytest.raises(FmnistError, match=r"damaged or not an ONNX file|an unknown field"):
        check_graph(AMBIGUOUS_BYTES[case], "any")
