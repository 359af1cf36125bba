"""What the benchmark sees of the real images, where they are there."""

import numpy as np

from stainfuser.diffusion.benchmark_data import is_mosaic, read_images, sheet_windows
from stainfuser.diffusion.head_evaluation import COMPOSITIONS, recolouring_tasks
from stainfuser.io.image_collection import read_split_table
from stainfuser.stain.metrics import ciede2000


def entries_of(repository):
    return read_split_table(repository / "scripts/stainfuser/pretrained/data_split.csv")


def test_every_image_gives_one_window_of_tissue(shared_data, repository):
    images = read_images(shared_data, entries_of(repository), lambda e: e.stain == "he")
    windows = sheet_windows(images)
    assert len(windows) == len(images) == 28
    assert sum(name.startswith("fan/") for name in windows) == sum(map(is_mosaic, images)) == 5
    for name, window in windows.items():
        assert window.dtype == np.uint8 and min(window.shape[:2]) >= 167, name
        # Colour: a window of glass alone has none.
        assert np.ptp(window.astype(int), axis=-1).mean() > 8, name


def test_held_out_tissue_is_recoloured_visibly_and_alike(shared_data, repository):
    name = "images/veta/example2.tif"
    images = read_images(shared_data, entries_of(repository), lambda e: e.file == name)
    tasks = recolouring_tasks(images, 1, 1, "tissue, ")
    assert len(tasks) == 4
    assert {t.pools for t in tasks} == {(f"tissue, {c}",) for c in COMPOSITIONS}
    for task in tasks:
        assert 3 < ciede2000(task.source, task.truth) < 26
        assert not np.array_equal(task.reference, task.truth)
