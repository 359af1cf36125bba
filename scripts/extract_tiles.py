"""Entry point of the rule extract_tiles."""

from stainfuser.recording import recorded
from stainfuser.stages.extract_tiles import extract_tiles

with recorded(snakemake):
    extract_tiles(
        slide=snakemake.wildcards.slide,
        slide_path=snakemake.input.slide,
        json_path=snakemake.input.json,
        mask_path=snakemake.input.mask,
        tiles_path=snakemake.output.tiles,
        seed=snakemake.params.seed,
        **snakemake.params.options,
    )
