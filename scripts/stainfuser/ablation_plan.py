"""Which trainings an ablation consists of: a table that Snakemake takes for a parameter space."""

from __future__ import annotations

import itertools
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stainfuser.errors import ConfigError

AXES = {
    "training_px": "Side of the crops trained on, px",
    "run_px": "Side of the tiles it is run on, px",
    "magnification": "Magnification trained on",
    "targets": "Targets trained on",
    "training_steps": "Training steps",
    "sampling_steps": "Sampling steps (0: the objective's own)",
    "objective": "Objective",
    "context_tokens": "Context tokens (0: all)",
    "pair_method": "How the training pairs are made",
    "autoencoder": "Autoencoder",
}
CHOICES = {
    "magnification": ("20x", "40x", "mixed"),
    "objective": ("bridge", "v_zero_snr", "epsilon"),
    "pair_method": ("truth", "class_guided", "recolour", "nst", "nst_operator"),
    "autoencoder": ("frozen", "finetuned", "none"),
}
LEAST = {"sampling_steps": 0, "context_tokens": 0}
Instance = dict[str, Any]


class ParameterTable:
    """What `snakemake.utils.Paramspace` asks of a pandas DataFrame, and no more.

    A DataFrame would make every job of every other rule import pandas when it reads the workflow.
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        self.columns = list(columns)
        self.rows = [{name: row[name] for name in columns} for row in rows]

    @property
    def dtypes(self) -> dict[str, type]:
        """The type of every column's values, by which wildcards are read back."""
        return {name: type(self.rows[0][name]) for name in self.columns}

    def __getitem__(self, columns: Sequence[str]) -> ParameterTable:
        """Return the table with these columns."""
        return ParameterTable(columns, self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def itertuples(self, index: bool = False) -> Iterator[Any]:
        """Yield the rows as named tuples; `index` is ignored: there is none."""
        kind = namedtuple("Row", self.columns)
        return (kind(**row) for row in self.rows)


def plan_instances(
    centre: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], crossed: Sequence[Sequence[str]]
) -> ParameterTable:
    """Return the centre, every value of every axis alone, and all combinations of crossed axes.

    Parameters
    ----------
    centre
        Axis → value, for each of `AXES`.
    axes
        Axis → the values it takes; those that are left out, or have none, stay at the centre.
    crossed
        Groups of axes whose values are combined; one group of all of them is the full grid.

    Raises
    ------
    ConfigError
        An axis or a value that there is none of.
    """
    if set(centre) != set(AXES):
        wrong = f"it names {', '.join(centre)}, expected {', '.join(AXES)}"
        raise ConfigError("ablation.centre", wrong, "give every axis one value")
    axes = {name: values for name, values in axes.items() if values}
    _check_values("ablation.centre", {name: [value] for name, value in centre.items()})
    _check_values("ablation.axes", axes)
    unknown = [name for group in crossed for name in group if name not in axes]
    if unknown:
        wrong = f"{unknown[0]!r} is not one of ablation.axes"
        raise ConfigError("ablation.crossed", wrong, "cross axes that have values")
    rows = [dict(centre)]
    for group in [*([name] for name in axes), *crossed]:
        for values in itertools.product(*(axes[name] for name in group)):
            rows.append({**centre, **dict(zip(group, values, strict=True))})
    unique = {tuple(row[name] for name in AXES): row for row in rows}
    return ParameterTable(list(AXES), list(unique.values()))


def plain_instance(instance: Mapping[str, Any]) -> Instance:
    """Return an instance as Python values: Snakemake reads wildcards back as numpy's."""
    return {name: getattr(value, "item", lambda v=value: v)() for name, value in instance.items()}


def _check_values(where: str, axes: Mapping[str, Sequence[Any]]) -> None:
    for name, values in axes.items():
        if name not in AXES:
            raise ConfigError(where, f"there is no axis {name!r}", f"use {', '.join(AXES)}")
        for value in values:
            if name in CHOICES and value not in CHOICES[name]:
                remedy = f"use {', '.join(CHOICES[name])}"
                raise ConfigError(f"{where}.{name}", f"{value!r} is unknown", remedy)
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if name not in CHOICES and not (is_whole and value >= LEAST.get(name, 1)):
                least = f"a whole number of at least {LEAST.get(name, 1)}"
                raise ConfigError(f"{where}.{name}", f"{value!r} is not {least}", f"give {least}")
