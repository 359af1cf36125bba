"""The records of a run as a Workflow Run RO-Crate, profile Provenance Run Crate 0.5.

https://www.researchobject.org/workflow-run-crate/profiles/provenance_run_crate/ asks for: a file
with its hash for everything read or written; a CreateAction per job, with the tool as instrument;
a HowToStep per rule, a ControlAction that links it to its jobs, and an OrganizeAction of the
engine that ran them all. No agent is named: that would be a person.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from stainfuser import __version__
from stainfuser.provenance.crate_files import CrateFiles
from stainfuser.provenance.judgement import FINAL_RULES, final_items
from stainfuser.provenance.ledger import Item, Job, Ledger

if TYPE_CHECKING:
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
WORKFLOW_PROFILE = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
COMPLETED = "http://schema.org/CompletedActionStatus"
SNAKEMAKE = "https://snakemake.github.io"
PAPER = "https://arxiv.org/abs/2403.09302"
SNAKEMAKE_LANGUAGE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
CODE_LICENSE = "https://spdx.org/licenses/Apache-2.0"


@dataclass(frozen=True)
class RunFacts:
    """What the crate says of the run as a whole.

    Attributes
    ----------
    name, description
        Title and a paragraph.
    license
        Licence of the results: an address or words.
    snakemake_version
        Version of the engine.
    workflow_files
        Files of the workflow that are copied into the crate, relative to it; the main one first.
    """

    name: str
    description: str
    license: str
    snakemake_version: str
    workflow_files: list[str]


@dataclass
class CrateBuilder:
    """A crate under construction.

    Attributes
    ----------
    ledger
        The records.
    crate_dir, run
        Folder of the crate, and of the run.
    """

    ledger: Ledger
    facts: RunFacts
    crate_dir: Path
    run: Path
    crate: ROCrate = field(init=False)
    files: CrateFiles = field(init=False)
    _values: dict[str, Entity] = field(default_factory=dict)

    def build(self) -> dict[str, Any]:
        """Return the crate as JSON-LD."""
        from rocrate.rocrate import ROCrate

        self.crate = ROCrate(version="1.1")
        self.files = CrateFiles(self.crate, self.ledger, self.crate_dir, self.run)
        jobs = [job for job in self.ledger.in_order() if self._exists(job)]
        self._describe_root()
        workflow = self._add_workflow()
        actions = {job.record: self._add_job(job) for job in jobs}
        rules = list(dict.fromkeys(job.rule for job in jobs))
        steps = [self._add_step(rule, place + 1) for place, rule in enumerate(rules)]
        workflow["step"] = steps
        workflow["hasPart"] = [self._tool(rule) for rule in rules]
        self._add_parameters(workflow, jobs)
        run = self._add_run(workflow, jobs)
        controls = self._add_controls(jobs, actions)
        self._add_engine(run, controls, jobs)
        self.crate.root_dataset["mentions"] = [run, *actions.values()]
        return _compact(self.crate.metadata.generate())

    def _exists(self, job: Job) -> bool:
        return any((self.run / item.path).exists() for item in job.outputs)

    def _add(self, address: str, kind: str | list[str], **properties: Any) -> Entity:
        from rocrate.model.contextentity import ContextEntity

        known = {"@type": kind, **properties}
        return self.crate.add(ContextEntity(self.crate, address, properties=known))

    def _describe_root(self) -> None:
        root = self.crate.root_dataset
        root["name"], root["description"] = self.facts.name, self.facts.description
        root["conformsTo"] = [
            self._add(profile, "CreativeWork", name=name, version=profile.rsplit("/", 1)[1])
            for profile, name in PROFILES.items()
        ]
        if self.facts.license.startswith("https://"):
            what = "Licence of the results."
            name = self.facts.license.rsplit("/", 1)[1]
            license_ = self._add(self.facts.license, "CreativeWork", name=name, description=what)
            root["license"] = license_
        else:
            root["license"] = self.facts.license
        self.crate.metadata.extra_terms.update({"sha256": "http://schema.org/sha256"})

    def _add_workflow(self) -> Entity:
        self._add(CODE_LICENSE, "CreativeWork", name="Apache-2.0", description="Apache License 2.0")
        language = self._add(
            SNAKEMAKE_LANGUAGE,
            "ComputerLanguage",
            name="Snakemake",
            alternateName="Snakemake workflow language",
            identifier={"@id": SNAKEMAKE},
            url={"@id": SNAKEMAKE},
        )
        self._add(SNAKEMAKE, "WebSite", name="Snakemake")
        main, *others = self.facts.workflow_files
        kinds = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]
        workflow = self.files.own_file(main, kinds)
        workflow["name"] = "StainFuser"
        workflow["programmingLanguage"] = language
        workflow["version"] = self._code()
        workflow["license"] = {"@id": CODE_LICENSE}
        workflow["url"] = PAPER
        profile = "Bioschemas ComputationalWorkflow"
        workflow["conformsTo"] = self._add(WORKFLOW_PROFILE, "CreativeWork", name=profile)
        self.crate.root_dataset["mainEntity"] = workflow
        for name in others:
            self.files.own_file(name, ["File"])
        return workflow

    def _code(self) -> str:
        commits = {job.content["software"].get("commit", "unknown") for job in self.ledger.jobs}
        return ", ".join([f"{__version__}", *(f"commit {one}" for one in sorted(commits))])

    def _add_job(self, job: Job) -> Entity:
        words = ", ".join(job.wildcards.values())
        record = self.files.record(job)
        software = job.content["software"]
        return self._add(
            f"#job/{quote(Path(job.record).with_suffix('').as_posix().split('/jobs/', 1)[1])}",
            "CreateAction",
            name=f"{job.rule} {words}".strip(),
            description=_job_words(job, software),
            instrument=self._tool(job.rule),
            object=[*self._entities(job, job.inputs, "input"), *self._settings(job)],
            result=self._entities(job, job.outputs, "output"),
            startTime=job.started,
            endTime=job.ended,
            actionStatus=COMPLETED,
            subjectOf=record,
        )

    def _entities(self, job: Job, items: Iterable[Item], side: str) -> list[Entity]:
        found = []
        for item in items:
            entity = self.files.entity(item)
            parameter = self._parameter(job.rule, side, item.name or "other", self.files.kind(item))
            if parameter not in (known := _as_list(entity.get("exampleOfWork"))):
                entity["exampleOfWork"] = [*known, parameter]
            found.append(entity)
        return found

    def _tool(self, rule: str) -> Entity:
        known = self.crate.dereference(f"#rule/{rule}")
        if known is not None:
            return known
        what = {"name": rule, "description": f"The rule {rule} of the workflow."}
        return self._add(
            f"#rule/{rule}",
            "SoftwareApplication",
            **what,
            softwareVersion=__version__,
            url=SNAKEMAKE,
        )

    def _parameter(self, rule: str, side: str, name: str, kind: str) -> Entity:
        identifier = f"#{side}/{rule}/{quote(name)}"
        known = self.crate.dereference(identifier)
        if known is None:
            known = self._add(identifier, "FormalParameter", name=name, additionalType=kind)
            tool = self._tool(rule)
            key = "output" if side == "output" else "input"
            tool[key] = [*_as_list(tool.get(key)), known]
        return known

    def _settings(self, job: Job) -> list[Entity]:
        """Return the parameters of a job; jobs that share a value share its entity."""
        found = []
        for name, value in _flat(job.content["params"]):
            text = value if isinstance(value, str) else json.dumps(value)
            key = f"#value/{job.rule}/{quote(name)}/{quote(text, safe='')[:80]}"
            if key not in self._values:
                parameter = self._parameter(job.rule, "setting", name, "Text")
                self._values[key] = self._add(
                    key, "PropertyValue", name=name, value=text, exampleOfWork=parameter
                )
            found.append(self._values[key])
        return found

    def _add_step(self, rule: str, position: int) -> Entity:
        return self._add(
            f"#step/{rule}",
            "HowToStep",
            name=rule,
            position=str(position),
            workExample=self._tool(rule),
        )

    def _add_parameters(self, workflow: Entity, jobs: list[Job]) -> None:
        for side, items in (("input", self.ledger.given(jobs)), ("output", _finals(jobs))):
            kinds = {self.files.kind(item) for item in items}
            parameters = []
            for kind in sorted(kinds):
                identifier = f"#workflow-{side}/{kind.lower()}"
                name = f"{'what was given' if side == 'input' else 'normalised slides'} ({kind})"
                known = self._add(identifier, "FormalParameter", name=name, additionalType=kind)
                parameters.append(known)
                for item in items:
                    if self.files.kind(item) == kind:
                        entity = self.files.entity(item)
                        examples = _as_list(entity.get("exampleOfWork"))
                        entity["exampleOfWork"] = [*examples, known]
            workflow[side] = parameters

    def _add_run(self, workflow: Entity, jobs: list[Job]) -> Entity:
        return self._add(
            "#run",
            "CreateAction",
            name="run of StainFuser",
            description="The whole run: slides in, normalised slides out.",
            instrument=workflow,
            object=[self.files.entity(item) for item in self.ledger.given(jobs)],
            result=[self.files.entity(item) for item in _finals(jobs)],
            startTime=min((job.started for job in jobs), default=""),
            endTime=max((job.ended for job in jobs), default=""),
            actionStatus=COMPLETED,
        )

    def _add_controls(self, jobs: list[Job], actions: Mapping[str, Entity]) -> list[Entity]:
        by_rule: dict[str, list[Entity]] = {}
        for job in jobs:
            by_rule.setdefault(job.rule, []).append(actions[job.record])
        return [
            self._add(
                f"#control/{rule}",
                "ControlAction",
                name=f"orchestration of {rule}",
                instrument={"@id": f"#step/{rule}"},
                object=found,
            )
            for rule, found in by_rule.items()
        ]

    def _add_engine(self, run: Entity, controls: list[Entity], jobs: list[Job]) -> None:
        engine = self._add(
            f"{SNAKEMAKE}/#engine",
            "SoftwareApplication",
            name="Snakemake",
            softwareVersion=self.facts.snakemake_version,
            url=SNAKEMAKE,
        )
        self._add(
            "#organize",
            "OrganizeAction",
            name=f"run of Snakemake {self.facts.snakemake_version}",
            instrument=engine,
            object=controls,
            result=run,
            startTime=run["startTime"],
            endTime=run["endTime"],
        )


def _compact(crate: dict[str, Any]) -> dict[str, Any]:
    """Write lists of one as the one, as RO-Crate 1.1 asks."""
    for entity in crate["@graph"]:
        for key, value in entity.items():
            if isinstance(value, list) and len(value) == 1:
                entity[key] = value[0]
    return crate


def _finals(jobs: Iterable[Job]) -> list[Item]:
    made = [item for job in jobs if job.rule in FINAL_RULES for item in final_items(job)]
    return list({item.where: item for item in made}.values())


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [
            pair for key, item in value.items() for pair in _flat(item, f"{name}.{key}".strip("."))
        ]
    return [(name.removeprefix("options."), value)]


def _job_words(job: Job, software: Mapping[str, Any]) -> str:
    host = job.content.get("host", {})
    machine = f"{host.get('system')} {host.get('machine')}, {host.get('cpus')} CPUs"
    return (
        f"StainFuser {software.get('version')} (commit {software.get('commit')}, sources "
        f"{software.get('sources_sha256', '')[:16]}), configuration "
        f"{job.content.get('config_sha256', '')[:16]}, seed {job.content.get('seed')}, on {machine}"
    )


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
