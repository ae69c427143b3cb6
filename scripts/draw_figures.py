"""Draw the figures of the documentation.

python scripts/draw_figures.py RUN draws those of a finished, evaluated run, and the sample pictures. Without RUN, only
the sample pictures.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fmnist import curves, plots
from fmnist.inference.classifier import Classifier
from fmnist.runs.run import Run, open_run

FOLDER = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT = 480, 560
CENTER = WIDTH // 2
Points = list[tuple[int, int]]


def main() -> None:
    """Draw the figures into the folder of the documentation."""
    if len(sys.argv) > 1:
        draw_figures(open_run(sys.argv[1]), FOLDER)
    draw_samples(FOLDER)


def draw_figures(run: Run, folder: Path) -> None:
    """Draw `curves.png` and `samples.png` of an evaluated run, and `photo.png` of the pretrained model."""
    evaluation = json.loads((run.folder / "evaluation.json").read_text())
    samples = evaluation["samples"]
    images = run.load_data().test_images[[sample["index"] for sample in samples]]
    plots.save(plots.samples(images, samples, tuple(evaluation["class_names"])), folder / "samples.png")
    plots.save(curves.training_curves(run.history(), run.config.first_hard_epoch), folder / "curves.png")
    plots.save(plots.prediction(Classifier.load().classify(draw_shirt())), folder / "photo.png")


def draw_samples(folder: Path) -> None:
    """Draw the pictures of `SAMPLES`, to try `fmnist predict` with. No photo with a license of its own is needed."""
    (folder / "samples").mkdir(exist_ok=True)
    for name, draw in SAMPLES.items():
        draw().save(folder / name, quality=85)


def draw_shirt() -> Image.Image:
    """Draw a slightly rotated T-shirt on wooden planks."""
    generator = np.random.default_rng(0)
    background = _draw_planks(generator)
    mask = _draw_symmetric([(40, 70), (70, 60), (120, 78), (205, 150), (172, 215), (126, 178), (128, 470), (0, 478)])
    ImageDraw.Draw(mask).ellipse((CENTER - 46, 30, CENTER + 46, 104), fill=0)
    seams = [[(120, 80), (126, 178)], [(196, 146), (164, 206)], [(0, 456), (128, 456)]]
    return _lay(generator, background, mask, color=(38, 74, 128), angle=3, seams=seams)


def draw_trousers() -> Image.Image:
    """Draw slightly rotated trousers on wooden planks."""
    generator = np.random.default_rng(0)
    background = _draw_planks(generator)
    mask = _draw_symmetric([(74, 40), (80, 90), (92, 200), (84, 350), (74, 528), (24, 530), (16, 350), (0, 205)])
    seams = [
        [(0, 58), (76, 58)],
        [(0, 40), (0, 205)],
        [(74, 90), (44, 70)],
        [(24, 515), (76, 513)],
        [(50, 60), (52, 520)],
    ]
    return _lay(generator, background, mask, color=(52, 64, 92), angle=-3, seams=seams)


def draw_key() -> Image.Image:
    """Draw a door key on a bed sheet: no garment, and rejected."""
    generator = np.random.default_rng(0)
    background = _draw_sheet(generator)
    mask = Image.new("L", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(mask)
    pen.ellipse((160, 60, 320, 220), fill=255)
    pen.ellipse((200, 90, 280, 170), fill=0)
    for box in ((224, 210, 256, 500), (256, 430, 310, 460), (256, 470, 300, 500)):
        pen.rectangle(box, fill=255)
    return _lay(generator, background, mask, color=(140, 104, 40), angle=0)


def draw_bottle() -> Image.Image:
    """Draw a bottle on a bed sheet: no garment, and rejected."""
    generator = np.random.default_rng(0)
    background = _draw_sheet(generator)
    mask = _draw_symmetric([(25, 40), (25, 150), (70, 250), (70, 520)])
    return _lay(generator, background, mask, color=(60, 100, 60), angle=0)


SAMPLES: dict[str, Callable[[], Image.Image]] = {
    "samples/t-shirt.jpg": draw_shirt,
    "samples/trousers.jpg": draw_trousers,
    "samples/key.jpg": draw_key,
    "bottle.jpg": draw_bottle,
}
"""File name to the function that draws it."""


def _draw_planks(generator: np.random.Generator) -> np.ndarray:
    """Draw wooden planks, (height, width, 3)."""
    gaps = np.where(np.arange(HEIGHT) % 80 < 3, -40, 0)[:, np.newaxis, np.newaxis]
    grain = generator.normal(0, 6, (HEIGHT, 1, 1)) + generator.normal(0, 4, (HEIGHT, WIDTH, 1))
    return np.array([190, 158, 118]) + gaps + grain


def _draw_sheet(generator: np.random.Generator) -> np.ndarray:
    """Draw a white bed sheet with soft folds, (height, width, 3)."""
    folds = _draw_folds(generator, (9, 4), 10)
    return np.array([226, 222, 214]) + 0.8 * folds + generator.normal(0, 2, (HEIGHT, WIDTH, 1))


def _draw_folds(generator: np.random.Generator, shape: tuple[int, int], contrast: float) -> np.ndarray:
    """Draw smooth random light and shadow around 0, (height, width, 1), from a coarse grid of `shape`."""
    grid = (128 + contrast * generator.normal(0, 1, shape)).astype(np.uint8)
    smooth = Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return np.asarray(smooth, float)[..., np.newaxis] - 128


def _draw_symmetric(half: Points) -> Image.Image:
    """Draw the mask of a symmetric outline. Its right half is given, from top to bottom, relative to the middle."""
    mask = Image.new("L", (WIDTH, HEIGHT))
    outline = [(CENTER + x, y) for x, y in half] + [(CENTER - x, y) for x, y in reversed(half)]
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    return mask


def _lay(
    generator: np.random.Generator,
    background: np.ndarray,
    mask: Image.Image,
    color: tuple[int, int, int],
    angle: float,
    seams: Sequence[Points] = (),
) -> Image.Image:
    """Lay an object of one color, with light and shadow, on a background.

    Args:
        generator: random generator.
        background: (height, width, 3).
        mask: of the object.
        color: of the object.
        angle: degrees by which it is rotated.
        seams: darker lines on its right half, mirrored to the left; relative to the middle.
    """
    surface = np.array(color) + 0.9 * _draw_folds(generator, (9, 8), 30) + generator.normal(0, 6, (HEIGHT, WIDTH, 1))
    thing = Image.fromarray(np.clip(surface, 0, 255).astype(np.uint8))
    for seam in seams:
        for side in (1, -1):
            line = [(CENTER + side * x, y) for x, y in seam]
            ImageDraw.Draw(thing).line(line, fill=tuple(int(0.62 * part) for part in color), width=3)
    shadow = np.asarray(mask.rotate(angle).filter(ImageFilter.GaussianBlur(8)), float)[..., np.newaxis] / 255
    shaded = background - 45 * np.roll(shadow, (6, 5), (0, 1))
    picture = Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8))
    rotated = mask.rotate(angle, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
    picture.paste(thing.rotate(angle, Image.Resampling.BICUBIC), mask=rotated)
    return picture


if __name__ == "__main__":
    main()
