"""Entry point of the rule check_target."""

from stainfuser.recording import recorded
from stainfuser.stages.check_target import check_target

with recorded(snakemake):
    check_target(source_path=snakemake.input.source, image_path=snakemake.output.image)
