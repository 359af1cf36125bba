"""Entry point of the rule make_demo_target."""

from stainfuser.logs import logged
from stainfuser.stages.make_demo_target import make_demo_target

with logged(snakemake.log[0]):
    make_demo_target(
        image_path=snakemake.output.image,
        seed=snakemake.params.seed,
        **snakemake.params.options,
    )
