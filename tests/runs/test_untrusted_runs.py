"""Run folders from other people: no code in them runs, no other file is read or written, no memory is wasted."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tree
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import fmnist
from fmnist import files
from fmnist.config import IDENTITY_VIEW
from fmnist.documents import read_document, write_document
from fmnist.errors import FmnistError
from fmnist.files import sha256, write_atomic
from fmnist.models.weights import read_weights
from fmnist.runs.history import HISTORY_COLUMNS
from fmnist.runs.schemas import ADAPTED_WEIGHTS_FILE, Agreement, Manifest

PACKAGE = Path(fmnist.__file__).parent


def open_everything(folder):
    """Read everything that the package ever reads of a finished run."""
    run = fmnist.open_run(folder)
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


def rejection_rule(**changes):
    def change(folder):
        rule = json.loads((folder / "manifest.json").read_text())["rejection_rule"]
        rewrite("manifest.json", rejection_rule={**rule, **changes})(folder)

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
    return text("history.csv", "\n".join([",".join(HISTORY_COLUMNS), *rows]))


def weights(alter):
    """Change the weights, and the manifest with them."""

    def change(folder):
        content = alter((folder / "weights.safetensors").read_bytes())
        (folder / "weights.safetensors").write_bytes(content)
        hashes = {"model.onnx": sha256((folder / "model.onnx").read_bytes())}
        manifest(sha256={**hashes, "weights.safetensors": sha256(content)})(folder)

    return change


def header_of(length, header=b"{}"):
    return lambda _: length.to_bytes(8, "little") + header


def tensors(**arrays):
    return lambda _: save({name.replace("__", "/"): values for name, values in arrays.items()})


def declare(shape, dtype="F32", end=4):
    """A header that declares more than the file contains."""
    header = json.dumps({"head/bias": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()
    return lambda _: len(header).to_bytes(8, "little") + header + bytes(4)


HASH = "0" * 64
HASHES = {"model.onnx": HASH, "weights.safetensors": HASH}
ESCAPE = "\x1b[2J"
INVALID = {
    "a name with an escape sequence": (manifest(class_names=[ESCAPE, *"bcdefghij"]), "class_names"),
    "a name that turns the line round": (manifest(class_names=["\u202etrihs", *"bcdefghij"]), "class_names"),
    "a surrogate": (manifest(class_names=["\ud800", *"bcdefghij"]), "class_names"),
    "a very long name": (manifest(class_names=["a" * 101, *"bcdefghij"]), "class_names"),
    "an empty name": (manifest(class_names=["", *"bcdefghij"]), "class_names"),
    "a blank name": (manifest(class_names=[" ", *"bcdefghij"]), "class_names"),
    "a name twice": (manifest(class_names=["b", *"bcdefghij"]), "class_names"),
    "a name that is a number": (manifest(class_names=[1, *"bcdefghij"]), "class_names"),
    "101 names": (manifest(class_names=[*map(str, range(101))]), "class_names is .*expected 1 to 100 different"),
    "names that differ by their encoding": (
        manifest(class_names=["\u00e9", "e\u0301", *"cdefghij"]),
        "class_names is .*expected 1 to 100 different",
    ),
    "no name": (manifest(class_names=[]), "class_names"),
    "temperature 0": (manifest(temperature=0), r"Expected float >= 0.01 - at \$.temperature"),
    "temperature below 0": (manifest(temperature=-1), "temperature"),
    "temperature as text": (manifest(temperature="1"), "temperature"),
    "temperature true": (manifest(temperature=True), "temperature"),
    "temperature NaN": (manifest(temperature=float("nan")), "manifest.json is damaged .NaN is not a JSON number"),
    "temperature of 400 digits": (manifest(temperature=10**400), "out of range"),
    "temperature infinite": (manifest(temperature=float("inf")), "Infinity is not a JSON number"),
    "temperature beyond floats": (text("manifest.json", '{"format_version": 2, "temperature": 1e999}'), "temperature"),
    "a huge shift": (manifest(tta_views=[[False, 0, 10**9]]), "tta_views"),
    "1,000 views": (manifest(tta_views=[[False, 0, 0]] * 1_000), "tta_views"),
    "no view": (manifest(tta_views=[]), "tta_views"),
    "epochs below 0": (manifest(epochs_trained=-1), "epochs_trained"),
    "parameters true": (manifest(parameters=True), "parameters"),
    "a list for calibrated_by": (manifest(calibrated_by=[]), "calibrated_by"),
    "a short hash": (manifest(sha256={**HASHES, "model.onnx": "0" * 63}), "sha256"),
    "a hash in capitals": (manifest(sha256={**HASHES, "model.onnx": "A" * 64}), "sha256"),
    "one hash alone": (manifest(sha256={"model.onnx": HASH}), "sha256"),
    "a file in the parent folder": (manifest(sha256={**HASHES, "../other": HASH}), "sha256|regex"),
    "an absolute path": (manifest(sha256={**HASHES, "/etc/passwd": HASH}), "sha256"),
    "a path on a drive": (manifest(sha256={**HASHES, "C:\\other": HASH}), "sha256"),
    "two dots": (manifest(sha256={**HASHES, "..": HASH}), "sha256"),
    "another graph": (manifest(sha256=HASHES), "model.onnx is not the file that its manifest names"),
    "a boolean format version": (manifest(format_version=True), "has format version True"),
    "a very long version": (manifest(format_version="9" * 10**5), "has format version 9{40};"),
    "a deep manifest": (text("manifest.json", '{"a":' * 10**5), "damaged .nested too deeply"),
    "a long number": (text("manifest.json", '{"a": ' + "9" * 10**4 + "}"), "manifest.json is damaged"),
    "bytes that are not UTF-8": (
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff{}"),
        "manifest.json is damaged",
    ),
    "a rejection rule without a scale": (rejection_rule(scale=0), r"Expected float > 0.0 - at \$.rejection_rule.scale"),
    "a rejection rule without variance": (rejection_rule(variance=[0] * 9), r"> 0.0 - at \$.rejection_rule.variance"),
    "a rejection rule of other features": (rejection_rule(projection=[[0] * 9] * 3), "has 128 features; expected 3"),
    "a billion epochs": (config(epochs=10**9), r"config.json is damaged .Expected int <= 5000 - at \$.config.epochs"),
    "a huge batch": (config(batch_size=10**15), r"config.json is damaged .*\$.config.batch_size"),
    "an unknown network": (config(network="__import__"), r"config.json is damaged .*\$.config.network"),
    "a null learning rate": (config(learning_rate=None), r"config.json is damaged .*\$.config.learning_rate"),
    "a huge shift in the config": (config(tta_views=[[False, 10**9, 0]]), r"config.json is .*\$.config.tta_views"),
    "an unknown setting": (config(code="print()"), "config.json is damaged"),
    "a time before year 1": (rewrite("config.json", created="0001-01-01T00:00:00+23:59"), "config.json is damaged"),
    "a time that is a number": (rewrite("config.json", created=5), "config.json is damaged"),
    "a list for the processor": (environment(processor=[]), r"environment.json is damaged .*\$.processor"),
    "a very long platform": (environment(platform="x" * 1_001), "platform"),
    "a number for a version": (environment(versions={"keras": 3}), "versions"),
    "a history of words": (history("a" + ",b" * 10), "history.csv is damaged"),
    "half a row": (history("1,2"), "history.csv is damaged"),
    "a history with a huge cell": (history("1" * 200_000 + ",1" * 10), "history.csv is damaged .field larger"),
    "a history of another table": (text("history.csv", "a,b\n1,2"), "history.csv is damaged"),
    "weights that the manifest does not name": (
        lambda folder: (folder / "weights.safetensors").write_bytes(b"x"),
        "weights.safetensors is damaged or not the file that its manifest names",
    ),
    "a weights header of 1 EB": (weights(header_of(2**60)), "weights.safetensors is damaged"),
    "a weights header of 90 MB": (weights(header_of(90 * 10**6)), "weights.safetensors is damaged"),
    "weights of 4 TB": (weights(declare([10**12])), "weights.safetensors is damaged"),
    "weights of 2**126 values": (weights(declare([2**63, 2**63])), "weights.safetensors is damaged"),
    "weights beyond the end": (weights(declare([10**6], end=4 * 10**6)), "weights.safetensors is damaged"),
    "bfloat16": (weights(declare([2], "BF16")), "weights.safetensors (is damaged|holds other numbers)"),
    "float64": (weights(tensors(head__bias=np.zeros(10))), "holds other numbers than float32"),
    "a million classes": (weights(tensors(head__bias=np.zeros(10**6, np.float32))), "holds no weights of this program"),
    "no class": (weights(tensors(head__bias=np.zeros(0, np.float32))), "holds no weights of this program"),
    "a single number": (weights(tensors(head__bias=np.float32([1]).reshape(()))), "does not fit the network"),
    "weights of nothing": (weights(tensors()), "holds no weights of this program"),
    "a pickle for weights": (weights(lambda _: b"\x80\x04cos\nsystem\n(S'true'\ntR."), "safetensors is damaged"),
}  # fmt: skip


def test_reading_a_valid_run_changes_nothing(copied_run):
    before = tree(copied_run.folder)
    open_everything(copied_run.folder)
    assert tree(copied_run.folder) == before


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_run_is_refused_in_one_line_and_not_changed(copied_run, case):
    change, expected = INVALID[case]
    change(copied_run.folder)
    before = tree(copied_run.folder.parent)
    with pytest.raises(FmnistError, match=expected) as caught:
        open_everything(copied_run.folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000
    assert str(copied_run.folder) in str(caught.value)
    assert tree(copied_run.folder.parent) == before


def move_away(path):
    """Move a file out of the run folder and put a link in its place."""
    path.symlink_to(shutil.move(path, path.parent.parent / f"elsewhere-{path.name}"))


def enlarge(path):
    """Make a sparse file of 10 GB."""
    os.truncate(path, 10**10)


FILES = ["config.json", "manifest.json", "environment.json", "history.csv", "model.onnx", "weights.safetensors"]
REPLACEMENTS = {
    "a link": (move_away, "is a symbolic link; expected a regular file"),
    "a dangling link": (
        lambda path: (path.unlink(), path.symlink_to("nowhere")), "is a symbolic link|is not finished",
    ),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is a pipe or device|is not finished"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder|is not finished"),
    "10 GB": (enlarge, r"has 10,000,000,000 bytes; expected at most"),
}  # fmt: skip


@pytest.mark.parametrize("replacement", REPLACEMENTS)
@pytest.mark.parametrize("name", FILES)
def test_only_regular_files_of_bounded_size_are_opened(copied_run, name, replacement):
    replace, expected = REPLACEMENTS[replacement]
    replace(copied_run.folder / name)
    with pytest.raises(FmnistError, match=expected) as caught:
        open_everything(copied_run.folder)
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_named(copied_run, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.Path, "open", refuse)
    with pytest.raises(FmnistError, match=r"config.json cannot be read \(Permission denied\)"):
        open_everything(copied_run.folder)


@pytest.mark.parametrize("name", ["evaluation.json", "report.html", "manifest.json", "model.onnx"])
def test_a_write_replaces_a_link_and_not_its_target(copied_run, tmp_path, name):
    target = tmp_path / "target"
    target.write_text("precious")
    (copied_run.folder / name).unlink(missing_ok=True)
    (copied_run.folder / name).symlink_to(target)
    write_atomic(copied_run.folder / name, b"new")
    assert target.read_text() == "precious"
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


def test_markup_in_a_run_is_escaped_in_the_report(copied_run):
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


def test_a_run_folder_whose_name_is_no_text(cli, copied_run, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path / "run") + b"\xff")
    copied_run.folder.rename(folder)
    code, out, _ = cli("evaluate", folder)
    assert code == 0
    assert r"run\udcff" in out
    assert r"run\udcff" in (Path(folder) / "report.html").read_text(encoding="utf-8")
    # The demo encodes the name in each answer.
    assert fmnist.Classifier.load(folder).name.encode().endswith(rb"run\udcff")


FORBIDDEN = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "h5py", "torch", "yaml",
    "eval", "exec", "compile_command", "load_weights", "from_config", "deserialize", "from_json_string",
    "enable_unsafe_deserialization", "allow_pickle", "system", "popen",
}  # fmt: skip
ALLOWED = {
    # Keras calls it when a user loads a network, and the class is one of a few of this package
    ("registration.py", "from_config"),
    # of a user's own optimizer, which they pass
    ("custom.py", "from_config"),
    # of a file that the user names on the command line
    ("imports.py", "exec"),
}
LOADERS = {"np.load", "numpy.load", "keras.models.load_model", "keras.saving.load_model", "tf.saved_model.load"}


def test_nothing_that_can_run_code_is_ever_opened():
    """No call, import or argument by these names in the whole package; nor a shell."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {
                ast.Import: lambda node: {alias.name.split(".")[0] for alias in node.names},
                ast.ImportFrom: lambda node: {str(node.module).split(".")[0], *(alias.name for alias in node.names)},
                ast.Attribute: lambda node: {node.attr},
                ast.Name: lambda node: {node.id},
                ast.keyword: lambda node: {str(node.arg)},
            }.get(type(node), lambda _: set())(node)
            forbidden = {name for name in names & FORBIDDEN if (path.name, name) not in ALLOWED}
            assert not forbidden, f"{path.name}: {forbidden}"
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in LOADERS, path.name
            if isinstance(node, ast.keyword):
                assert node.arg not in {"shell", "allow_pickle", "safe_mode"}, path.name
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.endswith((".keras", ".h5", ".pkl", ".joblib", ".npy", ".npz")) or (
                    # the folder; a file that is written, never opened
                    node.value in {"~/.keras", ".keras", "model.keras"}
                    # `tables.read_array` reads numbers only
                    or (path.parent.name == "data" and node.value.endswith((".npy", ".npz")))
                    or node.value == ADAPTED_WEIGHTS_FILE
                ), path.name


LARGE = [
    "a very long name", "1,000 views", "a huge shift", "a deep manifest", "a billion epochs", "a huge batch",
    "a huge shift in the config", "a weights header of 1 EB", "a weights header of 90 MB", "weights of 4 TB",
    "weights of 2**126 values", "weights beyond the end", "a million classes",
]  # fmt: skip
READ_ALL = """
import resource, sys
from pathlib import Path
import fmnist
from fmnist.models.weights import read_weights
size = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 200 * 2**20,) * 2)
for folder in sys.argv[1:]:
    for read in (fmnist.Run.history, fmnist.Classifier.load, read_weights):
        try:
            read(fmnist.open_run(folder))
        except fmnist.FmnistError:
            print(folder)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, as Linux can")
def test_invalid_runs_take_no_memory(small_run, tmp_path):
    """In one process with 200 MB of address space left, each invalid run is refused and none ends the process."""
    changes = [change for change, _ in (INVALID[name] for name in LARGE)]
    changes += [lambda folder, name=name: enlarge(folder / name) for name in FILES if name != "environment.json"]
    folders = [str(tmp_path / str(number)) for number in range(len(changes))]
    for change, folder in zip(changes, folders, strict=True):
        change(shutil.copytree(small_run.folder, Path(folder)))
    done = subprocess.run([sys.executable, "-c", READ_ALL, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(folders)


MANIFEST = Manifest(
    class_names=("a", "b"),
    tta_views=(IDENTITY_VIEW,),
    temperature=1.5,
    calibrated_by=None,
    validation=None,
    rejection_rule=None,
    epochs_trained=3,
    parameters=10,
    train_seconds=2.5,
    agreement=Agreement(
        num_images=1, max_difference=0.0, same_top1=True, max_difference_from_training_precision=0.0
    ),
    sha256={"model.onnx": "ab" * 32, "weights.safetensors": "cd" * 32},
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(Manifest.__struct_fields__), value=values)
def test_any_value_in_a_manifest_is_read_unchanged_or_refused(tmp_path_factory, name, value):
    path = tmp_path_factory.getbasetemp() / "manifest.json"
    values = {**json.loads(json.dumps(MANIFEST.to_json())), name: value}
    path.write_text(json.dumps(values))
    try:
        found = read_document(path, Manifest, "")
    except FmnistError:
        return
    assert json.loads(json.dumps(found.to_json())) == values


@settings(max_examples=200, deadline=None)
@given(fraction=st.floats(0, 1, exclude_max=True), bit=st.none() | st.integers(0, 7))
def test_a_truncated_or_flipped_manifest_is_refused_or_valid(tmp_path_factory, fraction, bit):
    """A flipped digit of a temperature is another temperature, but nothing passes the schema, and nothing crashes."""
    path = tmp_path_factory.getbasetemp() / "manifest.json"
    write_document(path, MANIFEST)
    content = bytearray(path.read_bytes())
    position = int(fraction * (len(content) - 1))
    if bit is None:
        del content[position:]
    else:
        content[position] ^= 1 << bit
    path.write_bytes(content)
    try:
        found = read_document(path, Manifest, "")
    except FmnistError:
        return
    assert bit is not None
    assert Manifest(**{name: getattr(found, name) for name in Manifest.__struct_fields__}) == found


@settings(max_examples=100, deadline=None)
@given(
    fraction=st.floats(0, 1, exclude_max=True),
    bit=st.none() | st.integers(0, 7),
    name=st.sampled_from(["model.onnx", "weights.safetensors"]),
)
def test_a_truncated_or_flipped_model_is_refused(small_run, tmp_path_factory, fraction, bit, name):
    folder = tmp_path_factory.mktemp("any") / "run"
    shutil.copytree(small_run.folder, folder)
    content = bytearray((folder / name).read_bytes())
    position = int(fraction * len(content))
    if bit is None:
        del content[position:]
    else:
        content[position] ^= 1 << bit
    (folder / name).write_bytes(content)
    with pytest.raises(FmnistError, match=r"is not the file that its manifest names|is damaged or not the file"):
        fmnist.Classifier.load(folder) if name == "model.onnx" else read_weights(fmnist.open_run(folder))
