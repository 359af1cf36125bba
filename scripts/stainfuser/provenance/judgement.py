"""From findings to a verdict per product: what descends from a fault is not intact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stainfuser.provenance.findings import Finding
from stainfuser.provenance.ledger import Item, Job, Ledger

# What speaks of how something was made, and not against what lies there.
OTHERWISE = ("other code", "other configuration")
# Rules whose outputs are what a user takes away.
FINAL_RULES = ("normalize_slide", "normalize_images", "export_ome_tiff", "export_dicom")
# Only these outputs of them are slides; the others describe them.
FINAL_NAMES = ("slide", "folder", "file")


@dataclass(frozen=True)
class Verdict:
    """Whether one normalised slide is vouched for; if not, the first things against it."""

    path: str
    sha256: str
    is_intact: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON-able form."""
        known = {"path": self.path, "sha256": self.sha256, "is_intact": self.is_intact}
        return {**known, "reasons": list(self.reasons)}


@dataclass
class Judgement:
    """Everything an audit found.

    Attributes
    ----------
    findings
        In the order of the checks.
    verdicts
        One per normalised slide or folder of images.
    checked
        Files and folders that were hashed again.
    jobs
        The jobs looked at, parents before children.
    """

    findings: list[Finding]
    verdicts: list[Verdict]
    checked: int
    jobs: list[Job] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Tell whether nothing speaks against anything."""
        return not any(finding.is_fault for finding in self.findings)

    @property
    def are_files_intact(self) -> bool:
        """Tell whether the files are as they were made, though perhaps not as now they would be."""
        return all(one.kind in OTHERWISE for one in self.findings if one.is_fault)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON-able form."""
        return {
            "is_intact": self.is_intact,
            "checked": self.checked,
            "jobs": len(self.jobs),
            "findings": [finding.to_json() for finding in self.findings],
            "slides": [verdict.to_json() for verdict in self.verdicts],
        }


def judge_slides(ledger: Ledger, jobs: list[Job], findings: Iterable[Finding]) -> list[Verdict]:
    """Return a verdict per normalised slide among the jobs, which come parents before children."""
    own: dict[str, list[str]] = {}
    for finding in findings:
        for record in finding.records if finding.is_fault else ():
            own.setdefault(record, []).append(f"{finding.kind}: {finding.subject}")
    reasons: dict[int, list[str]] = {}
    verdicts = []
    for job in jobs:
        inherited = [text for parent in ledger.parents(job) for text in reasons.get(id(parent), [])]
        reasons[id(job)] = list(dict.fromkeys([*own.get(job.record, []), *inherited]))[:5]
        for item in final_items(job):
            found = tuple(reasons[id(job)])
            verdicts.append(Verdict(item.path, item.sha256, not found, found))
    return verdicts


def final_items(job: Job) -> list[Item]:
    """Return the normalised slides, or folders of images, a job made."""
    if job.rule not in FINAL_RULES:
        return []
    return [item for item in job.outputs if item.name in FINAL_NAMES]
