"""Tile stores: what goes in comes out, whole or not at all."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from stainfuser.errors import InputError
from stainfuser.io.tile_store import TileReader, open_tile_writer

ATTRIBUTES = {"slide": "a façade", "mpp": 0.5, "level0_tile_px": 64, "source_sha256": "0" * 64}


@pytest.fixture()
def tiles():
    base = np.linspace(40, 230, 32, dtype=np.float32)
    picture = np.stack([base[:, None] + 0 * base, 0 * base[:, None] + base], axis=-1)
    one = np.concatenate([picture, picture[..., :1]], axis=-1)
    return np.stack([np.clip(one - 2 * i, 0, 255) for i in range(20)]).astype(np.uint8)


def _write(path, tiles, **options):
    with open_tile_writer(path, tile_px=32, attributes=ATTRIBUTES, **options) as writer:
        for row, tile in enumerate(tiles):
            writer.append(tile, 64 * row, 2**40 + row, row % 3)
    return path


def test_raw_tiles_come_back_bit_by_bit(tmp_path, tiles):
    with TileReader(_write(tmp_path / "a.h5", tiles)) as reader:
        assert len(reader) == len(reader.images) == 20
        assert reader.images.shape == (20, 32, 32, 3)
        assert np.array_equal(reader.images[:], tiles)
        assert np.array_equal(reader.images[3], tiles[3])
        assert np.array_equal(reader.images[2:9:3], tiles[2:9:3])
        assert np.array_equal(reader.read([7, 2, 7]), tiles[[7, 2, 7]])
        assert np.array_equal(reader.coords[2], [128, 2**40 + 2])
        assert reader.image_index.tolist()[:4] == [0, 1, 2, 0]
        assert reader.attrs["slide"] == "a façade"
        assert reader.attrs["tile_px"] == 32
        assert reader.image_names == []


def test_the_layout_is_the_one_clam_and_trident_read(tmp_path, tiles):
    with h5py.File(_write(tmp_path / "a.h5", tiles)) as file:
        assert (file["images"].dtype, file["coords"].dtype) == (np.uint8, np.int64)
        assert file["images"].chunks == (1, 32, 32, 3)
        assert file["coords"].shape == (20, 2)


def test_jpeg_tiles_are_decoded_on_the_way(tmp_path, tiles):
    path = _write(tmp_path / "a.h5", tiles, encoding="jpeg", jpeg_quality=95)
    with TileReader(path) as reader:
        assert reader.images.shape == (20, 32, 32, 3)
        assert np.abs(reader.images[:].astype(int) - tiles).mean() < 2
        assert reader.images[4].dtype == np.uint8


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_the_same_tiles_give_the_same_bytes(tmp_path, tiles, encoding):
    a = _write(tmp_path / "a.h5", tiles, encoding=encoding)
    b = _write(tmp_path / "b.h5", tiles, encoding=encoding)
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_a_store_may_be_empty(tmp_path, encoding):
    with TileReader(_write(tmp_path / "a.h5", [], encoding=encoding)) as reader:
        assert len(reader) == 0
        assert reader.images[:].shape == (0, 32, 32, 3)


def test_image_names_may_be_many(tmp_path, tiles):
    names = [f"tile {i:05d} façade.png" for i in range(10_000)]
    with TileReader(_write(tmp_path / "a.h5", tiles, image_names=names)) as reader:
        assert reader.image_names == names


def test_an_interrupted_write_leaves_nothing(tmp_path, tiles):
    with (
        pytest.raises(KeyboardInterrupt),
        open_tile_writer(tmp_path / "a.h5", tile_px=32, attributes=ATTRIBUTES) as writer,
    ):
        writer.append(tiles[0], 0, 0)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_reader_can_be_sent_to_a_worker(tmp_path, tiles):
    reader = TileReader(_write(tmp_path / "a.h5", tiles))
    assert len(reader) == 20
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).images[1], tiles[1])
    reader.close()
    assert np.array_equal(reader.images[1], tiles[1])


def test_bad_stores_and_encodings_are_one_sentence(tmp_path, tiles):
    (tmp_path / "a.h5").write_bytes(b"not HDF5")
    with pytest.raises(InputError, match="not a readable tile store"):
        len(TileReader(tmp_path / "a.h5"))
    with pytest.raises(InputError, match="gif"):
        _write(tmp_path / "b.h5", tiles, encoding="gif")
