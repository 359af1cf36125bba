"""The audit names what was tampered with, and declares an untouched run intact."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recorded_run import RULE_PARAMS, SLIDE, audit_run, given_files, normalize, record_all, run_all
from stainfuser.errors import InputError, StainFuserError
from stainfuser.files import sha256_content
from stainfuser.provenance import ledger as ledgers
from stainfuser.provenance.judgement import judge_slides
from stainfuser.stages import audit as audits

RECORDS = Path("results/provenance/jobs")
MODEL, SHARD = Path("results/model/model.safetensors"), Path("results/pairs/stylized/t000.h5")
CRATE = Path("results/provenance/ro-crate-metadata.json")
PAGE = Path("results/provenance/audit.md")


@pytest.fixture(scope="module")
def recorded_run(tmp_path_factory) -> Path:
    """Return a folder with a recorded run (folder `run`) of given files (folder `given`)."""
    folder, before = tmp_path_factory.mktemp("audited"), Path.cwd()
    (folder / "run").mkdir()
    os.chdir(folder / "run")
    try:
        run_all(given_files(folder / "given"))
        record_all()
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def given(recorded_run, tmp_path, monkeypatch) -> dict[str, Path]:
    """Copy the run, go there, and return the files that were given."""
    shutil.copytree(recorded_run, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy" / "run")
    return {"slide": tmp_path / "copy/given/a.svs", "target": tmp_path / "copy/given/target.png"}


def rewrite(record: str, change) -> None:
    """Change a record and its checksum, as somebody who knows the format would."""
    path = RECORDS / record
    content = json.loads(path.read_text())
    content.pop("record_sha256")
    change(content)
    path.write_text(json.dumps({**content, "record_sha256": sha256_content(content)}))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(bytes(content))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_untouched_run_is_intact(given):
    found = audit_run(given)
    assert found["is_intact"]
    assert [finding for finding in found["findings"] if finding["is_fault"]] == []
    assert found["slides"] == [
        {"path": SLIDE, "sha256": found["slides"][0]["sha256"], "is_intact": True, "reasons": []}
    ]
    page = PAGE.read_text()
    assert "**Intact: everything is as it was made, 1 normalised slide among them.**" in page
    assert Path("results/provenance/audit.svg").read_text().startswith("<svg")


TAMPERINGS = {
    "one byte of a slide": (
        lambda given: flip_a_byte(Path(SLIDE)),
        "altered",
        f"{SLIDE}: its bytes are not those that normalize_slide wrote",
        False,
    ),
    "a swapped model": (
        lambda given: MODEL.write_text("weights of somebody else"),
        "altered",
        "results/model: it is not as train_normalizer wrote it: model.safetensors is altered",
        False,
    ),
    "an edited configuration": (
        lambda given: edit(Path("results/config.yaml"), "seed: 1", "seed: 2"),
        "changed input",
        "results/config.yaml: it has changed since accept_slides read it",
        True,
    ),
    "a replaced pair shard": (
        lambda given: SHARD.write_text("pairs of another run"),
        "altered",
        f"{SHARD}: its bytes are not those that transfer_style wrote",
        False,
    ),
    "a renamed slide": (
        lambda given: os.rename(SLIDE, "results/normalized/t/b.svs"),
        "renamed",
        f"{SLIDE}: it is called results/normalized/t/b.svs now",
        False,
    ),
    "a deleted tile store": (
        lambda given: os.remove("results/tiles/a.h5"),
        "missing",
        "results/tiles/a.h5: extract_tiles wrote it, and it is not there",
        False,
    ),
    "an edited record": (
        lambda given: edit(RECORDS / "normalize_slide/t/a.json", '"operator"', '"render"'),
        "edited record",
        "results/provenance/jobs/normalize_slide/t/a.json: its content does not fit the checksum",
        False,
    ),
    "a record edited with its checksum": (
        lambda given: rewrite("transfer_style/t000.json", lambda one: one.update(seed=7)),
        "edited record",
        "jobs/transfer_style/t000.json: it is not the record that the crate was written from",
        False,
    ),
    "a deleted record": (
        lambda given: os.remove(RECORDS / "extract_tiles/a.json"),
        "no record",
        "results/tiles/a.h5: transfer_style (t000) read it, and no record says what made it",
        False,
    ),
    "an edited crate": (
        lambda given: edit(CRATE, "normalised by StainFuser", "normalised by nobody"),
        "altered",
        f"{CRATE}: its bytes are not those that record_provenance wrote",
        True,
    ),
    "a changed raw slide": (
        lambda given: flip_a_byte(given["slide"]),
        "changed input",
        "a.svs: it has changed since probe_slide (a) read it",
        False,
    ),
    "a raw slide that went": (
        lambda given: os.remove(given["slide"]),
        "missing input",
        "a.svs: probe_slide (a) read it, and it is not where the configuration looks now",
        False,
    ),
    "a swapped target image": (
        lambda given: given["target"].write_text("another stain"),
        "changed input",
        "target.png: it has changed since check_target (t) read it",
        False,
    ),
    "a slide that nothing made": (
        lambda given: Path("results/normalized/t/extra.svs").write_text("from elsewhere"),
        "no record",
        "results/normalized/t/extra.svs: no record says what made it",
        True,
    ),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_tampering_is_named(given, what):
    tamper, kind, sentence, is_slide_intact = TAMPERINGS[what]
    tamper(given)
    with pytest.raises(StainFuserError, match="Not intact"):
        audit_run(given)
    found = audit_run.found
    named = [f"{one['subject']}: {one['sentence']}" for one in found["findings"]]
    kinds = {
        one["kind"]
        for one in found["findings"]
        if sentence in str(one["subject"]) + ": " + one["sentence"]
    }
    assert kinds == {kind}, named
    assert [one["is_intact"] for one in found["slides"]] == [is_slide_intact]
    assert sentence.split(": ")[1].split("; ")[0] in PAGE.read_text()


def test_other_code_is_named(given, monkeypatch):
    other = {"version": "0.1.0", "commit": "f" * 40, "sources_sha256": "e" * 64}
    monkeypatch.setattr(audits, "code_version", lambda: other)
    with pytest.raises(StainFuserError):
        audit_run(given)
    findings = audit_run.found["findings"]
    said = next(one["sentence"] for one in findings if one["kind"] == "other code")
    assert "normalize_slide" in said
    assert "files are as they were made, but made by other code" in PAGE.read_text()
    assert "ran with other code than is checked out now" in PAGE.read_text()
    assert "ffffffffffff now" in PAGE.read_text()


def test_other_packages_are_a_remark(given, monkeypatch):
    monkeypatch.setattr(audits, "environment_sha256", lambda: "d" * 64)
    assert audit_run(given)["is_intact"]
    assert "Made in another environment" in PAGE.read_text()


def test_another_configuration_is_named_with_its_keys(given):
    options = {"mode": "operator", "tile_px": 512}
    changed = {"normalize_slide": {**RULE_PARAMS["normalize_slide"], "options": options}}
    with pytest.raises(StainFuserError):
        audit_run(given, current_params=changed)
    assert "tile_px was 256, it is 512 now" in PAGE.read_text()
    assert not audit_run.found["slides"][0]["is_intact"]


def test_a_job_run_again_since_the_crate_is_no_tampering_with_records(given):
    normalize(str(given["slide"]))
    assert audit_run(given)["is_intact"]


def test_what_a_job_read_is_held_to_what_its_maker_wrote(given):
    def swap(content):
        for item in content["inputs"]:
            if item["name"] == "model":
                item["sha256"] = "a" * 64

    rewrite("normalize_slide/t/a.json", swap)
    CRATE.unlink()
    with pytest.raises(StainFuserError):
        audit_run(given)
    assert "read other bytes than train_normalizer had written" in PAGE.read_text()


@pytest.mark.parametrize("path", ["/etc/passwd", "../../secret.svs", "~/x.svs", "a\\b", ""])
def test_a_record_that_names_files_outside_the_project_is_refused(given, path):
    rewrite("extract_tiles/a.json", lambda one: one["outputs"][0].update(path=path))
    with pytest.raises(StainFuserError):
        audit_run(given)
    named = {(one["kind"], one["subject"]) for one in audit_run.found["findings"]}
    assert ("refused record", f"{RECORDS}/extract_tiles/a.json") in named
    assert "it names a file outside the project, which was not opened" in PAGE.read_text()


def test_a_product_that_is_a_link_out_of_the_run_is_not_opened(given, tmp_path):
    (tmp_path / "secret").write_text("not for you")
    os.remove(SLIDE)
    os.symlink(tmp_path / "secret", SLIDE)
    with pytest.raises(StainFuserError):
        audit_run(given)
    assert {one["kind"] for one in audit_run.found["findings"] if one["subject"] == SLIDE} == {
        "missing"
    }


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "stainfuser job record 1"}'])
def test_a_record_that_cannot_be_read_is_named(given, text):
    (RECORDS / "extract_tiles/a.json").write_text(text)
    with pytest.raises(StainFuserError):
        audit_run(given)
    assert "unreadable record" in {one["kind"] for one in audit_run.found["findings"]}


def test_clocks_that_disagree_are_a_remark(given):
    CRATE.unlink()
    shutil.rmtree(CRATE.parent / "workflow")
    os.remove(RECORDS / "record_provenance.json")
    for path in CRATE.parent.glob("*.*"):
        path.unlink()
    late = (datetime.now(UTC) + timedelta(days=2)).isoformat(timespec="seconds")
    early = "2001-01-01T00:00:00+00:00"
    rewrite("extract_tiles/a.json", lambda one: one.update(started=late, ended=early))
    rewrite("check_target/t.json", lambda one: one.update(ended=late))
    future = datetime.now().timestamp() + 1e6
    os.utime(SLIDE, (future, future))
    found = audit_run(given)
    assert found["is_intact"]
    said = [f"{one['subject']}: {one['sentence']}" for one in found["findings"]]
    assert any("extract_tiles/a.json: it ends (2001" in text for text in said)
    assert any("check_target/t.json: it ends in the future" in text for text in said)
    assert any(f"{SLIDE}: it was last changed in the future" in text for text in said)


def test_an_interrupted_audit_leaves_no_page(given, monkeypatch):
    audit_run(given)
    assert PAGE.exists()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(audits, "draw_lineage", interrupted)
    with pytest.raises(KeyboardInterrupt):
        audit_run(given)
    assert not PAGE.exists()
    assert not list(PAGE.parent.glob(".audit*"))


def test_no_records_are_one_sentence(given):
    shutil.rmtree(RECORDS)
    with pytest.raises(InputError, match="run the workflow in this folder first"):
        audit_run(given)


def test_one_slide_is_audited_where_it_lies(given):
    found = audit_run(given, artefact=SLIDE)
    assert found["is_intact"]
    assert found["slides"][0]["path"] == SLIDE


def test_a_slide_that_left_its_folder_is_found_by_its_hash(given, tmp_path):
    elsewhere = tmp_path / "sent to a friend.svs"
    shutil.move(SLIDE, elsewhere)
    found = audit_run(given, artefact=str(elsewhere))
    assert found["is_intact"]
    assert (
        f"it is {SLIDE}, made by normalize_slide (a, t); it has left its place" in PAGE.read_text()
    )
    # What it descends from is looked at, what is beside it is not.
    SHARD.write_text("tampered")
    with pytest.raises(StainFuserError):
        audit_run(given, artefact=str(elsewhere))
    assert f"`{SHARD}`: its bytes are not those that transfer_style wrote" in PAGE.read_text()


def test_one_file_of_a_model_is_known(given, tmp_path):
    copy = tmp_path / "weights"
    shutil.copy(MODEL, copy)
    assert audit_run(given, artefact=str(copy))["is_intact"]
    assert "it is results/model, made by train_normalizer" in PAGE.read_text()


def test_an_altered_slide_that_left_its_folder_is_named(given, tmp_path):
    shutil.copy(SLIDE, tmp_path / "a.svs")
    flip_a_byte(tmp_path / "a.svs")
    with pytest.raises(StainFuserError):
        audit_run(given, artefact=str(tmp_path / "a.svs"))
    assert "its bytes are not those that normalize_slide wrote under this name" in PAGE.read_text()


def test_a_file_of_no_job_is_named(given, tmp_path):
    (tmp_path / "x.svs").write_text("?")
    with pytest.raises(StainFuserError):
        audit_run(given, artefact=str(tmp_path / "x.svs"))
    assert "no job of this run made a file with these bytes" in PAGE.read_text()


def test_an_artefact_that_is_not_there_is_one_sentence(given):
    with pytest.raises(InputError, match="there is no such file to audit"):
        audit_run(given, artefact="nowhere.svs")


def test_ten_thousand_records_are_judged_in_seconds():
    ledger = ledgers.Ledger()
    for number in range(10_000):
        ledger.add(_fake_job("extract_tiles", [], [f"results/tiles/{number}.h5"], number))
    tiles = [f"results/tiles/{number}.h5" for number in range(10_000)]
    ledger.add(_fake_job("train_normalizer", tiles, ["results/model"], 0))
    for number in range(10_000):
        made = [f"results/normalized/t/{number}.svs"]
        ledger.add(_fake_job("normalize_slide", ["results/model", tiles[number]], made, number))
    started = datetime.now(UTC)
    order = ledger.in_order()
    verdicts = judge_slides(ledger, order, [])
    assert len(order) == 20_001
    assert len(verdicts) == 10_000
    assert (datetime.now(UTC) - started).total_seconds() < 20


def _fake_job(rule: str, inputs: list[str], outputs: list[str], number: int) -> ledgers.Job:
    read = [ledgers.Item("tiles", ("run", path), "a" * 64, 1) for path in inputs]
    made = [ledgers.Item("slide", ("run", path), "a" * 64, 1) for path in outputs]
    content = {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:00:00+00:00"}
    return ledgers.Job(f"{rule}/{number}.json", rule, {}, read, made, content)
