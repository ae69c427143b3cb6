"""Draw the README's figures from a finished, evaluated run: python scripts/draw_figures.py RUN."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fmnist import plots
from fmnist.inference.classifier import Classifier
from fmnist.runs.run import Run, open_run

FOLDER = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Draw the figures into the folder of the documentation."""
    draw_figures(open_run(sys.argv[1]), FOLDER)


def draw_figures(run: Run, folder: Path) -> None:
    """Draw `curves.png` and `samples.png` of an evaluated run, and `photo.png` of the pretrained model."""
    evaluation = json.loads((run.folder / "evaluation.json").read_text())
    samples = evaluation["samples"]
    images = run.load_data().test_images[[sample["index"] for sample in samples]]
    plots.save(plots.samples(images, samples, tuple(evaluation["class_names"])), folder / "samples.png")
    plots.save(plots.training_curves(run.history()), folder / "curves.png")
    plots.save(plots.prediction(Classifier.load().classify(draw_shirt())), folder / "photo.png")


def draw_shirt() -> Image.Image:
    """Draw a slightly rotated T-shirt on wooden planks, so that the README needs no photo with a license of its own."""
    generator = np.random.default_rng(0)
    width, height = 480, 560
    gaps = np.where(np.arange(height) % 80 < 3, -40, 0)[:, np.newaxis, np.newaxis]
    grain = generator.normal(0, 6, (height, 1, 1)) + generator.normal(0, 4, (height, width, 1))
    planks = np.array([190, 158, 118]) + gaps + grain
    picture = Image.fromarray(np.clip(planks, 0, 255).astype(np.uint8))
    half = [(40, 70), (70, 52), (168, 96), (196, 190), (142, 216), (116, 178), (118, 452), (0, 462)]
    outline = [(240 + x, y) for x, y in half] + [(240 - x, y) for x, y in reversed(half)]
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    ImageDraw.Draw(mask).ellipse((196, 40, 284, 104), fill=0)
    folds = generator.normal(0, 1, (7, 6))
    shading = Image.fromarray((128 + 18 * folds).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    cloth = np.array([38, 74, 128]) + 0.9 * (np.asarray(shading, float)[..., np.newaxis] - 128)
    cloth = cloth + generator.normal(0, 4, (height, width, 1))
    shirt = Image.fromarray(np.clip(cloth, 0, 255).astype(np.uint8))
    picture.paste(shirt, mask=mask.rotate(4, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1)))
    return picture


if __name__ == "__main__":
    main()
