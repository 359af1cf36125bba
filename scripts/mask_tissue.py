"""Entry point of the rule mask_tissue."""

from stainfuser.recording import recorded
from stainfuser.stages.mask_tissue import mask_tissue

with recorded(snakemake):
    mask_tissue(
        slide=snakemake.wildcards.slide,
        slide_path=snakemake.input.slide,
        json_path=snakemake.input.json,
        mask_path=snakemake.output.mask,
        overlay_path=snakemake.output.overlay,
        **snakemake.params.options,
    )
