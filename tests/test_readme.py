"""The README tells the truth: every command, flag and file that it names exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from fmnist.cli import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md"]
MADE_BY_A_RUN = {
    "config.json", "environment.json", "history.csv", "curves.png", "weights.safetensors", "model.onnx",
    "model-int8.onnx", "manifest.json", "evaluation.json", "report.html", "labels.txt",
}  # fmt: skip


def code_lines(document):
    text = (ROOT / document).read_text()
    blocks = re.findall(r"```(?:sh|bash|console)?\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()] + inline


def commands(document, program):
    lines = (line.removeprefix(".venv/bin/") for line in code_lines(document))
    return sorted({line for line in lines if re.match(rf"{program}( |$)", line)})


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_fmnist_command_and_flag_exists(document):
    group = typer.main.get_command(app)
    found = commands(document, "fmnist")
    assert found
    for line in found:
        _, *words = shlex.split(line.replace("...", ""))
        if not words or words[0].startswith("-"):
            continue
        assert words[0] in group.commands, line
        known = {flag for parameter in group.commands[words[0]].params for flag in parameter.opts} | {"--help"}
        assert {word for word in words[1:] if word.startswith("--")} <= known, line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_exists(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = commands(document, "make")
    assert found
    for line in found:
        assert {word for word in line.split()[1:] if "=" not in word} <= targets, line


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md", "docs/log.md"])
def test_every_file_and_link_exists(document):
    text = (ROOT / document).read_text()
    links = set(re.findall(r"\]\((?!http)([^)#]+)\)", text))
    named = {
        word
        for line in code_lines(document)
        for word in line.split()
        if re.fullmatch(r"[\w./*-]+\.(py|md|ipynb|json|txt|toml|png|html|csv|onnx|safetensors)", word)
    }
    for name in links | {word for word in named if Path(word).name not in MADE_BY_A_RUN}:
        if "*" in name:
            assert list(ROOT.glob(name)), name
        elif name not in {"picture.png", "walkthrough.py", "walkthrough.ipynb"}:
            assert (ROOT / name).exists(), name


def test_the_readme_has_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert "make run" in text
    assert "make test" in text
