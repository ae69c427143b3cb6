"""Functions that a user names are imported, and every problem is one line."""

import hashlib
import sys

import pytest

from fmnist.errors import FmnistError, one_line
from fmnist.imports import import_function

SOURCE = """
import dataclasses
from pathlib import Path
import beside

@dataclasses.dataclass
class Model:
    factor: int

    def predict(self, images):
        return beside.double(images * self.factor)

def double(images):
    return beside.double(images)

model = Model(3)
number = 7
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with `predictors.py` and a module that it imports. What is imported is forgotten."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "predictors.py").write_text(SOURCE)
    (tmp_path / "beside.py").write_text("def double(images):\n    return 2 * images\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("function", ["double", "model.predict"])
@pytest.mark.parametrize("source", ["predictors", "predictors.py", "./predictors.py", "absolute"])
def test_function_and_hash_of_its_file(source, function, folder):
    source = folder / "predictors.py" if source == "absolute" else source
    found, sha256 = import_function(f"{source}:{function}")
    assert found(5) == (10 if function == "double" else 30)
    assert sha256 == hashlib.sha256(SOURCE.encode()).hexdigest()


def test_function_of_a_package(folder):
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("def one():\n    return 1\n")
    assert import_function("package.inner:one")[0]() == 1


def test_file_elsewhere_imports_its_neighbors(folder, monkeypatch):
    elsewhere = folder / "with space"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert import_function("../predictors.py:double")[0](1) == 2


def test_file_is_executed_once_until_it_changes(folder):
    first, second = (import_function(f"predictors.py:{name}")[0] for name in ("double", "Model"))
    assert first.__globals__["Model"] is second
    (folder / "predictors.py").write_text("def double(images):\n    return 'changed'\n")
    assert import_function("predictors.py:double")[0](1) == "changed"


def test_file_with_the_name_of_a_module_replaces_no_module(folder):
    (folder / "random.py").write_text("def predict():\n    return 1\n")
    import random

    assert import_function("random.py:predict")[0]() == 1
    assert sys.modules["random"] is random


CASES = {
    "predictors": "'predictors' names no function; expected module:function or file.py:function",
    "predictors.py": "'predictors.py' names no function",
    "predictors:": "'predictors:' names no function",
    ":double": "':double' names no function",
    r"C:\predictors.py": "names no function",
    "none.py:double": "none.py: no such file or folder; check the name; expected module:function or file.py:function",
    "folder.py:double": "folder.py: is a folder, where a file was expected",
    "none:double": "no module none in ",
    "none.inner:double": "no module none in ",
    "predictors.inner:double": "no module predictors.inner in ",
    "predictors:none": "predictors has no function none; its functions: Model, double",
    "predictors.py:model.none": "predictors.py has no function model.none",
    "predictors.py:number": "predictors.py:number is a value of type int; expected a function; its functions: Model",
    "fails.py:double": "fails.py failed: ValueError: bad (",
    "fails:double": "fails.py, line 2); correct it",
    "exits.py:double": "exits.py failed: SystemExit: 3 (",
    "syntax.py:double": "syntax.py failed: SyntaxError: invalid syntax (syntax.py, line 1); correct it",
    "needs.py:double": "needs.py failed: ModuleNotFoundError: No module named 'none' (",
    "empty.py:double": "it has no functions",
    "sys:exit": "sys has no source file",
    "null\0.py:double": "null byte",
}  # fmt: skip


@pytest.mark.parametrize(("reference", "message"), CASES.items(), ids=map(repr, CASES))
def test_problems_are_one_line(reference, message, folder):
    (folder / "folder.py").mkdir()
    files = {
        "fails": "\nraise ValueError('bad')",
        "exits": "raise SystemExit(3)",
        "syntax": "def",
        "needs": "import none",
        "empty": "",
    }
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source)
    with pytest.raises(FmnistError) as caught:
        import_function(reference)
    assert message in one_line(caught.value)
    assert "\n" not in str(caught.value)
