from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stainfuser.pictures import contact_sheet, flat_patch, save_picture, split_patch

RED = np.full((20, 20, 3), (200, 10, 10), np.uint8)
GREEN_WIDE = np.full((10, 40, 3), (10, 180, 10), np.uint8)


def count(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == np.array(colour, np.uint8)).all(-1).sum())


def test_sheet_holds_every_image_at_its_cell_size() -> None:
    sheet = contact_sheet([[RED, GREEN_WIDE], [None, RED]], cell_px=40)
    assert count(sheet, (200, 10, 10)) == 2 * 40 * 40
    assert count(sheet, (10, 180, 10)) == 40 * 10


def test_titles_widen_the_sheet_and_leave_ink() -> None:
    plain = contact_sheet([[RED]], cell_px=40)
    titled = contact_sheet(
        [[RED]],
        title="A sheet",
        column_titles=["source"],
        row_titles=["cluster 1\n12 tiles"],
        cell_px=40,
    )
    assert titled.shape[0] > plain.shape[0]
    assert titled.shape[1] > plain.shape[1]
    assert count(titled, (38, 34, 48)) > 20


def test_empty_and_grey_images_are_accepted() -> None:
    assert contact_sheet([], title="nothing").ndim == 3
    sheet = contact_sheet([[np.full((8, 8), 77, np.uint8)]], cell_px=16)
    assert count(sheet, (77, 77, 77)) == 256


def test_patches() -> None:
    assert flat_patch((1, 2, 300), 4).tolist() == [[[1, 2, 255]] * 4] * 4
    halves = split_patch([(255, 0, 0), (0, 0, 255)], 10)
    assert (halves[:5] == (255, 0, 0)).all()
    assert (halves[5:] == (0, 0, 255)).all()


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg"])
def test_saved_pictures_are_the_same_bytes_each_time(tmp_path, name: str) -> None:
    sheet = contact_sheet([[RED, GREEN_WIDE]], title="twice")
    save_picture(tmp_path / name, sheet)
    first = (tmp_path / name).read_bytes()
    save_picture(tmp_path / name, sheet)
    assert (tmp_path / name).read_bytes() == first
    with Image.open(tmp_path / name) as picture:
        assert picture.size == sheet.shape[1::-1]
