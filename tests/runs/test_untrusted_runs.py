"""Run folders that lie: no code of a stranger runs, no other file is read or written, no memory is taken on trust."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import tree
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import fmnist
from fmnist import atomic, untrusted
from fmnist.config import MAX_EPOCHS
from fmnist.data import formats as idx
from fmnist.errors import FmnistError
from fmnist.models import networks as model
from fmnist.runs import run as runs
from fmnist.runs import schemas as forms

PACKAGE = Path(fmnist.__file__).parent


def open_everything(folder):
    """Read all that this program ever reads of a finished run."""
    run = runs.open_run(folder)
    fmnist.Classifier.load(run)
    run.environment()
    run.history()
    fmnist.load_model(run)


def rewrite(name, **changes):
    def change(folder):
        document = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**document, **changes}))

    return change


def manifest(**changes):
    return rewrite("manifest.json", **changes)


def environment(**changes):
    return rewrite("environment.json", **changes)


def acceptance(**changes):
    def change(folder):
        known = json.loads((folder / "manifest.json").read_text())["acceptance"]
        rewrite("manifest.json", acceptance={**known, **changes})(folder)

    return change


def config(**changes):
    def change(folder):
        document = json.loads((folder / "config.json").read_text())
        document["config"] |= changes
        (folder / "config.json").write_text(json.dumps(document))

    return change


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def history(*rows):
    return text("history.csv", "\n".join([",".join(runs.HISTORY_COLUMNS), *rows]))


def weights(alter):
    """Weights that a stranger has written, with a manifest that names them."""

    def change(folder):
        content = alter((folder / "weights.safetensors").read_bytes())
        (folder / "weights.safetensors").write_bytes(content)
        hashes = {"model.onnx": idx.sha256((folder / "model.onnx").read_bytes())}
        manifest(sha256={**hashes, "weights.safetensors": idx.sha256(content)})(folder)

    return change


def header_of(length, header=b"{}"):
    return lambda _: length.to_bytes(8, "little") + header


def tensors(**arrays):
    return lambda _: save({name.replace("__", "/"): values for name, values in arrays.items()})


def promise(shape, dtype="F32", end=4):
    """A header that promises more than the file holds."""
    header = json.dumps({"head/bias": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()
    return lambda _: len(header).to_bytes(8, "little") + header + bytes(4)


HASH = "0" * 64
HASHES = {"model.onnx": HASH, "weights.safetensors": HASH}
ESCAPE = "\x1b[2J"
LIES = {
    "a name with an escape sequence": (manifest(class_names=[ESCAPE, *"bcdefghij"]), "its class_names is"),
    "a name that turns the line round": (manifest(class_names=["\u202etrihs", *"bcdefghij"]), "its class_names is"),
    "half a character": (manifest(class_names=["\ud800", *"bcdefghij"]), "its class_names is"),
    "an endless name": (manifest(class_names=["a" * 101, *"bcdefghij"]), "its class_names is"),
    "an empty name": (manifest(class_names=["", *"bcdefghij"]), "its class_names is"),
    "a blank name": (manifest(class_names=[" ", *"bcdefghij"]), "its class_names is"),
    "a name twice": (manifest(class_names=["b", *"bcdefghij"]), "its class_names is"),
    "a name that is a number": (manifest(class_names=[1, *"bcdefghij"]), "its class_names is"),
    "eleven names": (manifest(class_names=list("abcdefghijk")), "its class_names is .* not 1 to 10 different"),
    "no name": (manifest(class_names=[]), "its class_names is"),
    "temperature 0": (manifest(temperature=0), "its temperature is missing or not a number from 0.01 to 100"),
    "temperature below 0": (manifest(temperature=-1), "its temperature is"),
    "temperature as text": (manifest(temperature="1"), "its temperature is"),
    "temperature true": (manifest(temperature=True), "its temperature is"),
    "temperature NaN": (manifest(temperature=float("nan")), "manifest.json is damaged .NaN is no number of JSON"),
    "temperature of 400 digits": (manifest(temperature=10**400), "its temperature is"),
    "temperature infinite": (manifest(temperature=float("inf")), "Infinity is no number of JSON"),
    "temperature beyond floats": (text("manifest.json", '{"format_version": 1, "class_names": ["a"], "views": '
        '[[false, 0, 0]], "temperature": 1e999}'), "its temperature is"),
    "views far out": (manifest(views=[[False, 0, 10**9]]), "its views is"),
    "very many views": (manifest(views=[[False, 0, 0]] * 1_000), "its views is"),
    "no view": (manifest(views=[]), "its views is"),
    "epochs below 0": (manifest(epochs_trained=-1), "its epochs_trained is"),
    "parameters true": (manifest(parameters=True), "its parameters is"),
    "calibrated by a list": (manifest(calibrated_by=[]), "its calibrated_by is"),
    "a short hash": (manifest(sha256={**HASHES, "model.onnx": "0" * 63}), "its sha256 is"),
    "a hash in capitals": (manifest(sha256={**HASHES, "model.onnx": "A" * 64}), "its sha256 is"),
    "one hash alone": (manifest(sha256={"model.onnx": HASH}), "its sha256 is"),
    "a file above": (manifest(sha256={**HASHES, "../other": HASH}), "its sha256 is .* by plain file name"),
    "a file anywhere": (manifest(sha256={**HASHES, "/etc/passwd": HASH}), "its sha256 is"),
    "a file on a drive": (manifest(sha256={**HASHES, "C:\\other": HASH}), "its sha256 is"),
    "two dots": (manifest(sha256={**HASHES, "..": HASH}), "its sha256 is"),
    "the hash of another graph": (manifest(sha256=HASHES), "model.onnx is not the file that its manifest names"),
    "a manifest of version true": (manifest(format_version=True), "has format version True"),
    "a very long version": (manifest(format_version="9" * 10**5), "has format version 9{40};"),
    "a deep manifest": (text("manifest.json", '{"a":' * 10**5), "damaged .nested too deeply"),
    "a long number": (text("manifest.json", '{"a": ' + "9" * 10**4 + "}"), "manifest.json is damaged"),
    "bytes that are no text": (
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff{}"),
        "manifest.json is damaged",
    ),
    "an acceptance without a scale": (acceptance(scale=0), "its acceptance: scale or variance is not above 0"),
    "an acceptance without variance": (acceptance(variance=[0] * 9), "its acceptance: scale or variance is not above"),
    "an acceptance of other features": (acceptance(projection=[[0] * 9] * 3), "is of 3 features, but its graph gives"),
    "endless training": (config(epochs=10**9), "config.json is damaged .epochs is 1000000000; expected"),
    "an endless batch": (config(batch_size=10**15), "config.json is damaged .batch_size"),
    "a network by another name": (config(network="__import__"), "config.json is damaged .network"),
    "a rate that is none": (config(learning_rate=None), "config.json is damaged .learning_rate"),
    "a view as wide as the world": (config(views=[[False, 10**9, 0]]), "config.json is damaged .views"),
    "an unknown setting": (config(code="print()"), "config.json is damaged"),
    "a time before all time": (rewrite("config.json", created="0001-01-01T00:00:00+23:59"), "config.json is damaged"),
    "a time that is a number": (rewrite("config.json", created=5), "config.json is damaged"),
    "processor as a list": (environment(processor=[]), "environment.json is damaged .its processor is"),
    "an endless platform": (environment(platform="x" * 1_001), "its platform is"),
    "versions that are no text": (environment(versions={"keras": 3}), "its versions is"),
    "data without hashes": (environment(data_sha256={}), "its data_sha256 is"),
    "a history of words": (history("a" + ",b" * 10), "history.csv is damaged"),
    "half a row": (history("1,2"), "history.csv is damaged"),
    "a history with an endless cell": (history("1" * 200_000 + ",1" * 10), "history.csv is damaged .field larger"),
    "a history of another table": (text("history.csv", "a,b\n1,2"), "history.csv is damaged"),
    "weights of another manifest": (
        lambda folder: (folder / "weights.safetensors").write_bytes(b"x"),
        "weights.safetensors is damaged or not the file that its manifest names",
    ),
    "a weights header of 1 EB": (weights(header_of(2**60)), "weights.safetensors is damaged"),
    "a weights header of 90 MB": (weights(header_of(90 * 10**6)), "weights.safetensors is damaged"),
    "weights of 4 TB": (weights(promise([10**12])), "weights.safetensors is damaged"),
    "weights beyond all numbers": (weights(promise([2**63, 2**63])), "weights.safetensors is damaged"),
    "weights beyond the end": (weights(promise([10**6], end=4 * 10**6)), "weights.safetensors is damaged"),
    "bfloat16": (weights(promise([2], "BF16")), "weights.safetensors (is damaged|holds other numbers)"),
    "float64": (weights(tensors(head__bias=np.zeros(10))), "holds other numbers than float32"),
    "a million classes": (weights(tensors(head__bias=np.zeros(10**6, np.float32))), "holds no weights of this program"),
    "no class": (weights(tensors(head__bias=np.zeros(0, np.float32))), "holds no weights of this program"),
    "a single number": (weights(tensors(head__bias=np.float32([1]).reshape(()))), "does not fit the network"),
    "weights of nothing": (weights(tensors()), "holds no weights of this program"),
    "a pickle for weights": (weights(lambda _: b"\x80\x04cos\nsystem\n(S'true'\ntR."), "safetensors is damaged"),
}  # fmt: skip


def test_nothing_is_said_of_an_honest_run(copied_run):
    before = tree(copied_run.folder)
    open_everything(copied_run.folder)
    assert tree(copied_run.folder) == before


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_named_in_one_line_and_changes_nothing(copied_run, lie):
    change, expected = LIES[lie]
    change(copied_run.folder)
    before = tree(copied_run.folder.parent)
    with pytest.raises(FmnistError, match=expected) as caught:
        open_everything(copied_run.folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000
    assert str(copied_run.folder) in str(caught.value)
    assert tree(copied_run.folder.parent) == before


def move_away(path):
    """Put a file beside the run folder and a link in its place."""
    path.symlink_to(shutil.move(path, path.parent.parent / f"elsewhere-{path.name}"))


def enlarge(path):
    """Make it 10 GB that are not there."""
    os.truncate(path, 10**10)


FILES = ["config.json", "manifest.json", "environment.json", "history.csv", "model.onnx", "weights.safetensors"]
THINGS = {
    "a link": (move_away, "is a link; a run holds plain files alone"),
    "a dangling link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "is a link|is not finished"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is no file|is not finished"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is no file|is not finished"),
    "10 GB": (enlarge, r"has 10,000,000,000 bytes; expected at most"),
}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_plain_file_of_sensible_size_is_not_opened(copied_run, name, thing):
    put, expected = THINGS[thing]
    put(copied_run.folder / name)
    with pytest.raises(FmnistError, match=expected) as caught:
        open_everything(copied_run.folder)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_named(copied_run, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(untrusted.Path, "open", refuse)
    with pytest.raises(FmnistError, match=r"config.json cannot be read \(Permission denied\)"):
        open_everything(copied_run.folder)


@pytest.mark.parametrize("name", ["evaluation.json", "report.html", "manifest.json", "model.onnx"])
def test_a_link_in_a_run_leads_no_write_astray(copied_run, tmp_path, name):
    """The link gives way to the new file, and what it led to stays as it was."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (copied_run.folder / name).unlink(missing_ok=True)
    (copied_run.folder / name).symlink_to(victim)
    atomic.write(copied_run.folder / name, b"new")
    assert victim.read_text() == "precious"
    assert not (copied_run.folder / name).is_symlink()
    assert (copied_run.folder / name).read_bytes() == b"new"


def test_evaluate_leaves_what_links_lead_to(copied_run, tmp_path):
    (tmp_path / "victim").write_text("precious")
    for name in ("evaluation.json", "report.html"):
        (copied_run.folder / name).symlink_to(tmp_path / "victim")
    fmnist.evaluate(copied_run)
    assert (tmp_path / "victim").read_text() == "precious"
    assert json.loads((copied_run.folder / "evaluation.json").read_text())["num_images"] == 200


def test_a_run_that_names_a_folder_of_mine_gets_nothing_out_of_it(copied_run, fashion, tmp_path, monkeypatch):
    """The data found there is not what the run has on record: not a pixel of it is used."""
    mine = shutil.copytree(copied_run.config.data, tmp_path / "mine")
    (mine / "train-labels-idx1-ubyte.gz").write_bytes((mine / "t10k-labels-idx1-ubyte.gz").read_bytes())
    shutil.copy(mine / "t10k-images-idx3-ubyte.gz", mine / "train-images-idx3-ubyte.gz")
    config(data=str(mine))(copied_run.folder)
    before = tree(tmp_path)
    with pytest.raises(FmnistError, match=r"is not the data that .* was trained on"):
        fmnist.evaluate(copied_run.folder)
    assert tree(tmp_path) == before
    config(data="/etc\x1b[2J")(copied_run.folder)
    before = tree(tmp_path)
    with pytest.raises(FmnistError, match="no data folder /etc"):
        fmnist.evaluate(copied_run.folder)
    assert tree(tmp_path) == before


MARKUP = "<script>alert(1)</script>"


def test_markup_of_a_stranger_is_text_in_the_report(copied_run):
    names = [f"{MARKUP}$x{label}^" for label in range(10)]
    manifest(class_names=names, calibrated_by=MARKUP)(copied_run.folder)
    environment(processor=MARKUP, versions={MARKUP: MARKUP})(copied_run.folder)
    config(preset=MARKUP)(copied_run.folder)
    fmnist.evaluate(copied_run.folder)
    report = (copied_run.folder / "report.html").read_text()
    assert MARKUP not in report
    assert report.count("&lt;script&gt;") > 10


def test_no_escape_sequence_reaches_the_terminal(cli, copied_run, tmp_path):
    """Neither by the name of a folder, nor by that of a picture, nor by what a run says."""
    from PIL import Image

    folder = copied_run.folder.rename(tmp_path / f"run{ESCAPE}")
    Image.new("L", (28, 28)).save(tmp_path / f"boot{ESCAPE}.png")
    printed = [cli("predict", tmp_path / f"boot{ESCAPE}.png", "--model", folder)]
    printed.append(cli("predict", tmp_path / f"none{ESCAPE}.png", "--model", folder))
    printed.append(cli("evaluate", folder))
    config(data=f"/etc{ESCAPE}")(folder)
    printed.append(cli("evaluate", folder))
    text("model.onnx", "")(folder)
    printed.append(cli("predict", tmp_path / f"boot{ESCAPE}.png", "--model", folder))
    assert [code for code, _, _ in printed] == [0, 1, 0, 1, 1]
    for _, out, err in printed:
        assert "\x1b" not in out + err
        assert r"\x1b[2J" in out + err


def test_a_file_name_that_is_no_text_is_shown(cli, small_run, tmp_path):
    from PIL import Image

    path = os.fsdecode(os.fsencode(tmp_path / "boot") + b"\xff.png")
    Image.new("L", (28, 28)).save(tmp_path / "boot.png")
    (tmp_path / "boot.png").rename(path)
    code, out, err = cli("predict", path, "--model", small_run.folder)
    assert (code, err.count("error")) == (0, 0)
    assert r"boot\udcff.png" in out


FORBIDDEN = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "h5py", "torch", "yaml",
    "eval", "exec", "compile_command", "load_weights", "from_config", "deserialize", "from_json_string",
    "enable_unsafe_deserialization", "allow_pickle", "system", "popen",
}  # fmt: skip
LOADERS = {"np.load", "numpy.load", "keras.models.load_model", "keras.saving.load_model", "tf.saved_model.load"}


def test_nothing_that_can_run_code_is_ever_opened():
    """No call, import or argument by these names in the whole package; nor a shell."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {
                ast.Import: lambda node: {alias.name.split(".")[0] for alias in node.names},
                ast.ImportFrom: lambda node: {str(node.module).split(".")[0], *(alias.name for alias in node.names)},
                ast.Attribute: lambda node: {node.attr},
                ast.Name: lambda node: {node.id},
                ast.keyword: lambda node: {str(node.arg)},
            }.get(type(node), lambda _: set())(node)
            assert not names & FORBIDDEN, f"{path.name}: {names}"
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in LOADERS, path.name
            if isinstance(node, ast.keyword):
                assert node.arg not in {"shell", "allow_pickle", "safe_mode"}, path.name
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.endswith((".keras", ".h5", ".pkl", ".joblib", ".npy", ".npz")) or (
                    node.value in {"~/.keras", ".keras"}  # the folder, not the format
                ), path.name


GREEDY = [
    "an endless name", "very many views", "views far out", "a deep manifest", "endless training", "an endless batch",
    "a view as wide as the world", "a weights header of 1 EB", "a weights header of 90 MB", "weights of 4 TB",
    "weights beyond all numbers", "weights beyond the end", "a million classes",
]  # fmt: skip
GLUTTONS = """
import resource, sys
from pathlib import Path
import fmnist
from fmnist.models import networks as model
from fmnist.runs import run as runs
size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 200 * 2**20,) * 2)
for folder in sys.argv[1:]:
    for read in (runs.Run.history, fmnist.Classifier.load, model.read_weights):
        try:
            read(runs.open_run(folder))
        except fmnist.FmnistError:
            print(folder)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, as Linux can")
def test_lies_take_no_memory(small_run, tmp_path):
    """All of them in one process that gets 200 MB more and then none: none is killed, each is refused."""
    greedy = [change for change, _ in (LIES[name] for name in GREEDY)]
    greedy += [lambda folder, name=name: enlarge(folder / name) for name in FILES if name != "environment.json"]
    folders = [str(tmp_path / str(number)) for number in range(len(greedy))]
    for change, folder in zip(greedy, folders, strict=True):
        change(shutil.copytree(small_run.folder, Path(folder)))
    done = subprocess.run([sys.executable, "-c", GLUTTONS, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(folders)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(forms.MANIFEST)), value=values)
def test_any_value_in_a_manifest_passes_as_itself_or_is_refused(tmp_path_factory, name, value):
    folder = tmp_path_factory.mktemp("any")
    document = {**MANIFEST, name: value}
    (folder / "manifest.json").write_text(json.dumps(document))
    try:
        found = runs.read_manifest(folder)
    except FmnistError:
        return
    assert found == document
    assert forms.MANIFEST[name][0](value)


MANIFEST = {
    "format_version": 1, "class_names": ["a", "b"], "views": [[False, 0, 0]], "temperature": 1.5, "calibrated_by": None,
    "epochs_trained": 3, "parameters": 10, "train_seconds": 2.5,
    "sha256": {"model.onnx": "ab" * 32, "weights.safetensors": "cd" * 32},
}  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    class_names=st.lists(st.sampled_from("abcdé裙"), min_size=1, max_size=6, unique=True),
    temperature=st.floats(0.01, 100),
    train_seconds=st.floats(0, 10**6),
    views=st.lists(
        st.tuples(st.booleans(), st.integers(-14, 14), st.integers(-14, 14)).map(list), min_size=1, max_size=9
    ),
    epochs_trained=st.integers(0, MAX_EPOCHS),
)
def test_a_manifest_reads_back_as_it_was_written(tmp_path_factory, **changes):
    folder = tmp_path_factory.mktemp("any")
    atomic.write_json(folder / "manifest.json", {**MANIFEST, **changes})
    assert runs.read_manifest(folder) == {**MANIFEST, **changes}


@settings(max_examples=200, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), bit=st.none() | st.integers(0, 7))
def test_a_manifest_that_is_cut_or_flipped_is_refused_or_says_something_valid(tmp_path_factory, share, bit):
    """A flipped digit of a temperature is a temperature; but none gets past the form, and none is a traceback."""
    folder = tmp_path_factory.mktemp("any")
    atomic.write_json(folder / "manifest.json", MANIFEST)
    content = bytearray((folder / "manifest.json").read_bytes())
    position = int(share * (len(content) - 1))
    if bit is None:
        del content[position:]
    else:
        content[position] ^= 1 << bit
    (folder / "manifest.json").write_bytes(content)
    try:
        found = runs.read_manifest(folder)
    except FmnistError:
        return
    assert bit is not None
    for name, (fits, _) in forms.MANIFEST.items():
        assert fits(found[name])


@settings(max_examples=100, deadline=None)
@given(
    share=st.floats(0, 1, exclude_max=True),
    bit=st.none() | st.integers(0, 7),
    name=st.sampled_from(["model.onnx", "weights.safetensors"]),
)
def test_a_model_that_is_cut_or_flipped_is_noticed(small_run, tmp_path_factory, share, bit, name):
    folder = tmp_path_factory.mktemp("any") / "run"
    shutil.copytree(small_run.folder, folder)
    content = bytearray((folder / name).read_bytes())
    position = int(share * len(content))
    if bit is None:
        del content[position:]
    else:
        content[position] ^= 1 << bit
    (folder / name).write_bytes(content)
    with pytest.raises(FmnistError, match=r"is not the file that its manifest names|is damaged or not the file"):
        fmnist.Classifier.load(folder) if name == "model.onnx" else model.read_weights(runs.open_run(folder))
