"""Graphs that lie: no file but the graph itself is read, no operator beyond the standard is run."""

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
from fmnist.inference import onnx_check as graph

NAMES = ("cold", "warm")
OUTPUTS = ("probabilities", "probabilities_single_view", "features")
WEIGHTS = np.linspace(-1, 1, 784 * 2, dtype=np.float32).reshape(784, 2)


def plain() -> onnx.ModelProto:
    """A graph as `fmnist export` might write it, small: one layer, two classes."""
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
    """A tensor whose values are in another file."""
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


def initializer_from(location):
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


def add_location_alone(model):
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
    model.graph.input[0].name = model.graph.node[0].input[0] = "pictures"


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


def lie_about_dimensions(model):
    model.graph.initializer[0].dims[:] = [2**20, 2**20]


def use_an_unknown_operator(model):
    model.graph.node[3].op_type = "System"


OTHER_FILE = "holds a tensor whose values"
HOSTILE = {
    "external data": (initializer_from("secret.bin"), f"{OTHER_FILE} are in another file|{OTHER_FILE} may be"),
    "external data above": (initializer_from("../../secret.bin"), OTHER_FILE),
    "external data anywhere": (initializer_from("/etc/passwd"), OTHER_FILE),
    "external data without a name": (add_location_alone, OTHER_FILE),
    "external data in an attribute": (add_node("Constant", [], ["c"], value=external), OTHER_FILE),
    "external data in a list of tensors": (add_node("Constant", [], ["c"], value=lambda: [external()]), OTHER_FILE),
    "external data in a subgraph": (
        add_node("If", ["b"], ["c"], then_branch=subgraph, else_branch=subgraph),
        "holds a graph within a graph",
    ),
    "external data in one of many subgraphs": (
        add_node("Any", [], ["c"], branches=lambda: [subgraph()]),
        "holds a graph within a graph",
    ),
    "a loop": (add_node("Loop", ["", ""], ["c"], body=subgraph), "holds a graph within a graph"),
    "a sparse tensor": (add_node("Constant", [], ["c"], sparse_value=sparse), "holds a sparse tensor"),
    "sparse tensors": (add_node("Any", [], ["c"], values=lambda: [sparse()]), "holds a sparse tensor"),
    "a sparse initializer": (add_sparse_initializer, "holds a sparse tensor"),
    "a function": (add_function, "holds functions of its own"),
    "training steps": (add_training, "holds training steps"),
    "an operator of a stranger": (add_operator("Run", "com.stranger"), "not of the standard .domain b'com.stranger'"),
    "an operator of ONNX Runtime": (add_operator("Gelu", "com.microsoft"), "not of the standard"),
    "an operator of machine learning": (add_operator("Normalizer", "ai.onnx.ml"), "not of the standard"),
    "an unknown operator": (use_an_unknown_operator, "ONNX Runtime cannot read the graph .*System"),
    "dimensions that lie": (lie_about_dimensions, "ONNX Runtime cannot read the graph"),
    "another input": (rename_input, "takes .*pictures.*; expected images, uint8 of shape .n, 28, 28."),
    "an input of another type": (retype_input, r"takes .*float.*; expected images, uint8"),
    "an input of another shape": (reshape_input, r"takes .*32.*; expected images, uint8"),
    "one input more": (add_input, "takes .*more.*; expected images"),
    "one output less": (remove_output, "gives .*; expected probabilities, probabilities_single_view and features"),
    "one output more": (add_output, "gives .*logits.*; expected probabilities"),
    "an output of another type": (retype_output, "gives .*double.*; expected probabilities"),
}


def test_the_plain_graph_is_opened():
    answers = fmnist.Classifier(plain().SerializeToString(), NAMES).predict(np.full((3, 28, 28), 9, np.uint8))
    assert answers.shape == (3, 2)


def test_what_export_writes_is_opened(small_run):
    graph.check(small_run.onnx_path.read_bytes(), "the run")


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_graph_is_refused_in_one_line(case, tmp_path, monkeypatch):
    """In a folder where the file that it asks for is there."""
    change, expected = HOSTILE[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    model = plain()
    change(model)
    with pytest.raises(FmnistError, match=expected) as caught:
        fmnist.Classifier(model.SerializeToString(), NAMES, "runs/stranger")
    assert "\n" not in str(caught.value)
    assert "runs/stranger" in str(caught.value)


def test_onnx_runtime_alone_would_read_the_other_file(tmp_path, monkeypatch):
    """Why the graph is checked before: should this ever fail, ONNX Runtime has become stricter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    model = plain()
    initializer_from("secret.bin")(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (answers,) = session.run(["probabilities"], {"images": np.full((1, 28, 28), 9, np.uint8)})
    assert answers.shape == (1, 2)


def test_the_other_format_of_onnx_runtime_is_refused(tmp_path, monkeypatch):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(plain().SerializeToString(), options, providers=["CPUExecutionProvider"])
    content = (tmp_path / "model.ort").read_bytes()
    assert content[4:8] == b"ORTM"
    with pytest.raises(FmnistError, match="damaged or no ONNX file"):
        fmnist.Classifier(content, NAMES)
    # Not by the check alone, which a file of two meanings might pass.
    monkeypatch.setattr(graph, "check", lambda *_: None)
    with pytest.raises(FmnistError, match="ONNX Runtime cannot read the graph"):
        fmnist.Classifier(content, NAMES)


def test_answers_that_are_no_numbers_are_refused():
    model = plain()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full_like(WEIGHTS, np.nan), "weights"))
    with pytest.raises(FmnistError, match="expected finite ones"):
        fmnist.Classifier(model.SerializeToString(), NAMES).predict(np.ones((1, 28, 28), np.uint8))


def test_features_that_are_no_numbers_are_refused():
    model = plain()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(np.nan), "nothing"))
    model.graph.node[1].output[0] = "flat"
    model.graph.node[2].input[0] = "flat"
    model.graph.node.append(helper.make_node("Mul", ["flat", "nothing"], ["features"]))
    with pytest.raises(FmnistError, match="features that are no numbers"):
        fmnist.Classifier(model.SerializeToString(), NAMES).predict(np.ones((1, 28, 28), np.uint8))


def test_answers_of_another_shape_than_declared_are_refused():
    """Two answers for one image, which the declared shape does not tell."""
    model = plain()
    model.graph.node[3].output[0] = "once"
    model.graph.node.append(helper.make_node("Concat", ["once", "once"], ["probabilities"], axis=0))
    with pytest.raises(FmnistError, match=r"of shape \(2, 2\).*expected finite ones of shape \(1, 2\)"):
        fmnist.Classifier(model.SerializeToString(), NAMES).predict(np.ones((1, 28, 28), np.uint8))


def test_a_graph_that_fails_when_asked_is_one_line():
    """It wants two images at a time, and is given one."""
    model = plain()
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 784]), "shape"))
    model.graph.node[1].CopyFrom(helper.make_node("Reshape", ["pixels", "shape"], ["features"]))
    classifier = fmnist.Classifier(model.SerializeToString(), NAMES)
    with pytest.raises(FmnistError, match="cannot be computed") as caught:
        classifier.predict(np.ones((1, 28, 28), np.uint8))
    assert "\n" not in str(caught.value)


def is_harmless(message):
    """The same question as `graph.check`, answered by the library: slow to import, and sure."""
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
            if not is_harmless(item):
                return False
    return True


HOSTILE_BYTES = []
for alter, words in HOSTILE.values():
    if not words.startswith((OTHER_FILE, "holds", "not of the standard")):
        continue
    hostile_model = plain()
    hostile_model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHTS[:2], "weights"))
    alter(hostile_model)
    HOSTILE_BYTES.append(hostile_model.SerializeToString())


@settings(max_examples=1_000, deadline=None)
@given(
    content=st.sampled_from(HOSTILE_BYTES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
    start=st.floats(0, 1),
    more=st.sampled_from([b"", *HOSTILE_BYTES]) | st.binary(max_size=12),
)
def test_what_the_check_lets_pass_the_library_finds_harmless(content, changes, start, more):
    """Hostile graphs, spoiled: either refused, or nothing hostile is left for anybody's reader."""
    spoiled = bytearray(content)
    for place, byte in changes:
        spoiled[int(place * len(spoiled))] = byte
    position = int(start * len(spoiled))
    spoiled[position:position] = more
    try:
        graph.check(bytes(spoiled), "any")
    except FmnistError:
        return
    try:
        model = onnx.load_from_string(bytes(spoiled))
    except Exception:
        return  # the library is stricter still
    assert is_harmless(model)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_passed_or_refused(content):
    with contextlib.suppress(FmnistError):
        graph.check(content, "any")


OVERLONG = {
    "a tag that only its last four bytes would be": bytes([0x82 | 0x80, 0x80, 0x80, 0x80, 0x10, 0]),
    "a tag of six bytes": b"\x82\x80\x80\x80\x80\x00\x00",
    "a group": b"\x0b\x0c",
    "a length beyond the end": b"\x3a\x7f",
    "a number without an end": b"\x08" + b"\xff" * 11,
    "half a number": b"\x08\xff",
    "half a float": b"\x3d\x00",
}


@pytest.mark.parametrize("case", OVERLONG)
def test_bytes_that_readers_take_differently_are_refused(case):
    with pytest.raises(FmnistError, match=r"damaged or no ONNX file|an unknown part"):
        graph.check(OVERLONG[case], "any")
