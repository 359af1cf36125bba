"""Entry point of the rule train_compact_diffusion."""

from pathlib import Path

from stainfuser.recording import recorded
from stainfuser.stages.train_compact_diffusion import train_compact_diffusion

with recorded(snakemake):
    train_compact_diffusion(
        images_dir=snakemake.params.images,
        split_path=snakemake.input.split,
        head_dir=snakemake.input.head,
        model_dir=Path(snakemake.output.index).parent,
        losses_path=snakemake.output.losses,
        curves_path=snakemake.output.curves,
        samples_path=snakemake.output.samples,
        validation_path=snakemake.output.validation,
        work_dir=snakemake.params.work,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
