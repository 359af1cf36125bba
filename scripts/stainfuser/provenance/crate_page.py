"""What the readable page of a run's record shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stainfuser.provenance.judgement import final_items
from stainfuser.provenance.ledger import Item, Job, Ledger

# A page of a large cohort shows so many rows of a table; the crate has all.
MOST_ROWS = 500
SHOWN_DIGITS = 16


@dataclass(frozen=True)
class RuleRow:
    """One rule: how often it ran, by which code, with which settings."""

    name: str
    jobs: int
    files: int
    code: str
    settings: list[tuple[str, str]]


def page_facts(ledger: Ledger) -> dict[str, Any]:
    """Return the variables of the template ``provenance.html.j2``."""
    jobs = ledger.in_order()
    slides = [(job, item) for job in jobs for item in final_items(job)]
    given = ledger.given(jobs)
    return {
        "rules": [_rule_row(name, jobs) for name in dict.fromkeys(job.rule for job in jobs)],
        "slides": [_slide_row(ledger, *pair) for pair in slides[:MOST_ROWS]],
        "given": [_file_row(item) for item in given[:MOST_ROWS]],
        "slide_count": len(slides),
        "given_count": len(given),
        "job_count": len(jobs),
        "file_count": len(ledger.makers),
        "most_rows": MOST_ROWS,
        "started": min((job.started for job in jobs), default=""),
        "ended": max((job.ended for job in jobs), default=""),
        "code": _code(jobs),
        "environments": sorted({_lock(job)[:SHOWN_DIGITS] for job in jobs}),
        "hosts": sorted({_host(job) for job in jobs}),
        "cost": cost_of_recording(ledger),
        "bad": [f"{bad.record}: {bad.reason}" for bad in ledger.bad],
    }


def cost_of_recording(ledger: Ledger) -> str:
    """Return in a sentence what of the jobs' time their records took."""
    spent = [job.content.get("seconds", {}) for job in ledger.jobs]
    jobs_s, records_s = (sum(one.get(key, 0.0) for one in spent) for key in ("job", "record"))
    share = 100 * records_s / jobs_s if jobs_s else 0.0
    return (
        f"{len(ledger.jobs)} jobs took {jobs_s:.1f} s, {records_s:.1f} s of it ({share:.1f} %) for "
        "their records, hashing included"
    )


def _rule_row(name: str, jobs: list[Job]) -> RuleRow:
    mine = [job for job in jobs if job.rule == name]
    latest = mine[-1].content
    options = latest["params"].get("options")
    shown = options if isinstance(options, dict) else {}
    settings = [(key, _text(value)) for key, value in sorted(shown.items())]
    if latest.get("seed") is not None:
        settings.append(("seed", str(latest["seed"])))
    return RuleRow(name, len(mine), sum(len(job.outputs) for job in mine), _code(mine), settings)


def _slide_row(ledger: Ledger, job: Job, item: Item) -> dict[str, Any]:
    read = [
        f"{known.name} {Path(known.path).name} ({known.sha256[:SHOWN_DIGITS]})"
        for known in job.inputs
        if known.name in ("slide", "target", "model")
    ]
    return {**_file_row(item), "read": read, "jobs": len(ledger.parents(job))}


def _file_row(item: Item) -> dict[str, Any]:
    return {"path": item.path, "sha256": item.sha256[:SHOWN_DIGITS], "bytes": item.size}


def _code(jobs: list[Job]) -> str:
    commits = Counter(job.content["software"].get("commit", "unknown")[:12] for job in jobs)
    dirty = any(job.content["software"].get("commit", "").endswith("-dirty") for job in jobs)
    return ", ".join(sorted(commits)) + (" (with edits that are not committed)" if dirty else "")


def _lock(job: Job) -> str:
    return job.content.get("environment", {}).get("lock_sha256", "unknown")


def _host(job: Job) -> str:
    host = job.content.get("host", {})
    named = f"{host.get('system')} {host.get('machine')}, {host.get('cpus')} CPUs"
    return ", ".join([named, f"Python {host.get('python')}", *host.get("gpus", [])])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
