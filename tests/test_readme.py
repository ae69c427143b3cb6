"""The documents are true: the commands, options, extras, files, modules and output that they show exist."""

import json
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image

import fmnist
from fmnist.cli.main import COMMANDS, app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fmnist"
PAGES = [
    f"docs/{name}.md"
    for name in (
        "adapt",
        "cluster",
        "compare",
        "demo",
        "gpu",
        "install",
        "leaderboard",
        "many-pictures",
        "own",
        "results",
        "resuming",
        "run-folder",
        "scoring",
        "study",
    )
]
GUIDES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", *PAGES]
DOCUMENTS = [*GUIDES, "CHANGELOG.md", "MODEL_CARD.md", "docs/log.md"]
MAX_README_LINES = 130
MAX_SAMPLE_BYTES = 60_000
WRITTEN_BY_COMMANDS = {
    "config.json", "environment.json", "history.csv", "curves.png", "weights.safetensors", "model.onnx",
    "model-int8.onnx", "model-plain.onnx", "model.keras", "manifest.json", "evaluation.json", "predictions.csv",
    "report.html", "adapted.json", "compare.html", "plan.json", "study.json", "study.html", "results.json",
}  # fmt: skip
CHOSEN_BY_USERS = {"labels.txt", "list.txt", "labels.csv", "photo.jpg", "picture.png"}
FILE_NAME = r"[\w.*-][\w./*-]*\.(py|md|ipynb|json|txt|toml|png|jpg|html|csv|onnx|safetensors)"
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
    assert len(commands("README.md", "fmnist")) > 10
    assert {"make run", "make test"} <= set(commands("README.md", "make"))


def test_every_page_is_tested():
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= set(DOCUMENTS)
    assert {path.name for path in ROOT.glob("*.md")} <= set(DOCUMENTS)


def test_readme_is_short():
    assert len(read("README.md").splitlines()) <= MAX_README_LINES


def test_readme_groups_the_commands_like_the_help():
    (block,) = [block for block in code_blocks("README.md", "sh") if block.startswith("# Learn\n")]
    groups = re.findall(r"^# (\w+)\n((?:(?!#).*\n)+)", block, re.MULTILINE)
    assert [title for title, _ in groups] == [*COMMANDS]
    for title, lines in groups[:-1]:
        named = re.findall(r"^fmnist (\w+)", lines, re.MULTILINE)
        assert list(dict.fromkeys(named)) == [function.__name__ for function in COMMANDS[title]]


@pytest.mark.parametrize("document", GUIDES)
def test_fmnist_commands_and_options_exist(document):
    group = typer.main.get_command(app)
    for line in commands(document, "fmnist"):
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
    for line in commands(document, "make"):
        assert {word for word in line.split()[1:] if "=" not in word} <= targets, line


@pytest.mark.parametrize("document", GUIDES)
def test_options_of_the_benchmarks_exist(document):
    for line in commands(document, "python benchmarks/.*"):
        script, *options = line.split()[1:]
        source = (ROOT / script).read_text()
        assert all(f'add_argument("{word}"' in source for word in options if word.startswith("-")), line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_extras_exist(document):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"'(?:fmnist|\.)\[([\w,-]+)\]'", read(document)):
        assert set(names.split(",")) <= extras.keys(), names


def test_every_extra_is_listed():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = re.search(r"^\| extra \|.*?\n\n", read("docs/install.md"), re.DOTALL | re.MULTILINE)[0]
    first_cells = [line.split("|")[1] for line in table.splitlines()[2:] if line]
    assert set(re.findall(r"`([\w-]+)`", " ".join(first_cells))) == extras.keys()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_links_exist(document):
    text = read(document)
    for link in [*re.findall(r"\]\((?!http)([^)#]+)\)", text), *re.findall(r'<img src="([^"]+)"', text)]:
        assert (ROOT / document).parent.joinpath(link).exists(), link
    code = [*inline_code(document), *code_blocks(document, "sh", "text")]
    words = {word.lstrip("@") for part in code for word in part.split()}
    names = {word for word in words if re.fullmatch(FILE_NAME, word)}
    for name in names:
        if Path(name).name not in WRITTEN_BY_COMMANDS | CHOSEN_BY_USERS:
            assert list(ROOT.glob(name)) or list(PACKAGE.glob(name)), name


def test_readme_shows_the_predictions_for_the_samples(cli, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert ".venv/bin/fmnist predict docs/samples" in read("README.md")
    code, output, _ = cli("predict", "docs/samples")
    assert code == 0
    (shown,) = [block for block in code_blocks("README.md", "text") if "docs/samples" in block]
    assert shown == output
    answers = re.findall(r"samples/(\S+) +│ +(\S+) │.*│ +(yes|not sure).*│", output)
    assert answers == [
        ("key.jpg", "Sandal", "not sure"), ("t-shirt.jpg", "T-shirt/top", "yes"), ("trousers.jpg", "Trouser", "yes")
    ]  # fmt: skip


def test_the_bottle_is_not_accepted_as_the_model_card_says():
    assert not fmnist.Classifier.load().classify(ROOT / "docs" / "bottle.jpg").accepted
    assert "docs/bottle.jpg" in read("MODEL_CARD.md")


def test_samples_are_small_and_drawn_by_the_script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from draw_figures import SAMPLES

    assert {path.name for path in (ROOT / "docs" / "samples").iterdir()} == {
        Path(name).name for name in SAMPLES if name.startswith("samples/")
    }
    for name, draw in SAMPLES.items():
        path = ROOT / "docs" / name
        assert path.stat().st_size < MAX_SAMPLE_BYTES
        with Image.open(path) as picture:  # JPEG is lossy, and decoders round differently
            assert np.abs(np.asarray(picture, float) - np.asarray(draw(), float)).mean() < 4, name


def test_python_of_the_readme(monkeypatch, capsys):
    """The part without training is run; of the rest, the names exist."""
    (block,) = code_blocks("README.md", "python")
    assert len(block.splitlines()) <= 10
    monkeypatch.chdir(ROOT)
    exec(block.partition("\n\nrun = ")[0], {})
    assert re.fullmatch(r"T-shirt/top 0\.\d+ True None\n", capsys.readouterr().out)
    names = set(re.findall(r"fmnist\.(\w+)", block))
    assert names >= {"train", "evaluate", "load_model"}
    assert all(hasattr(fmnist, name) for name in names)


def test_gains_of_the_tricks_are_those_that_were_measured():
    result = json.loads((ROOT / "benchmarks" / "results" / "ablation.json").read_text())
    for trick in result["tricks"]:
        low, high = trick["gain_interval_95"]
        row = f"| {trick['title']} | {trick['without']} | {trick['gain_mean']:+.2f} | {low:+.2f} to {high:+.2f} |"
        assert row in read("docs/results.md")
    assert f"n = {result['seeds']} seeds, {100 * result['accuracy_mean']:.2f} % with all tricks" in read(
        "docs/results.md"
    )


def test_rest_requests_of_the_demo_exist():
    from fmnist.demo.server import create_app
    from fmnist.runs.run import open_pretrained

    named = set(re.findall(r"`(GET|POST) (/[\w/.]+)`", read("docs/demo.md")))
    paths = create_app(fmnist.Classifier.load(), open_pretrained().manifest()).openapi()["paths"]
    existing = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert named == existing | {("GET", "/openapi.json")}


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
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("docs/*.md")]
    files = [*pages, *ROOT.glob("src/**/*.*"), *ROOT.glob("tests/**/*.py")]
    texts = {
        path: path.read_text() for path in files if path.suffix in {".py", ".html", ".md"} and path.name != "log.md"
    }
    assert len(texts) > 100
    assert {path.name: match[0] for path, text in texts.items() if (match := PRIVATE_WORDS.search(text))} == {}
