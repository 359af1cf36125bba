"""The crate of a run: what the profile asks for, checked by its public validator."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recorded_run import SLIDE, given_files, record_all, run_all
from stainfuser.errors import InputError
from stainfuser.files import sha256_file
from stainfuser.stages.record_provenance import record_provenance

CRATE = Path("results/provenance/ro-crate-metadata.json")
PROFILE = "provenance-run-crate-0.5"


@pytest.fixture
def crate(tmp_path, monkeypatch) -> dict[str, dict]:
    """Record a small run, and return the entities of its crate by identifier."""
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    run_all(given_files(tmp_path / "Dr Quixotl"))
    record_all()
    return {entity["@id"]: entity for entity in json.loads(CRATE.read_text())["@graph"]}


def as_list(value) -> list:
    return value if isinstance(value, list) else [value]


def validation_issues(folder: Path) -> list[str]:
    """Return what the validator finds missing that the profile requires; it asks no network."""
    pytest.importorskip("rocrate_validator", reason="roc-validator is not installed")
    import rocrate
    from rocrate_validator import models, services
    from rocrate_validator.utils import document_loader, http

    context = json.loads((Path(rocrate.__file__).parent / "data/ro-crate.jsonld").read_text())
    # The context comes with rocrate as that of RO-Crate 1.3; these terms differ in 1.1.
    bio = "https://bioschemas.org/"
    context["@context"] |= {
        name: bio + name for name in ("ComputationalWorkflow", "FormalParameter")
    }
    for name in ("input", "output"):
        context["@context"][name] = f"{bio}ComputationalWorkflow#{name}"

    class Answer:
        status_code, text, headers = (
            200,
            json.dumps(context),
            {"Content-Type": "application/ld+json"},
        )

        def json(self):
            return context

    patch = pytest.MonkeyPatch()
    patch.setattr(document_loader, "_fetch_json_ld", lambda url: context)
    patch.setattr(http.HttpRequester, "get", lambda *args, **kwargs: Answer(), raising=False)
    try:
        settings = services.ValidationSettings(
            rocrate_uri=str(folder),
            profile_identifier=PROFILE,
            requirement_severity=models.Severity.REQUIRED,
        )
        issues = services.validate(settings).get_issues()
    finally:
        patch.undo()
    return [f"{issue.check.identifier}: {issue.message}" for issue in issues]


def test_the_public_validator_accepts_the_crate(crate):
    assert validation_issues(CRATE.parent) == []


def test_the_validator_would_refuse_a_crate_without_its_steps(crate):
    kept = [entity for name, entity in crate.items() if not name.startswith("#step/")]
    for entity in kept:
        entity.pop("step", None)
    context = json.loads(CRATE.read_text())["@context"]
    CRATE.write_text(json.dumps({"@context": context, "@graph": kept}))
    assert validation_issues(CRATE.parent)


def test_every_file_has_its_hash_and_the_action_that_made_it(crate):
    slide = crate[f"../{SLIDE.removeprefix('results/')}"]
    assert slide["sha256"] == sha256_file(SLIDE)
    makers = [
        entity
        for entity in crate.values()
        if entity["@type"] == "CreateAction"
        and {"@id": slide["@id"]} in as_list(entity.get("result", []))
        and entity["@id"] != "#run"
    ]
    assert [maker["instrument"] for maker in makers] == [{"@id": "#rule/normalize_slide"}]
    read = {crate[item["@id"]]["name"] for item in as_list(makers[0]["object"])}
    assert {"a.svs", "t.png", "model", "mode", "tile_px", "seed"} <= read
    files = [entity for entity in crate.values() if "File" in as_list(entity["@type"])]
    assert all(re.fullmatch("[0-9a-f]{64}", entity["sha256"]) for entity in files)


def test_every_path_of_the_crate_leads_to_its_file(crate):
    files = [entity for entity in crate.values() if "File" in as_list(entity["@type"])]
    inside = [entity for entity in files if not entity["@id"].startswith("ni:")]
    assert len(inside) > 20
    for entity in inside:
        assert sha256_file(CRATE.parent / entity["@id"]) == entity["sha256"]


def test_steps_are_orchestrated_by_the_engine(crate):
    organize = next(entity for entity in crate.values() if entity["@type"] == "OrganizeAction")
    controls = [crate[item["@id"]] for item in organize["object"]]
    assert {control["instrument"]["@id"] for control in controls} == {
        item["@id"] for item in crate["workflow/Snakefile"]["step"]
    }
    assert organize["result"] == {"@id": "#run"}


def test_no_person_and_no_folder_of_the_machine_is_named(crate, tmp_path):
    for path in CRATE.parent.rglob("*.*"):
        text = path.read_text() if path.is_file() else ""
        assert "Quixotl" not in text
        assert str(tmp_path) not in text
    assert "Person" not in {kind for one in crate.values() for kind in as_list(one["@type"])}


def test_the_crate_opens_with_the_library(crate):
    from rocrate.rocrate import ROCrate

    opened = ROCrate(str(CRATE.parent))
    assert opened.mainEntity.id == "workflow/Snakefile"
    assert len(opened.get_by_type("CreateAction")) == 8


def test_the_page_can_be_read_alone(crate):
    page = Path("results/provenance/ro-crate-preview.html").read_text()
    assert SLIDE in page
    assert "normalize_slide" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)


def test_an_edited_record_is_not_passed_on(crate):
    path = Path("results/provenance/jobs/normalize_slide/t/a.json")
    path.write_text(path.read_text().replace('"operator"', '"render"'))
    with pytest.raises(InputError, match="does not fit the checksum"):
        record_provenance(
            records_dir="results/provenance/jobs",
            run_dir=".",
            crate_path=CRATE,
            page_path=CRATE.with_name("p.html"),
            picture_path=CRATE.with_name("p.svg"),
            workflow_dir=CRATE.with_name("workflow"),
            license="x",
        )
