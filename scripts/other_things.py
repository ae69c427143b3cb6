"""Draw pictures of things that are no garments, as if somebody had taken a photo of them.

A network that has seen garments alone takes anything for one. Shapes, symbols of a font and emoji are drawn on floors,
walls and cloth: on patches of real photos, and on drawn patterns. Emoji are those of Debian's package
`fonts-noto-color-emoji` (SIL Open Font License); only pictures of them are kept.
"""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = 320
"""Height and width of a picture, in pixels."""
CENTER = SIZE / 2
FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")
EMOJI_FONT = Path(os.environ.get("EMOJI_FONT", "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"))
EMOJI_FONT_SIZE = 109
"""The only size of that font."""
REAL_GROUND_PROBABILITY = 0.7


def characters(*ranges: tuple[int, int]) -> list[str]:
    """Return the characters of ranges of Unicode, both ends included."""
    return [chr(code) for first, last in ranges for code in range(first, last + 1)]


SYMBOLS = characters(
    (0x2190, 0x21FF), (0x25A0, 0x25FF), (0x2600, 0x26FF), (0x2700, 0x27BF), (0x1D300, 0x1D356), (0x1F030, 0x1F093),
    (0x0531, 0x0556), (0x10D0, 0x10F0),
)  # fmt: skip
"""Arrows, shapes, symbols, ornaments, tetragrams, domino tiles, Armenian and Georgian letters."""
NOT_DRAWN = {
    *characters((0x1F392, 0x1F393), (0x1F3C2, 0x1F3C4), (0x1F3CA, 0x1F3CC), (0x1F6B4, 0x1F6B6)),
    *"🎅🎽🎩💼🏇🚣🛀🛍",
}  # fmt: skip
"""Garments, bags, and persons, who wear garments."""
EMOJI = {
    "objects": characters((0x1F3A0, 0x1F3E0), (0x1F4A0, 0x1F4FF), (0x1F500, 0x1F53D), (0x1F6AA, 0x1F6BF)),
    "vehicles": characters((0x1F680, 0x1F6A8), (0x1F6F3, 0x1F6FC)),
    "buildings": characters((0x1F3E1, 0x1F3F0)),
    "nature": characters((0x1F300, 0x1F320), (0x1F330, 0x1F344)),
    "faces": characters((0x1F600, 0x1F637), (0x1F910, 0x1F92F)),
    "animals": characters((0x1F400, 0x1F43E), (0x1F980, 0x1F9A0)),
    "food": characters((0x1F345, 0x1F37E), (0x1F950, 0x1F96F)),
}

Draw = ImageDraw.ImageDraw
Rng = np.random.Generator


def draw_symbol(draw: Draw, rng: Rng) -> None:
    """Draw a symbol of a font."""
    font = ImageFont.truetype(FONTS / "DejaVuSans-Bold.ttf", int(rng.integers(170, 330)))
    draw.text((CENTER, CENTER), str(rng.choice(SYMBOLS)), font=font, fill=255, anchor="mm")


def draw_polygon(draw: Draw, rng: Rng) -> None:
    """Draw a polygon of 3 to 11 corners."""
    num_corners = int(rng.integers(3, 12))
    angles, radii = np.sort(rng.uniform(0, 2 * np.pi, num_corners)), rng.uniform(40, 140, num_corners)
    draw.polygon(_points(radii * np.cos(angles), radii * np.sin(angles)), fill=255)


def draw_vessel(draw: Draw, rng: Rng) -> None:
    """Draw a bottle, a vase, a cup or a lamp: something symmetric about an axis, perhaps with a handle."""
    widths = rng.uniform(8, 90, rng.integers(3, 8))
    height = rng.uniform(90, 150)
    y = np.linspace(-height, height, 60)
    x = np.interp(y, np.linspace(-height, height, len(widths)), widths)
    if rng.random() < 0.4:
        x = np.repeat(widths, 60 // len(widths) + 1)[:60]  # in steps
    draw.polygon(_points(np.r_[x, -x[::-1]], np.r_[y, y[::-1]]), fill=255)
    if rng.random() < 0.4:
        radius = rng.uniform(20, 60)
        draw.ellipse(_corners(widths.mean(), 0, radius, radius), outline=255, width=12)


def draw_round_thing(draw: Draw, rng: Rng) -> None:
    """Draw a ball, a plate or a fruit."""
    radii = rng.uniform(50, 145, 2) if rng.random() < 0.5 else [rng.uniform(60, 140)] * 2
    _ellipse(draw, 0, 0, *radii)
    if rng.random() < 0.3:
        _rectangle(draw, 0, -radii[1] - 10, 6, 15)  # a stalk


def draw_leaves(draw: Draw, rng: Rng) -> None:
    """Draw a plant."""
    along = np.linspace(0, 1, 14)
    for _ in range(rng.integers(4, 14)):
        angle = rng.uniform(-np.pi, 0) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
        x, y = rng.uniform(60, 140) * along, rng.uniform(6, 30) * np.sin(np.pi * along)
        x, y = np.r_[x, x[::-1]], np.r_[y, -y[::-1]]
        cosine, sine = np.cos(angle), np.sin(angle)
        draw.polygon(_points(x * cosine - y * sine, 40 + x * sine + y * cosine), fill=255)


def draw_box(draw: Draw, rng: Rng) -> None:
    """Draw a book, a box, a phone or a pillow."""
    width, height = rng.uniform(50, 145, 2)
    draw.rounded_rectangle(_corners(0, 0, width, height), radius=rng.uniform(0, 35), fill=255)
    for _ in range(rng.integers(0, 5)):
        _rectangle(
            draw, width * rng.uniform(-0.8, 0.8), height * rng.uniform(-0.8, 0.8), 12, 8, int(rng.integers(90, 220))
        )


def draw_tool(draw: Draw, rng: Rng) -> None:
    """Draw a spoon, a fork, a hammer or a brush: a stick with something at its ends."""
    _rectangle(draw, 0, 0, rng.uniform(5, 16), 140)
    for sign in (-1, 1):
        width, height, y = *rng.uniform(18, 60, 2), sign * rng.uniform(90, 130)
        end = rng.integers(4)
        if end == 0:
            _ellipse(draw, 0, y, width, height)
        elif end == 1:
            _rectangle(draw, 0, y, width, height / 2)
        elif end == 2:
            for x in np.linspace(-width, width, 4):
                _rectangle(draw, x, y, 4, height)


def draw_furniture(draw: Draw, rng: Rng) -> None:
    """Draw a table, a chair or a sofa from the side."""
    width, seat, thickness, leg = rng.uniform(70, 140), rng.uniform(-20, 60), rng.uniform(5, 22), rng.uniform(4, 14)
    _rectangle(draw, 0, seat, width, thickness)
    for x in (-width + leg, width - leg, *(() if rng.random() < 0.5 else (-width / 2, width / 2))):
        draw.rectangle((CENTER + x - leg, CENTER + seat, CENTER + x + leg, CENTER + 140), fill=230)
    back = rng.integers(3)
    if back == 0:
        draw.rectangle((CENTER - width, 25, CENTER - width + 3 * leg, CENTER + seat), fill=240)
    elif back == 1:
        top = CENTER - rng.uniform(60, 135)
        draw.rounded_rectangle((CENTER - width, top, CENTER + width, CENTER + seat), radius=18, fill=210)


def draw_digits(draw: Draw, rng: Rng) -> None:
    """Draw a number of one to three digits."""
    text = "".join(map(str, rng.integers(0, 10, rng.integers(1, 4))))
    name = rng.choice(["DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "STIXGeneral.ttf", "cmb10.ttf"])
    size = (300, 210, 150)[len(text) - 1] * rng.uniform(0.75, 1)
    draw.text((CENTER, CENTER), text, font=ImageFont.truetype(FONTS / name, int(size)), fill=255, anchor="mm")


SHAPES: dict[str, Callable[[Draw, Rng], None]] = {
    "symbol": draw_symbol,
    "polygon": draw_polygon,
    "vessel": draw_vessel,
    "round thing": draw_round_thing,
    "leaves": draw_leaves,
    "box": draw_box,
    "tool": draw_tool,
    "furniture": draw_furniture,
    "digits": draw_digits,
}
"""Functions that draw a white shape on black, by kind."""
NOT_TRAINED_ON = ("furniture", "digits", "faces", "animals", "food")
"""Kinds that measure what a network makes of things that it has never seen."""
ALONE = tuple(kind for kind in (*SHAPES, *EMOJI) if kind not in NOT_TRAINED_ON)
TRAINED_ON = (*ALONE, "ground", "several")
"""Kinds to train on. `ground` is a ground with nothing on it, `several` are two to four small things."""


def draw_thing(kind: str, rng: Rng, grounds: Sequence[np.ndarray] = ()) -> Image.Image:
    """Draw a picture of a thing.

    Args:
        kind: one of `TRAINED_ON` and `NOT_TRAINED_ON`.
        rng: random generator.
        grounds: square patches of photos without a garment, (edge, edge, 3) uint8.

    Returns:
        An RGB picture of `SIZE` by `SIZE` pixels.
    """
    pixels = _ground(rng, grounds)
    kinds = {"ground": [], "several": list(rng.choice(ALONE, rng.integers(2, 5)))}.get(kind, [kind])
    for each in kinds:
        layer = _emoji(each, rng) if each in EMOJI else _colored_shape(each, rng, pixels.mean())
        angle = rng.normal(0, 10) if rng.random() < 0.65 else rng.uniform(-180, 180)
        edge = int(SIZE * (rng.uniform(0.55, 1) if len(kinds) == 1 else rng.uniform(0.3, 0.5)))
        layer = layer.rotate(angle, Image.Resampling.BICUBIC).resize((edge, edge), Image.Resampling.BOX)
        free = SIZE - edge
        place = rng.normal(free / 2, free / 8, 2) if len(kinds) == 1 else rng.uniform(0, free, 2)
        placed = Image.new("RGBA", (SIZE, SIZE))
        placed.paste(layer, (int(place[0]), int(place[1])))
        values = np.asarray(placed, np.float32)
        cover = values[..., 3:] / 255
        if rng.random() < 0.5:
            shadow = np.roll(cover, (int(rng.integers(2, 9)), int(rng.integers(-8, 9))), (0, 1))
            pixels = pixels * (1 - 0.35 * shadow)
        pixels = pixels * (1 - cover) + (values[..., :3] + rng.normal(0, 5, pixels.shape)) * cover
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2))) if rng.random() < 0.5 else picture


def _colored_shape(kind: str, rng: Rng, ground_brightness: float) -> Image.Image:
    """Draw a shape with a color and a pattern of its own that stand out from the ground, RGBA."""
    mask = Image.new("L", (SIZE, SIZE))
    SHAPES[kind](ImageDraw.Draw(mask), rng)
    shade = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.7)), np.float32)[..., np.newaxis] / 255
    color = _color(rng)
    while abs(color.mean() - ground_brightness) < 35:
        color = _color(rng)
    pattern = rng.uniform(0, 0.6) * _noise(rng, int(rng.integers(2, 30)), 1)
    if rng.random() < 0.4:
        pattern = pattern + rng.uniform(0, 0.9) * _noise(rng, int(rng.integers(2, 12)), 3)
    colors = np.clip((color + pattern) * (0.75 + 0.25 * shade), 0, 255)
    return Image.fromarray(np.concatenate([colors, 255 * np.minimum(1, 3 * shade)], axis=2).astype(np.uint8))


def _emoji(kind: str, rng: Rng) -> Image.Image:
    """Draw an emoji, RGBA."""
    while True:
        picture = Image.new("RGBA", (160, 160))
        character = str(rng.choice([each for each in EMOJI[kind] if each not in NOT_DRAWN]))
        ImageDraw.Draw(picture).text((80, 80), character, font=_emoji_font(), embedded_color=True, anchor="mm")
        if np.asarray(picture)[..., 3].mean() > 20:  # the font has it
            break
    cropped = picture.crop(picture.getbbox())
    edge = max(cropped.size)
    square = Image.new("RGBA", (edge, edge))
    square.paste(cropped, ((edge - cropped.width) // 2, (edge - cropped.height) // 2))
    return square.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


@cache
def _emoji_font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(EMOJI_FONT, EMOJI_FONT_SIZE)


def _ground(rng: Rng, grounds: Sequence[np.ndarray]) -> np.ndarray:
    """Return a floor, a wall or a cloth, (`SIZE`, `SIZE`, 3) float32."""
    if len(grounds) and rng.random() < REAL_GROUND_PROBABILITY:
        patch = np.rot90(grounds[int(rng.integers(len(grounds)))], int(rng.integers(4)))
        picture = Image.fromarray(np.ascontiguousarray(patch)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        return np.asarray(picture, np.float32)
    pixels = np.ones((SIZE, SIZE, 3), np.float32) * (0.6 * _color(rng) + 0.4 * rng.uniform(60, 220))
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    match rng.integers(5):
        case 1:  # stripes
            angle, period = rng.uniform(0, np.pi), rng.uniform(0.03, 0.3)
            is_stripe = (x * np.cos(angle) + y * np.sin(angle)) / period % 1 < rng.uniform(0.03, 0.5)
            pixels += rng.uniform(-50, 50, 3) * is_stripe[..., np.newaxis]
        case 2:  # tiles
            number = rng.uniform(3, 10)
            is_joint = (x * number % 1 < 0.06) | (y * number * rng.uniform(0.5, 1) % 1 < 0.06)
            pixels += rng.uniform(-40, 40) * is_joint[..., np.newaxis]
        case 3:  # wood
            pixels += rng.uniform(0.1, 0.5) * np.repeat(_noise(rng, 64, 1)[:, : SIZE // 8], 8, axis=1)
        case 4:  # a rug
            pixels += rng.uniform(0.1, 0.7) * _noise(rng, int(rng.integers(3, 40)), 3)
    pixels += rng.uniform(0, 0.4) * _noise(rng, 4, 1) + rng.normal(0, rng.uniform(0, 8), pixels.shape)
    return np.clip(pixels, 0, 255)


def _noise(rng: Rng, num_cells: int, num_channels: int) -> np.ndarray:
    """Return smooth noise of the given number of cells in each direction, (`SIZE`, `SIZE`, channels), -128 to 127."""
    cells = rng.integers(0, 256, (num_cells, num_cells, num_channels), np.uint8)
    channels = [
        Image.fromarray(cells[..., channel]).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        for channel in range(num_channels)
    ]
    return np.stack([np.asarray(channel, np.float32) for channel in channels], axis=2) - 128


def _color(rng: Rng) -> np.ndarray:
    """Return a color of any saturation, (3,) from 0 to 255."""
    color = rng.integers(0, 256, 3)
    return np.asarray(color.mean() + rng.random() * (color - color.mean()), np.float32)


def _points(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    return [(CENTER + float(a), CENTER + float(b)) for a, b in zip(x, y, strict=True)]


def _corners(x: float, y: float, half_width: float, half_height: float) -> tuple[float, float, float, float]:
    """Return the box of a shape whose center is (x, y) from the center of the picture."""
    return CENTER + x - half_width, CENTER + y - half_height, CENTER + x + half_width, CENTER + y + half_height


def _rectangle(draw: Draw, x: float, y: float, half_width: float, half_height: float, fill: int = 255) -> None:
    draw.rectangle(_corners(x, y, half_width, half_height), fill=fill)


def _ellipse(draw: Draw, x: float, y: float, half_width: float, half_height: float) -> None:
    draw.ellipse(_corners(x, y, half_width, half_height), fill=255)
