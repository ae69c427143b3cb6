"""Check that the tests notice mistakes in the code: python scripts/mutate.py --count 40.

Each mutation changes one comparison, constant, operator or return value of a module in a copy of the package, and runs
the quick tests of that module. A mutation is detected if a test fails. The table at the end lists all of them; the exit
code is 1 if fewer than nine of ten are detected.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fmnist"
KERAS_HOME = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
MODULES = {
    "cli/learn.py": ["test_cli.py", "training/test_resume.py"],
    "cli/use.py": ["test_cli.py"],
    "data/dataset.py": ["data/test_dataset.py", "data/test_damaged_data.py"],
    "data/formats.py": ["data/test_dataset.py", "data/test_damaged_data.py"],
    "documents.py": ["test_documents.py", "test_config.py", "runs"],
    "evaluation/answers.py": ["evaluation/test_score.py"],
    "evaluation/find_format.py": ["evaluation/test_score.py"],
    "evaluation/score.py": ["evaluation/test_score.py"],
    "export/calibration.py": ["export/test_calibration.py", "export/test_onnx.py"],
    "export/graph.py": ["export/test_onnx.py", "inference/test_classifier.py"],
    "export/onnx.py": ["export", "training/test_resume.py"],
    "export/quantize.py": ["export/test_quantize.py"],
    "files.py": ["test_files.py"],
    "inference/classifier.py": ["inference/test_classifier.py"],
    "inference/dataset_image.py": ["inference/test_photo.py"],
    "inference/metadata.py": ["inference/test_picture.py"],
    "inference/photo.py": ["inference/test_photo.py"],
    "inference/rejection.py": ["inference/test_rejection.py", "inference/test_classifier.py"],
    "metrics.py": ["test_metrics.py"],
    "models/muon.py": ["models/test_muon.py"],
    "models/networks.py": ["models/test_networks.py"],
    "runs/run.py": ["runs", "training/test_resume.py", "inference/test_classifier.py", "export/test_quantize.py"],
    "training/augment.py": ["training/test_augment.py", "training/test_epochs.py"],
    "training/checkpoints.py": ["training/test_checkpoints.py", "training/test_resume.py"],
    "training/epochs.py": ["training/test_epochs.py", "training/test_resume.py"],
}
"""Module to its tests, in `tests/`."""
COMPARISONS = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
               ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}  # fmt: skip
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


def mutate(node: ast.AST) -> bool:
    """Change a node in place. Return whether it is one that can be changed."""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARISONS:
            node.ops = [COMPARISONS[type(operator)]()]
        case ast.BinOp(op=operator) if type(operator) in OPERATORS:
            node.op = OPERATORS[type(operator)]()
        case ast.Constant(value=bool(value)):
            node.value = not value
        case ast.Constant(value=int(value) | float(value)):
            node.value = value + 1
        case ast.BoolOp(op=operator):
            node.op = ast.And() if isinstance(operator, ast.Or) else ast.Or()
        case ast.Return(value=ast.expr()):
            node.value = ast.Constant(None)
        case _:
            return False
    return True


def mutations(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield each mutation of a module: line, what was changed, and the changed source."""
    tree = ast.parse(source)
    for index, node in enumerate(ast.walk(tree)):
        changed = copy.deepcopy(tree)
        target = next(other for number, other in enumerate(ast.walk(changed)) if number == index)
        if mutate(target):
            yield getattr(node, "lineno", 0), f"{ast.unparse(node)} -> {ast.unparse(target)}", ast.unparse(changed)


def is_detected(folder: Path, module: str, source: str) -> bool:
    """Run the tests of a module with another source in a copy of the package."""
    path, original = folder / "fmnist" / module, (PACKAGE / module).read_text()
    path.write_text(source)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    command += [str(ROOT / "tests" / name) for name in MODULES[module]]
    try:
        # Broken code must not get at the user's own data.
        keras_home = shutil.copytree(KERAS_HOME, folder / "keras-home", dirs_exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(folder), "KERAS_HOME": str(keras_home)}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, timeout=600, check=False)
        return done.returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(original)
        shutil.rmtree(folder / "keras-home")


def main() -> None:
    """Draw mutations, evenly over the modules, and print which were detected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, num_detected = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory(prefix="fmnist-") as folder:
        shutil.copytree(PACKAGE, Path(folder) / "fmnist")
        for number in range(arguments.count):
            module = list(MODULES)[number % len(MODULES)]
            line, change, source = rng.choice(list(mutations((PACKAGE / module).read_text())))
            detected = is_detected(Path(folder), module, source)
            num_detected += detected
            print(f"| {module}:{line} | `{change[:90]}` | {'yes' if detected else 'NO'} |", flush=True)
    print(f"{num_detected} of {arguments.count} detected")
    sys.exit(num_detected < 0.9 * arguments.count)


if __name__ == "__main__":
    main()
