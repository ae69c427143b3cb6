"""The documents are true: every command, option, extra, file and module that they name exists."""

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer.main

from fmnist.cli.main import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fmnist"
GUIDES = ["README.md", "CONTRIBUTING.md"]
DOCUMENTS = [*GUIDES, "CHANGELOG.md", "MODEL_CARD.md", "docs/log.md"]
WRITTEN_BY_COMMANDS = {
    "config.json", "environment.json", "history.csv", "curves.png", "weights.safetensors", "model.onnx",
    "model-int8.onnx", "manifest.json", "evaluation.json", "report.html",
}  # fmt: skip
CHOSEN_BY_USERS = {"labels.txt", "labels.csv", "picture.png"}
FILE_NAME = r"[\w.*-][\w./*-]*\.(py|md|ipynb|json|txt|toml|png|html|csv|onnx|safetensors)"
HELP_OPTIONS = {"-h", "--help"}


@cache
def read(document):
    return (ROOT / document).read_text()


def code_blocks(document, *languages):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", read(document), re.DOTALL | re.MULTILINE)
    return [block for language, block in blocks if language in languages]


def inline_code(document):
    text = re.sub(r"^```.*?^```$", "", read(document), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)


def commands(document, program):
    """Return the commands of a document that begin with `program`, without comments."""
    lines = [line for block in code_blocks(document, "sh") for line in block.splitlines()] + inline_code(document)
    lines = [line.split("  #")[0].strip().removeprefix(".venv/bin/") for line in lines]
    return sorted({line for line in lines if re.match(rf"{program}( |$)", line)})


def test_code_blocks_are_found():
    assert "make run\n" in code_blocks("README.md", "sh")
    assert "make test\n" in code_blocks("README.md", "sh")
    assert len(commands("README.md", "fmnist")) > 10


@pytest.mark.parametrize("document", GUIDES)
def test_fmnist_commands_and_options_exist(document):
    group = typer.main.get_command(app)
    found = commands(document, "fmnist")
    assert found
    for line in found:
        command = group
        options = set()
        for word in shlex.split(line)[1:]:
            if word.startswith("-"):
                options.add(word)
            elif command is group:
                assert word in group.commands, line
                command = group.commands[word]
        assert options <= {option for parameter in command.params for option in parameter.opts} | HELP_OPTIONS, line


@pytest.mark.parametrize("document", GUIDES)
def test_make_targets_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = commands(document, "make")
    assert found
    for line in found:
        assert {word for word in line.split()[1:] if "=" not in word} <= targets, line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_extras_exist(document):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"'(?:fmnist|\.)\[([\w,-]+)\]'", read(document)):
        assert set(names.split(",")) <= extras.keys(), names


def test_readme_lists_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = re.search(r"^\| extra \|.*?\n\n", read("README.md"), re.DOTALL | re.MULTILINE)[0]
    first_cells = [line.split("|")[1] for line in table.splitlines()[2:] if line]
    assert set(re.findall(r"`([\w-]+)`", " ".join(first_cells))) == extras.keys()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_links_exist(document):
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", read(document)):
        assert (ROOT / document).parent.joinpath(link).exists(), link
    words = {word for text in [*inline_code(document), *code_blocks(document, "sh", "text")] for word in text.split()}
    names = {word for word in words if re.fullmatch(FILE_NAME, word)}
    for name in names:
        if Path(name).name not in WRITTEN_BY_COMMANDS | CHOSEN_BY_USERS:
            assert list(ROOT.glob(name)) or list(PACKAGE.glob(name)), name


def test_walks_count_their_modules():
    walks = re.findall(
        r"^```text\n([^`]*\.py.*?)^```\n\n(\d+) modules", read("CONTRIBUTING.md"), re.DOTALL | re.MULTILINE
    )
    assert len(walks) == 4
    for diagram, count in walks:
        assert len(set(re.findall(r"[\w/]+\.py", diagram))) == int(count), diagram


def test_contributing_lists_every_part_of_the_package():
    first_cells = re.findall(r"^\| (`.*?) \|", read("CONTRIBUTING.md"), re.MULTILINE)
    listed = set(re.findall(r"`([\w.]+)/?`", " ".join(first_cells)))
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    folders = {path.parent.name for path in PACKAGE.glob("*/*") if not path.parent.name.startswith("_")}
    assert modules | folders <= listed


PRIVATE_WORDS = re.compile(r"strang[e]r|\bm[e]nd|\bl[i]es?\b|\br[o]oms?\b|g[o]es? on with|\bl[o]t\b", re.IGNORECASE)
"""Words that earlier versions used in meanings of their own. (Written so that this file does not contain them.)"""


def test_no_private_vocabulary():
    """Except in the history of the log."""
    files = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("src/**/*.*"), *ROOT.glob("tests/**/*.py")]
    texts = {
        path: path.read_text() for path in files if path.suffix in {".py", ".html", ".md"} and path.name != "log.md"
    }
    assert len(texts) > 100
    assert {path.name: match[0] for path, text in texts.items() if (match := PRIVATE_WORDS.search(text))} == {}
