"""Entry point of the rule accept_slides."""

from stainfuser.recording import recorded
from stainfuser.stages.accept_slides import accept_slides

with recorded(snakemake):
    accept_slides(
        index_path=snakemake.input.index,
        config_path=snakemake.input.config,
        failed_dir=snakemake.params.failed,
        accepted_path=snakemake.output.accepted,
        allow_failed_slides=snakemake.params.allow_failed_slides,
    )
