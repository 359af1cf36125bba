"""Atomic files, seeds, stamps, logs and locks."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from stainfuser.errors import InputError, SlideError
from stainfuser.files import atomic_path, exclusive_folder, read_json, sha256_content, sha256_file
from stainfuser.logs import logged
from stainfuser.run_lock import hold_run_lock
from stainfuser.seeds import derive_seed, generator
from stainfuser.stamps import OF_THE_CODE, make_stamp, settings_of


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    final = tmp_path / "table.csv"
    final.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(final) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert final.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_finished_write_replaces_the_file(tmp_path):
    with atomic_path(tmp_path / "new" / "a.png") as partial:
        assert partial.suffix == ".png"
        partial.write_bytes(b"x")
    assert (tmp_path / "new" / "a.png").read_bytes() == b"x"


def _die_while_writing(final):
    with atomic_path(final) as partial:
        partial.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_write_left_is_removed_by_the_next_and_that_of_the_living_is_not(tmp_path):
    final, other = tmp_path / "a [1].h5", tmp_path / "b.h5"
    for path in (final, other):
        killed = multiprocessing.Process(target=_die_while_writing, args=(path,))
        killed.start()
        killed.join()
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_path(final) as living:
        living.write_bytes(b"mine")
        again = multiprocessing.Process(target=_write, args=(final,))
        again.start()
        again.join()
        assert again.exitcode == 0 and living.read_bytes() == b"mine"
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left[1:] == ["a [1].h5"] and left[0].startswith(".b.")
    assert final.read_bytes() == b"mine"


def _write(final):
    with atomic_path(final) as partial:
        partial.write_bytes(b"another's")


def test_seeds_depend_on_purpose_alone():
    assert derive_seed(1, "tiles", "a") == derive_seed(1, "tiles", "a")
    assert len({derive_seed(1, "a"), derive_seed(2, "a"), derive_seed(1, "b")}) == 3
    assert derive_seed(1, "ab", "c") != derive_seed(1, "a", "bc")
    assert generator(1, "x").integers(1 << 30) == generator(1, "x").integers(1 << 30)


def test_fingerprints(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_file(tmp_path / "f").startswith("ba7816bf")
    assert sha256_content({"a": 1, "b": 2}) == sha256_content({"b": 2, "a": 1})


def test_a_stamp_names_rule_configuration_and_inputs():
    stamp = make_stamp("extract_tiles", {"tile_px": 256}, source_sha256="0" * 64)
    assert stamp["rule"] == "extract_tiles"
    assert json.loads(stamp["config"]) == {"tile_px": 256}
    assert stamp["source_sha256"] == "0" * 64


def test_a_stamp_names_code_packages_and_seed_and_no_folder():
    config = {"seed": 7, "weights": "/home/quixotl/vgg.pth"}
    stamp = make_stamp("transfer_style", config)
    assert stamp["seed"] == "7"
    assert json.loads(stamp["config"])["weights"] == "vgg.pth"
    assert len(stamp["sources_sha256"]) == len(stamp["environment_sha256"]) == 64
    assert stamp["commit"]
    assert settings_of(stamp) == {
        key: text for key, text in stamp.items() if key not in OF_THE_CODE
    }
    assert (
        stamp["config_sha256"]
        == make_stamp("any", {**config, "weights": "vgg.pth"})["config_sha256"]
    )


def test_a_user_error_is_one_sentence_and_status_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught, logged(tmp_path / "a.log"):
        raise InputError("x.png", "it is empty", "choose another")
    assert caught.value.code == 1
    assert capsys.readouterr().err == "x.png: it is empty; choose another.\n"
    assert "Traceback" not in (tmp_path / "a.log").read_text()


def test_our_own_error_keeps_its_traceback_in_the_log(tmp_path, capsys):
    with pytest.raises(SystemExit), logged(tmp_path / "a.log"):
        raise ZeroDivisionError("oops")
    assert "Traceback" not in capsys.readouterr().err
    assert "Traceback" in (tmp_path / "a.log").read_text()


def test_a_slide_error_is_remembered(tmp_path):
    failure = tmp_path / "failed" / "s.json"
    with pytest.raises(SystemExit), logged(tmp_path / "a.log", failure_path=failure):
        raise SlideError("s.svs", "corrupt", "a tile is damaged", "copy it again")
    expected = {"verdict": "corrupt", "reason": "a tile is damaged", "remedy": "copy it again"}
    assert read_json(failure) == expected


def _hold(folder: Path, seconds: float, entered) -> None:
    with exclusive_folder(folder):
        entered.set()
        time.sleep(seconds)


def test_a_work_folder_is_held_alone(tmp_path):
    entered = multiprocessing.Event()
    other = multiprocessing.Process(target=_hold, args=(tmp_path, 1.0, entered))
    other.start()
    assert entered.wait(30)
    start = time.monotonic()
    with exclusive_folder(tmp_path):
        assert time.monotonic() - start > 0.5
    other.join()


def test_the_lock_of_a_dead_run_is_cleared_and_that_of_a_live_one_kept(tmp_path):
    (tmp_path / "locks").mkdir()
    held = hold_run_lock(tmp_path)
    assert held is not None
    assert not (tmp_path / "locks").exists()
    (tmp_path / "locks").mkdir()
    assert hold_run_lock(tmp_path) is None
    assert (tmp_path / "locks").exists()
    held.close()
