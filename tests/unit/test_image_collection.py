import zipfile

import numpy as np
import pytest
from PIL import Image

from stainfuser.errors import InputError
from stainfuser.io.image_collection import CollectionEntry, read_entry, read_split_table

HEADER = "file,split,stain,licence\n"


def write_table(tmp_path, *lines):
    path = tmp_path / "split.csv"
    path.write_text(HEADER + "".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_committed_table_divides_whole_images(repository):
    entries = read_split_table(repository / "scripts/stainfuser/pretrained/data_split.csv")
    splits = {entry.file: entry.split for entry in entries}
    assert {"train", "validation", "test"} == set(splits.values())
    assert all(split == "test" for file, split in splits.items() if "/fan/" in file)
    assert all(e.split != "train" for e in entries if e.stain != "he")


def test_committed_table_fits_the_folder(repository, shared_data):
    entries = read_split_table(repository / "scripts/stainfuser/pretrained/data_split.csv")
    assert [e.file for e in entries if not (shared_data / e.file).is_file()] == []
    by_name = {entry.file: entry for entry in entries}
    tile = read_entry(shared_data, by_name["nuclei/TCGA-DE-A4MA.zip"])
    assert tile.shape == (512, 512, 3) and tile.dtype == np.uint8


def test_plain_image_is_read(tmp_path):
    Image.fromarray(np.full((4, 5, 3), 7, np.uint8)).save(tmp_path / "a.png")
    image = read_entry(tmp_path, CollectionEntry("a.png", "test", "he", "CC0"))
    assert image.shape == (4, 5, 3) and (image == 7).all()


@pytest.mark.parametrize("line", ["a.png,tests,he,CC0", "a.png,test,he,CC0\na.png,train,he,CC0"])
def test_bad_tables_are_refused(tmp_path, line):
    with pytest.raises(InputError):
        read_split_table(write_table(tmp_path, line))


def test_table_without_a_column_is_refused(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("file,split\na.png,test\n")
    with pytest.raises(InputError, match="columns"):
        read_split_table(path)


def test_missing_file_and_crowded_zip_are_refused(tmp_path):
    with pytest.raises(InputError, match="missing"):
        read_entry(tmp_path, CollectionEntry("a.png", "test", "he", "CC0"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("one.txt", "nothing")
    with pytest.raises(InputError, match="holds 0 images"):
        read_entry(tmp_path, CollectionEntry("b.zip", "test", "he", "CC0"))
