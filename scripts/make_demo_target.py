"""Entry point of the rule make_demo_target."""

from stainfuser.recording import recorded
from stainfuser.stages.make_demo_target import make_demo_target

with recorded(snakemake):
    make_demo_target(
        image_path=snakemake.output.image,
        seed=snakemake.params.seed,
        **snakemake.params.options,
    )
