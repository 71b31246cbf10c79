"""The picture of a map: what is where in it, in which colours, and that a run draws it without matplotlib."""

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image, ImageFont

import lightning_hpc
from lightning_hpc.cka import CKAMap
from lightning_hpc.cka.maps import picture
from lightning_hpc.cka.maps.picture import CELL, FIRST, GREY, LONGEST, SHORTEST, colours_of, draw, palette

NAN = np.nan

ROOT = Path(lightning_hpc.__file__).parents[1]


def drawn(matrix, rows=None, columns=None):
    """The pixels (height, width, 3) of a map's picture."""
    matrix = np.asarray(matrix, dtype=float)
    rows = rows or [f"layer{i}" for i in range(len(matrix))]
    columns = columns or [f"layer{i}" for i in range(len(matrix[0]))]
    image = draw(matrix, rows, columns, "CKA", "model", "reference")
    return np.asarray(image.convert("RGB")).astype(int)


def cells(pixels, rows, columns):
    """The colours (rows, columns, 3) near the lower left corner of each cell, found by the black frame of the map."""
    black = (pixels == 0).all(-1)
    top = next(y for y in range(len(black)) if black[y].sum() > SHORTEST)
    left = next(x for x in range(black.shape[1]) if black[top : top + SHORTEST, x].all())
    width, height = max(CELL * columns, SHORTEST), max(CELL * rows, SHORTEST)
    ys = [top + 1 + int((row + 1) * height / rows) - 4 for row in range(rows)]
    xs = [left + 1 + int(column * width / columns) + 3 for column in range(columns)]
    return pixels[np.ix_(ys, xs)]


def test_the_colours_are_those_of_matplotlibs_magma():
    values = np.linspace(0, 1, 500)
    expected = 255 * mpl.colormaps["magma"](values)[:, :3]
    assert abs(palette()[colours_of(values)] - expected).max() < 5
    assert colours_of(np.array([-0.3, 0, NAN, 1, 1 + 1e-9])).tolist() == [FIRST, FIRST, GREY, 255, 255]
    assert palette()[[0, 63]].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("shape", [(2, 3), (14, 20)], ids=["with values", "without values"])
def test_first_layers_are_at_the_lower_left(shape):
    matrix = np.random.default_rng(0).uniform(0, 1, shape)
    matrix[0, 1] = NAN
    expected = palette()[colours_of(matrix)][::-1]
    np.testing.assert_array_equal(cells(drawn(matrix), *shape), expected)


def test_many_layers_and_long_names_fit():
    names = [f"encoder.blocks.{i}.attention.output.dense" for i in range(121)]
    image = draw(np.eye(121), names, names, "CKA", "model", "reference")
    letters = picture.font(picture.SMALL)
    longest = max(map(letters.getlength, names))
    assert all(LONGEST + longest < side < LONGEST + longest + 200 for side in image.size)
    assert image.mode == "P", "one byte for a pixel: the file is written and read in a tenth of the time"


def test_the_ends_of_long_paths_are_to_be_seen():
    """Of two runs, the ends differ; all four edges stay white."""
    path = "runs/study/003-network.width=32,dropout=0.1,lr=0.003-"

    def pixels(*labels):
        image = draw(np.eye(3), list("abc"), list("abc"), "CKA", *labels)
        return np.asarray(image.convert("L")).astype(int)

    first = pixels(path + "0a1b", path + "0a1b")
    edges = np.concatenate([first[:5].ravel(), first[-5:].ravel(), first[:, :5].ravel(), first[:, -5:].ravel()])
    assert (edges == 255).all()
    for labels in ((path + "0a1c", path + "0a1b"), (path + "0a1b", path + "0a1c")):
        assert (pixels(*labels) != first).any()
    assert (pixels("x" + path + "0a1b", "x" + path + "0a1b") == first).all(), "what is left out is at the beginning"


def test_values_below_zero_are_announced_at_the_colour_bar():
    plain, below = drawn(np.eye(14)), drawn(np.eye(14) - 0.01)
    different = np.argwhere((plain != below).any(-1))
    bar = plain.shape[1] - 80
    assert (different[:, 1] >= bar).sum() > 50, "a black triangle"


def test_names_in_any_alphabet(monkeypatch):
    """Matplotlib's letters are used without importing it; where it is not installed, Pillow's own."""
    first, second = (bytes(picture.font(11).getmask(letter)) for letter in "äλ")
    assert first != second, "not both a box"

    monkeypatch.setattr(picture, "find_spec", lambda name: None)
    picture.font.cache_clear()
    try:
        assert isinstance(picture.font(11), ImageFont.FreeTypeFont) and picture.font(11).getname()[0] != "DejaVu Sans"
        assert drawn(np.eye(3)).shape[2] == 3
    finally:
        picture.font.cache_clear()


def test_saving_needs_no_matplotlib(tmp_path):
    code = (
        "import sys, numpy as np; from lightning_hpc.cka import CKAMap;"
        "CKAMap(np.eye(3), list('abc'), list('abc'), 64).save('map');"
        "assert not any(name.partition('.')[0] == 'matplotlib' for name in set(sys.modules) - before)"
    )
    # torchmetrics imports matplotlib by itself, except in a run, where stand-ins answer.
    prepare = f"import sys; sys.path.insert(0, {str(ROOT)!r});"
    prepare += (
        "from lightning_hpc.stand_ins import import_torchmetrics; import_torchmetrics(); before = set(sys.modules);"
    )
    result = subprocess.run([sys.executable, "-c", prepare + code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "map.png") as image:
        assert image.format == "PNG" and min(image.size) > 250


def test_the_picture_that_is_returned_is_the_one_in_the_file(tmp_path):
    cka_map = CKAMap(np.linspace(0, 1, 225).reshape(15, 15), *2 * [[f"layer{i}" for i in range(15)]], samples=64)
    returned = cka_map.save(tmp_path / "map")
    with Image.open(tmp_path / "map.png") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(returned.convert("RGB")))
