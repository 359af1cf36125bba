"""Records of jobs: complete, the same in two runs, and stopped by inputs that were changed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from recorded_run import SLIDE, given_files, job, normalize, run_all, run_job
from stainfuser import files, fingerprints, recording
from stainfuser.code_version import code_version, sources_sha256
from stainfuser.files import sha256_file
from stainfuser.fingerprints import HashMemory, fingerprint
from stainfuser.recording import OF_THIS_RUN, record_path


def records(folder: Path) -> dict[str, dict]:
    root = folder / "results/provenance/jobs"
    return {
        str(path.relative_to(root)): json.loads(path.read_text()) for path in root.rglob("*.json")
    }


def test_a_record_says_what_a_job_made_of_what(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = given_files(tmp_path.parent / "given")
    run_all(given)
    record = records(tmp_path)["normalize_slide/t/a.json"]
    assert record["wildcards"] == {"target": "t", "slide": "a"}
    assert record["params"]["options"] == {"mode": "operator", "tile_px": 256}
    assert record["seed"] == 1
    inputs = {item["name"]: item for item in record["inputs"]}
    assert inputs["slide"]["place"] == "elsewhere"
    assert inputs["slide"]["path"] == "a.svs"
    assert inputs["slide"]["sha256"] == sha256_file(given["slide"])
    assert inputs["model"]["made_by"] == "train_normalizer"
    outputs = {item["name"]: item for item in record["outputs"]}
    assert outputs["slide"]["path"] == SLIDE
    assert outputs["slide"]["sha256"] == sha256_file(SLIDE)
    assert record["software"]["sources_sha256"] == code_version()["sources_sha256"]
    assert len(record["environment"]["lock_sha256"]) == 64
    assert record["started"] <= record["ended"]
    model = records(tmp_path)["train_normalizer.json"]["outputs"][0]
    assert set(model["files"]) == {"config.json", "model.safetensors"}


def test_no_record_holds_a_path_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_all(given_files(tmp_path.parent / "Dr Smith"))
    texts = [path.read_text() for path in (tmp_path / "results").rglob("*.*") if path.is_file()]
    assert not [text for text in texts if str(tmp_path.parent) in text or "Smith" in text]


def test_two_identical_runs_differ_in_time_and_host_alone(tmp_path, monkeypatch):
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        run_all(given_files(tmp_path / name / "given"))
        found.append(records(tmp_path / name))
    assert found[0].keys() == found[1].keys()
    for key, first in found[0].items():
        second = found[1][key]
        for changing in OF_THIS_RUN:
            first.pop(changing), second.pop(changing)
        assert first == second


def test_a_product_changed_between_two_stages_stops_the_next_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = given_files(tmp_path / "given")
    run_all(given)
    Path("results/model/model.safetensors").write_text("swapped")
    with pytest.raises(SystemExit):
        normalize(str(given["slide"]))
    said = capsys.readouterr().err
    assert "results/model/model.safetensors: it was changed after the rule train_normalizer" in said
    assert len(said.strip().splitlines()) == 1
    # The record of the job that ran before is gone with the claim that its output is current.
    assert "normalize_slide/t/a.json" not in records(tmp_path)


def test_a_slide_replaced_after_its_probe_stops_the_next_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = given_files(tmp_path / "given")
    run_all(given)
    given["slide"].write_text("another slide under the same name")
    with pytest.raises(SystemExit):
        normalize(str(given["slide"]))
    assert "a.svs: it was changed after the rule probe_slide read it" in capsys.readouterr().err


def test_a_slide_and_a_target_of_one_name_are_two_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"slide": tmp_path.parent / "one/a.png", "target": tmp_path.parent / "two/a.png"}
    for name, path in given.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    run_all(given)


def test_a_folder_made_again_may_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = given_files(tmp_path / "given")
    run_all(given)
    os.remove("results/model/model.safetensors")
    os.remove("results/model/config.json")
    os.rmdir("results/model")
    shard = "results/pairs/stylized/t000.h5"
    run_job(job("train_normalizer", {"shard": shard}, {"model": "results/model"}), "once more")
    normalize(str(given["slide"]))


def test_a_failed_job_leaves_no_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snakemake = job("check_target", {}, {"image": "results/targets/t.png"}, {"target": "t"})
    with pytest.raises(SystemExit), recording.recorded(snakemake):
        raise ValueError("no")
    assert records(tmp_path) == {}


def test_records_lie_as_logs_do():
    assert record_path("cluster_stains", {}) == recording.RECORDS / "cluster_stains.json"
    nested = record_path("normalize_slide", {"target": "t.1", "slide": "a b"})
    assert nested == recording.RECORDS / "normalize_slide/t.1/a b.json"


def test_a_slide_is_read_once_for_all_rules(tmp_path, monkeypatch):
    read = []
    real = files.hashlib.file_digest
    monkeypatch.setattr(
        files.hashlib, "file_digest", lambda *args: (read.append(args[0].name), real(*args))[1]
    )
    path = tmp_path / "a.svs"
    path.write_text("pixels")
    os.utime(path, (time.time() - 9, time.time() - 9))
    first = HashMemory(tmp_path / "hashes").sha256(path)
    assert HashMemory(tmp_path / "hashes").sha256(path) == first
    assert sha256_file(path) == first
    assert len(read) == 1
    path.write_text("others")
    assert HashMemory(tmp_path / "hashes").sha256(path) != first


def test_a_damaged_memory_costs_time_alone(tmp_path):
    path = tmp_path / "a.svs"
    path.write_text("pixels")
    os.utime(path, (time.time() - 9, time.time() - 9))
    memory = HashMemory(tmp_path / "hashes")
    right = memory.sha256(path)
    for shard in (tmp_path / "hashes").iterdir():
        shard.write_bytes(b'{"p": "x", "s"\xff\n[]\n' + shard.read_bytes()[:20] + b"\n")
    assert HashMemory(tmp_path / "hashes").sha256(path) == right


def test_a_file_from_the_future_is_hashed_every_time(tmp_path):
    path = tmp_path / "a.svs"
    path.write_text("before")
    future = time.time() + 900
    os.utime(path, (future, future))
    first = HashMemory(tmp_path / "hashes").sha256(path)
    path.write_text("behind")  # as long, and the clock set back to the same time
    os.utime(path, (future, future))
    assert HashMemory(tmp_path / "hashes").sha256(path) != first


def test_a_slide_of_many_files_is_fingerprinted_whole(tmp_path):
    (tmp_path / "a.mrxs").write_text("index")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_text("pixels")
    first = fingerprint(tmp_path / "a.mrxs", HashMemory(None))
    assert set(first.files) == {"a.mrxs", "a/Data0000.dat"}
    (tmp_path / "a" / "Data0000.dat").write_text("other pixels")
    assert fingerprint(tmp_path / "a.mrxs", HashMemory(None)).sha256 != first.sha256


def test_the_hash_of_the_sources_sees_a_new_line(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    first = sources_sha256(tmp_path)
    (tmp_path / "weights.safetensors").write_text("no source")
    assert sources_sha256(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 1\n\n")
    assert sources_sha256(tmp_path) != first


def test_a_folder_of_millions_is_told_by_names_and_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "MOST_HASHED", 2)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("one")
    first = fingerprint(tmp_path, HashMemory(None))
    assert (first.files, first.size) == ({}, 9)
    (tmp_path / "c").write_text("three")
    assert fingerprint(tmp_path, HashMemory(None)).sha256 != first.sha256
