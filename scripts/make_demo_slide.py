"""Entry point of the rule make_demo_slide."""

from stainfuser.recording import recorded
from stainfuser.stages.make_demo_slide import make_demo_slide

with recorded(snakemake):
    make_demo_slide(
        slide=snakemake.wildcards.slide,
        slide_path=snakemake.output.slide,
        truth_path=snakemake.output.truth,
        nuclei_path=snakemake.output.nuclei,
        seed=snakemake.params.seed,
        **snakemake.params.options,
    )
