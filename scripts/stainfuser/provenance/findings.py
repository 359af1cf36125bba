"""What an audit can find, in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Kind → (is a fault, heading of the report).
KINDS: dict[str, tuple[bool, str]] = {
    "missing": (True, "Missing"),
    "altered": (True, "Altered"),
    "renamed": (True, "Renamed or moved"),
    "changed input": (True, "What was given has changed"),
    "missing input": (True, "What was given is not to be found"),
    "changed between stages": (True, "Changed between two stages"),
    "no record": (True, "Without a record"),
    "edited record": (True, "Records that were edited"),
    "refused record": (True, "Records that were refused"),
    "unreadable record": (True, "Records that cannot be read"),
    "altered crate": (True, "The RO-Crate"),
    "other code": (True, "Made by other code than is checked out now"),
    "other configuration": (True, "Made with another configuration"),
    "other environment": (False, "Made in another environment"),
    "clock": (False, "Clocks that disagree"),
    "remark": (False, "Remarks"),
}


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes
    ----------
    kind
        A key of `KINDS`.
    subject
        What it is about: a path within the run, a record or a rule.
    sentence
        What is wrong, and what to do, in plain words.
    records
        The records of the jobs whose products it casts doubt on.
    """

    kind: str
    subject: str
    sentence: str
    records: tuple[str, ...] = ()

    @property
    def is_fault(self) -> bool:
        """Tell whether a product that descends from it is no longer vouched for."""
        return KINDS[self.kind][0]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON-able form."""
        return {**asdict(self), "records": list(self.records), "is_fault": self.is_fault}

    def __str__(self) -> str:
        return f"{self.subject}: {self.sentence}"
