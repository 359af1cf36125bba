"""Entry point of the rule sample_evaluation_tiles."""

from stainfuser.recording import recorded
from stainfuser.stages.sample_evaluation_tiles import sample_evaluation_tiles

with recorded(snakemake):
    sample_evaluation_tiles(
        slide=snakemake.wildcards.slide,
        tiles_path=snakemake.input.tiles,
        truth_path=snakemake.input.truth or None,
        nuclei_path=snakemake.input.nuclei or None,
        truth_target=snakemake.params.truth_target,
        sample_path=snakemake.output.sample,
        seed=snakemake.params.seed,
        slides=snakemake.params.slides,
        **snakemake.params.options,
    )
