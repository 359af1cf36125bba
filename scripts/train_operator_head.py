"""Entry point of the rule train_operator_head."""

from stainfuser.recording import recorded
from stainfuser.stages.train_operator_head import train_operator_head

with recorded(snakemake):
    train_operator_head(
        images_dir=snakemake.params.images,
        split_path=snakemake.input.split,
        head_dir=snakemake.output.head,
        losses_path=snakemake.output.losses,
        summary_path=snakemake.output.summary,
        sheet_path=snakemake.output.sheet,
        work_dir=snakemake.params.work,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
