"""Draw the README's figures from a finished, evaluated run: python docs/build.py RUN."""

import json
import sys
from pathlib import Path

from fmnist import plots, runs

FOLDER = Path(__file__).parent


def main() -> None:
    """Draw curves.png and samples.png beside this file."""
    run = runs.open_run(sys.argv[1])
    evaluation = json.loads((run.folder / "evaluation.json").read_text())
    samples = evaluation["samples"]
    images = run.load_data().test_images[[sample["index"] for sample in samples]]
    plots.save(plots.samples(images, samples, tuple(evaluation["class_names"])), FOLDER / "samples.png")
    plots.save(plots.training_curves(run.history()), FOLDER / "curves.png")


if __name__ == "__main__":
    main()
