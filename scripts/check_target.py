"""Entry point of the rule check_target."""

from stainfuser.logs import logged
from stainfuser.stages.check_target import check_target

with logged(snakemake.log[0]):
    check_target(source_path=snakemake.input.source, image_path=snakemake.output.image)
