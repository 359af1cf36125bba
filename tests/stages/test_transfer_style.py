from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from pair_stages import Workspace
from PIL import Image

from stainfuser.errors import ConfigError, InputError
from stainfuser.io.image_store import ImageStore
from stainfuser.io.shards import read_shard_info
from stainfuser.stain.recolouring import Recolouring
from stainfuser.stain.style import class_guided


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "results")
    workspace.add_target("mine")
    workspace.cluster()
    workspace.plan()
    return workspace


def read_stylized(shard: Path) -> np.ndarray:
    with h5py.File(shard) as file:
        return file["stylized"][:]


def test_a_shard_holds_its_planned_sources_in_order(workspace):
    shard = workspace.transfer("t001")
    plan = pd.read_csv(workspace.path("pairs/plan.csv"))
    info = read_shard_info(shard)
    with ImageStore(workspace.path("pairs/sources.h5")) as sources:
        names = [sources.ids[index] for index in info.source_index]
        assert names == plan[plan.target == "t001"].source.tolist()
        with ImageStore(workspace.path("pairs/targets.h5")) as targets:
            expected = class_guided(sources[info.source_index[2]], targets[1])
    np.testing.assert_array_equal(read_stylized(shard)[2], expected)
    assert not workspace.path("work/t001").exists()


def test_scores_are_sensible(workspace):
    scores = read_shard_info(workspace.transfer()).scores
    assert set(scores) == {
        "style_distance",
        "sliced_wasserstein",
        "gradient_correlation",
        "source_delta_e",
    }
    assert all(np.isfinite(values).all() for values in scores.values())
    assert scores["gradient_correlation"].min() > 0.85
    assert scores["style_distance"].max() < 0.3


def test_the_contact_sheet_is_a_picture(workspace):
    workspace.transfer()
    with Image.open(workspace.path("pairs/sheets/t000.jpg")) as sheet:
        assert sheet.width > 9 * 128
        assert sheet.height > 2 * 128


def test_shards_carry_a_stamp_and_no_paths(workspace, tmp_path):
    shard = workspace.transfer()
    attrs = read_shard_info(shard).attrs
    assert attrs["rule"] == "transfer_style"
    assert '"method": "class_guided"' in attrs["config"]
    assert "iterations" not in attrs["config"]
    assert str(tmp_path).encode() not in shard.read_bytes()


def test_a_second_run_gives_the_same_bytes(workspace):
    first = workspace.transfer().read_bytes()
    sheet = workspace.path("pairs/sheets/t000.jpg").read_bytes()
    time.sleep(1.1)
    assert workspace.transfer().read_bytes() == first
    assert workspace.path("pairs/sheets/t000.jpg").read_bytes() == sheet


SLOW_RUN = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from pair_stages import Workspace
import stainfuser.stages.transfer_style as stage
stage.ROWS_PER_COMMIT = 1
fit = stage.fit_style
def slow_fit(*looks):
    time.sleep(0.15)
    return fit(*looks)
stage.fit_style = slow_fit
workspace = Workspace.__new__(Workspace)
workspace.root, workspace.tiles, workspace.targets = Path({root!r}), [], []
workspace.transfer()
"""


def test_a_killed_run_goes_on_and_gives_the_same_bytes(workspace, repository, caplog):
    undisturbed = workspace.transfer().read_bytes()
    shard, work = workspace.path("pairs/stylized/t000.h5"), workspace.path("work/t000")
    shard.unlink()
    folders = [repository / "scripts", repository / "tests", repository / "tests/stages"]
    code = SLOW_RUN.format(paths=[str(f) for f in folders], root=str(workspace.root))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    counter = work / "finished.json"
    deadline = time.monotonic() + 60
    while not (counter.is_file() and '"finished": 2' in counter.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not shard.exists()
    with caplog.at_level("INFO", "stainfuser"):
        workspace.transfer()
    assert "going on after" in caplog.text
    assert shard.read_bytes() == undisturbed
    assert not work.exists()


def test_rows_of_another_configuration_are_not_kept(workspace, monkeypatch):
    import stainfuser.stages.transfer_style as stage

    expected = workspace.transfer().read_bytes()
    workspace.path("pairs/stylized/t000.h5").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_shard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        random = {"allow_random_weights": True, "method": "nst_operator", "iterations": 1}
        with pytest.raises(KeyboardInterrupt):
            workspace.transfer(**random)
    assert workspace.path("work/t000/finished.json").is_file()
    assert workspace.transfer().read_bytes() == expected


def test_exact_pairs_are_exact(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.cluster()
    workspace.plan(method="recolour")
    shard = workspace.transfer("t001", method="recolour")
    with (
        ImageStore(workspace.path("pairs/sources.h5")) as sources,
        ImageStore(workspace.path("pairs/targets.h5")) as targets,
    ):
        look = Recolouring.from_vector(targets.dataset("recolouring")[1])
        for index, truth in zip(
            read_shard_info(shard).source_index, read_stylized(shard), strict=True
        ):
            np.testing.assert_array_equal(look(sources[index]), truth)


@pytest.mark.parametrize("method", ["nst", "nst_operator"])
def test_neural_transfer_runs_with_weights_of_a_file(workspace, shared_data, method):
    weights = shared_data / "features/squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
    shard = workspace.transfer(method=method, feature_weights=str(weights))
    info = read_shard_info(shard)
    assert read_stylized(shard).shape == (5, 64, 64, 3)
    assert len(info.attrs["weights_sha256"]) == 64
    assert info.scores["source_delta_e"].min() > 0


@pytest.mark.parametrize("method", ["nst", "nst_operator"])
def test_neural_transfer_needs_weights(workspace, method):
    with pytest.raises(InputError, match="needs the weights of squeezenet"):
        workspace.transfer(method=method)


def test_other_methods_do_not_import_torch(workspace, repository):
    folders = [repository / "scripts", repository / "tests", repository / "tests/stages"]
    code = SLOW_RUN.format(paths=[str(f) for f in folders], root=str(workspace.root))
    code += "\nassert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_unknown_method_is_a_configuration_error(workspace):
    with pytest.raises(ConfigError, match=r"pairs\.method: it is 'reinhard'; use class_guided"):
        workspace.transfer(method="reinhard")


def test_targets_planned_for_another_method_are_refused(workspace):
    with pytest.raises(InputError, match=r"not planned for pairs\.method recolour"):
        workspace.transfer(method="recolour")


def test_a_target_outside_the_plan_is_refused(workspace):
    with pytest.raises(InputError, match="target t999"):
        workspace.transfer("t999")


def test_images_and_plan_of_different_runs_are_refused(workspace):
    plan = workspace.path("pairs/plan.csv")
    plan.write_text(plan.read_text().replace("s000", "s900"))
    with pytest.raises(InputError, match="run plan_pairs again"):
        workspace.transfer()


def test_missing_images_are_named(workspace):
    workspace.path("pairs/sources.h5").unlink()
    with pytest.raises(InputError, match=r"sources\.h5: there is no such file"):
        workspace.transfer()
