"""Messages: every command in them can be pasted into a shell."""

import ast
import re
import shlex
from pathlib import Path

import pytest

import fmnist
from fmnist.errors import FmnistError, quote

PACKAGE = Path(fmnist.__file__).parent
QUOTED = {"quote(folder)", "quote(run)", "quote(out)", "quote(self.folder)", "quote(run.folder)", "folder"}
"""Expressions in commands that stand for a quoted path. `folder` is quoted where it is set, in `Run.manifest`."""
CONSTANT = {
    "TENSORFLOW_EXTRA",
    "EXTRAS[package]",
    "' --int8' if file == INT8_FILE else ''",
    "' '.join(names)",
    "','.join(installed)",
}


def commands_in_messages():
    """The commands in backticks in all texts of the package, with their expressions."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                text = "".join(
                    part.value if isinstance(part, ast.Constant) else "{" + ast.unparse(part.value) + "}"
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            else:
                continue
            yield from re.findall(r"`((?:fmnist|pip) [^`]+)`", text)


def test_paths_in_commands_are_quoted():
    commands = list(commands_in_messages())
    assert len(commands) > 20
    for command in commands:
        expressions = set(re.findall(r"\{([^}]*)\}", command))
        assert expressions <= QUOTED | CONSTANT, command


@pytest.mark.parametrize("name", ["my run", "it's", "$HOME", "a;b", "ä", "-x"])
def test_a_command_for_a_run_with_a_special_name_can_be_pasted(name, copied_run):
    folder = copied_run.folder.rename(copied_run.folder.with_name(name))
    (folder / "manifest.json").unlink()
    with pytest.raises(FmnistError) as caught:
        fmnist.Classifier.load(folder)
    export, resume = (shlex.split(command) for command in re.findall(r"`([^`]*)`", str(caught.value)))
    assert export == ["fmnist", "export", str(folder)]
    assert resume == ["fmnist", "train", "--resume", str(folder)]


def test_windows_quotes_with_double_quotes(monkeypatch):
    monkeypatch.setattr("fmnist.errors.os.name", "nt")
    assert quote("my run") == '"my run"'
