"""The picture of a map, drawn by Pillow in a few milliseconds; importing matplotlib alone takes a quarter of a second.

All is drawn as numbers of a palette of 256 colours, which is a tenth of the work for whoever writes or reads the file.
The first colours are a ramp from black to white. So text on white can be smooth: between the numbers of black and white
lie those of the greys.
"""

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

MOST_LABELS = 40  # on an axis; of more layers, every second, third, … is named

MOST_NUMBERS = 12  # layers on an axis up to which the values are written into the cells

CELL, SHORTEST, LONGEST = 33, 250, 1000  # pixels: side of a cell; of the whole map, from and to

SMALL, MEDIUM, LARGE = 11, 14, 17  # pixels: layers and values; what the models are; the title

TICK, GAP = 4, 10  # pixels

# Every 17th of matplotlib's magma; in between, straight lines are 4 of 255 away from it at most.
MAGMA = (
    "000004 0b0924 20114b 3b0f70 57157e 721f81 8c2981 a8327d c43c75 de4968 f1605d fa7f5e fe9f6d febf84 fddea0 fcfdbf"
)

BLACK, WHITE = 0, 63  # numbers in the palette, with the greys between

GREY = 51  # for NaN

FIRST, LAST = 64, 255  # the colours of 0 and 1


@cache
def palette() -> np.ndarray:
    """The 256 colours (256, 3) as bytes: a ramp from black to white, then magma."""
    ramp = np.linspace(0, 255, WHITE + 1)[:, None].repeat(3, 1)
    knots = np.array([list(bytes.fromhex(colour)) for colour in MAGMA.split()])
    at = np.linspace(0, len(knots) - 1, LAST - FIRST + 1)
    magma = np.stack([np.interp(at, range(len(knots)), channel) for channel in knots.T], axis=1)
    return np.concatenate([ramp, magma]).round().astype(np.uint8)


def colours_of(values: np.ndarray) -> np.ndarray:
    """The palette's numbers for CKA values: those below 0 (chance) like 0, NaN in grey."""
    numbers = FIRST + (LAST - FIRST) * np.clip(np.nan_to_num(values), 0, 1)
    return np.where(np.isnan(values), GREY, numbers.round()).astype(np.uint8)


def draw(
    matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, row_label: str, column_label: str
) -> "Image":
    """Draw a CKA matrix as ``plot_cka`` does: first layers at the lower left, colours from 0 to 1, NaN in grey.

    Args:
        matrix: (len(rows), len(columns)).
        rows: layers of model A.
        columns: layers of model B.
        title: above the map.
        row_label: what model A is.
        column_label: what model B is.

    Returns:
        The picture, as Pillow has it.
    """
    from PIL import Image, ImageDraw

    width, height = (min(max(CELL * len(names), SHORTEST), LONGEST) for names in (columns, rows))
    up = Image.Transpose.ROTATE_90
    row_names = names_along(tuple(rows), height, upwards=True)
    column_names = names_along(tuple(columns), width).transpose(up)

    # The corners of the map, and where the colour bar begins.
    left, top = 3 * GAP + MEDIUM + row_names.width, 3 * GAP + LARGE
    right, bottom = left + width, top + height
    bar = right + 2 * GAP
    size = (bar + 8 * GAP, bottom + column_names.height + MEDIUM + 3 * GAP)
    lowest = size[1] - MEDIUM - 2 * GAP  # there the name of the columns' model begins
    column_title = text(column_label, MEDIUM, size[0] - 2 * GAP)
    row_title = text(row_label, MEDIUM, lowest - 2 * GAP).transpose(up)

    picture = Image.new("P", size, WHITE)
    picture.putpalette(palette().tobytes())
    picture.paste(row_names, (left - row_names.width, top))
    picture.paste(column_names, (left, bottom))
    picture.paste(row_title, (GAP, centred(row_title.height, (top + bottom) // 2, lowest)))
    picture.paste(column_title, (centred(column_title.width, (left + right) // 2, size[0]), lowest))
    paste_cells(picture, matrix[::-1], (left, top, right, bottom))

    pen = ImageDraw.Draw(picture)
    pen.fontmode = "L"  # smooth
    pen.text(((left + right) / 2, top - GAP), title, BLACK, font(LARGE), "ms")

    paste_cells(picture, np.linspace(1, 0, height)[:, None], (bar, top, bar + 2 * GAP, bottom))
    for tenths in range(0, 11, 2):
        y = bottom - height * tenths / 10
        pen.line((bar + 2 * GAP, y, bar + 2 * GAP + TICK, y), BLACK)
        pen.text((bar + 3 * GAP, y), f"{tenths / 10:.1f}", BLACK, font(MEDIUM), "lm")
    if np.nanmin(matrix, initial=0) < 0:
        pen.polygon([(bar, bottom), (bar + 2 * GAP, bottom), (bar + GAP, bottom + GAP)], BLACK)

    if max(matrix.shape) <= MOST_NUMBERS:
        picture = picture.convert("RGB")  # for smooth text on colours
        write_values(picture, matrix[::-1], (left, top, right, bottom))
    return picture


def paste_cells(picture: "Image", values: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Paste values as coloured cells into a picture, with a black line around them.

    Args:
        picture: with this module's palette.
        values: (rows, columns), the upper row first.
        box: left, upper, right and lower edge of all cells, in pixels.
    """
    from PIL import Image, ImageDraw

    left, top, right, bottom = box
    cells = Image.fromarray(colours_of(values)).resize((right - left, bottom - top), Image.Resampling.NEAREST)
    picture.paste(cells, box)
    ImageDraw.Draw(picture).rectangle((left - 1, top - 1, right, bottom), outline=BLACK)


def write_values(picture: "Image", values: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Write each value into its cell; the arguments are those of ``paste_cells``, with a picture in RGB."""
    from PIL import ImageDraw

    left, top, right, bottom = box
    height, width = (bottom - top) / values.shape[0], (right - left) / values.shape[1]
    pen = ImageDraw.Draw(picture)
    for (i, j), value in np.ndenumerate(values):
        readable = "white" if value < 0.7 else "black"  # on that cell's colour
        centre = left + (j + 0.5) * width, top + (i + 0.5) * height
        pen.text(centre, f"{value:.2f}", readable, font(SMALL - 1), "mm")


@lru_cache(maxsize=4)  # the same in all maps of a run
def names_along(names: tuple[str, ...], length: int, upwards: bool = False) -> "Image":
    """Layers' names along an axis of so many pixels, from top to bottom or ``upwards``, with ticks at their right."""
    from PIL import Image, ImageDraw

    step = math.ceil(len(names) / MOST_LABELS)
    letters = font(SMALL)
    wide = math.ceil(max(map(letters.getlength, names))) + GAP // 2

    strip = Image.new("L", (wide + TICK, length), WHITE)
    pen = ImageDraw.Draw(strip)
    for index in range(0, len(names), step):
        y = (index + 0.5) * length / len(names)
        if upwards:
            y = length - y
        pen.text((wide - GAP // 2, y), names[index], BLACK, letters, "rm")
        pen.line((wide, y, wide + TICK, y), BLACK)
    return strip


def text(words: str, size: int, room: int) -> "Image":
    """A line of text, as large as it needs to be; of what needs more than so many pixels, the end.

    What tells two runs apart is at the end of their paths.
    """
    from PIL import Image, ImageDraw

    letters, shown = font(size), words
    while letters.getlength(shown) > room and words:
        words = words[1:]
        shown = f"...{words}"

    line = Image.new("L", (math.ceil(letters.getlength(shown)) + 1, size + TICK), WHITE)
    ImageDraw.Draw(line).text((0, size), shown, BLACK, letters, "ls")
    return line


def centred(length: int, middle: int, room: int) -> int:
    """Where something begins that is centred, or moved so that it is all to be seen."""
    return min(max(middle - length // 2, GAP), room - GAP - length)


@cache  # with the letters that it has drawn
def font(size: int) -> "FreeTypeFont":
    """Matplotlib's letters, which know most alphabets; without it Pillow's own, which know English."""
    from PIL import ImageFont

    spec = find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size)
    return ImageFont.load_default(size)
