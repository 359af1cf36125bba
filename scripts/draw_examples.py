"""Entry point of the rule draw_examples."""

from stainfuser.recording import recorded
from stainfuser.stages.draw_examples import draw_examples

with recorded(snakemake):
    draw_examples(
        arm_paths=snakemake.input.arm,
        sample_paths=snakemake.input.sample,
        target_paths=snakemake.input.target,
        examples_path=snakemake.output.examples,
    )
