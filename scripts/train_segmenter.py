"""Entry point of the rule train_segmenter."""

from stainfuser.recording import recorded
from stainfuser.stages.train_segmenter import train_segmenter

with recorded(snakemake):
    train_segmenter(
        data_path=snakemake.input.data,
        segmenter_dir=snakemake.params.segmenter,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
        **snakemake.params.options,
    )
