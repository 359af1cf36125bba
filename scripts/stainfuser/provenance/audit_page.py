"""The audit as a page to read: Markdown in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from stainfuser.provenance.findings import KINDS
from stainfuser.provenance.judgement import Judgement

# A page of a large cohort names so many; the JSON beside it names all.
MOST_SLIDES, MOST_FINDINGS = 500, 200


def audit_page(judgement: Judgement, subject: str, picture: str) -> str:
    """Return the page of an audit of `subject` (the run, or one file)."""
    lines = [f"# Audit of {subject}", "", f"**{verdict_sentence(judgement)}**", ""]
    lines += [
        f"{judgement.checked} files and folders were hashed again and compared with the records of "
        f"{len(judgement.jobs)} jobs.",
        "",
        f"![From what was given to what was made]({picture})",
        "",
    ]
    lines += _finding_lines(judgement)
    lines += _slide_lines(judgement)
    lines += [
        "What this page says is only as good as the records. Whoever may write in this folder can",
        "rewrite products and records together; the SHA-256 of the crate, noted elsewhere, shows",
        "that.",
    ]
    return "\n".join(lines) + "\n"


def verdict_sentence(judgement: Judgement) -> str:
    """Return the outcome in one sentence."""
    faults = [finding for finding in judgement.findings if finding.is_fault]
    if not faults:
        slides = len(judgement.verdicts)
        also = (
            f", {slides} normalised slide{'s' if slides != 1 else ''} among them" if slides else ""
        )
        return f"Intact: everything is as it was made{also}."
    count = f"{len(faults)} finding{'s' if len(faults) != 1 else ''}"
    if judgement.are_files_intact:
        return (
            "Not intact: files are as they were made, but made by other code or with another "
            f"configuration than now: {count}."
        )
    bad = sum(not verdict.is_intact for verdict in judgement.verdicts)
    which = f"; {bad} of {len(judgement.verdicts)} normalised slides" if judgement.verdicts else ""
    which = f"{which} are not vouched for" if which else ""
    return f"Not intact: {count}{which}."


def _finding_lines(judgement: Judgement) -> Iterator[str]:
    for kind, (_, heading) in KINDS.items():
        found = [one for one in judgement.findings if one.kind == kind]
        if not found:
            continue
        yield from (f"## {heading}", "")
        yield from (f"- `{one.subject}`: {one.sentence}." for one in found[:MOST_FINDINGS])
        if len(found) > MOST_FINDINGS:
            yield f"- and {len(found) - MOST_FINDINGS} more, see audit.json"
        yield ""


def _slide_lines(judgement: Judgement) -> Iterator[str]:
    if not judgement.verdicts:
        return
    yield from ("## Normalised slides", "", "| slide | SHA-256 | verdict |", "|---|---|---|")
    ordered = sorted(judgement.verdicts, key=lambda one: (one.is_intact, one.path))
    for one in ordered[:MOST_SLIDES]:
        words = "intact" if one.is_intact else "; ".join(one.reasons).replace("|", "/")
        yield f"| {one.path.replace('|', '/')} | `{one.sha256[:16]}` | {words} |"
    if len(ordered) > MOST_SLIDES:
        yield f"| and {len(ordered) - MOST_SLIDES} more, see audit.json | | |"
    yield ""
