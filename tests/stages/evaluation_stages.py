"""The stages of the evaluation chained on a cohort of `evaluation_files`, without a workflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from evaluation_files import Cohort, TrueModel
from stainfuser.files import read_json
from stainfuser.stages.apply_arm import apply_arm
from stainfuser.stages.draw_examples import draw_examples
from stainfuser.stages.measure_arm import measure_arm
from stainfuser.stages.measure_distribution import measure_distribution
from stainfuser.stages.sample_evaluation_tiles import sample_evaluation_tiles

ARMS = ("identity", "reinhard", "macenko", "render_1", "operator", "delivered", "truth")


class Evaluation:
    """The products of an evaluation in the folder ``evaluation`` of a cohort."""

    def __init__(self, cohort: Cohort, truth_target: str = "demo") -> None:
        self.cohort, self.truth_target = cohort, truth_target
        self.folder = cohort.folder / "evaluation"

    def sample(self, **changes) -> list[Path]:
        """Draw the tiles of every slide."""
        truths = {path.stem: path for path in self.cohort.truth_paths}
        for path in self.cohort.tiles_paths:
            options = {"seed": 1, "slides": len(self.cohort.tiles_paths), "tiles_per_slide": 3}
            sample_evaluation_tiles(
                slide=path.stem,
                tiles_path=path,
                truth_path=truths.get(path.stem),
                truth_target=self.truth_target,
                sample_path=self.folder / "sample" / f"{path.stem}.h5",
                **{"nuclei_path": None, "max_tiles": 100, **options, **changes},
            )
        return self.sample_paths

    @property
    def sample_paths(self) -> list[Path]:
        return [self.folder / "sample" / f"{p.stem}.h5" for p in self.cohort.tiles_paths]

    @property
    def jobs(self) -> list[tuple[str, str]]:
        """Every slide to the targets it was normalised to; one that was not, to all."""
        made = [(path.stem, path.parent.name) for path in self.cohort.normalized_paths]
        every = [path.stem for path in self.cohort.target_paths]
        slides = [path.stem for path in self.cohort.tiles_paths]
        others = [(s, t) for s in slides if s not in dict(made) for t in every]
        return made + others

    def apply(self, arm: str, model: type = TrueModel, **changes) -> dict:
        """Apply one arm; return its record."""
        record = self.folder / "arms" / f"{arm}.json"
        options = {
            "arm": arm,
            "jobs": self.jobs,
            "sample_paths": self.sample_paths,
            "target_paths": self.cohort.target_paths,
            "normalized_paths": self.cohort.normalized_paths,
            "baseline_dirs": [],
            "model_dir": self.cohort.model_dir,
            "trained_dir": None,
            "images_path": record.with_suffix(".h5"),
            "record_path": record,
            "seed": 1,
            "style_options": {},
            "slow_arm_tiles": 2,
            "load_model": lambda folder, device: model(),
        }
        apply_arm(**{**options, **changes})
        return read_json(record)

    def measure(self, arm: str, protocol: str = "own") -> pd.DataFrame:
        """Measure one arm; return its table."""
        table = self.folder / "metrics" / f"{arm}.parquet"
        measure_arm(
            arm=arm,
            images_path=self.folder / "arms" / f"{arm}.h5",
            sample_paths=self.sample_paths,
            target_paths=self.cohort.target_paths,
            table_path=table,
            protocol=protocol,
        )
        return pd.read_parquet(table)

    def distribution(self, arms: Sequence[str]) -> pd.DataFrame:
        """Measure the distributions of these arms; return the table."""
        measure_distribution(
            arm_paths=[self.folder / "arms" / f"{arm}.h5" for arm in arms],
            sample_paths=self.sample_paths,
            target_paths=self.cohort.target_paths,
            table_path=self.folder / "metrics" / "distribution.csv",
            seed=1,
            inception_weights=None,
            bootstrap_samples=20,
            confidence=0.95,
        )
        return pd.read_csv(self.folder / "metrics" / "distribution.csv")

    def draw(self, arms: Sequence[str]) -> Path:
        """Draw the examples of these arms."""
        draw_examples(
            arm_paths=[self.folder / "arms" / f"{arm}.h5" for arm in arms],
            sample_paths=self.sample_paths,
            target_paths=self.cohort.target_paths,
            examples_path=self.folder / "examples.png",
        )
        return self.folder / "examples.png"

    def run(self, arms: Sequence[str] = ARMS, model: type = TrueModel, **sampling) -> pd.DataFrame:
        """Sample, apply and measure; return the table of all arms."""
        self.sample(**sampling)
        for arm in arms:
            self.apply(arm, model)
        return pd.concat([self.measure(arm) for arm in arms], ignore_index=True)
