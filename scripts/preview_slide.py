"""Entry point of the rule preview_slide."""

from stainfuser.recording import recorded
from stainfuser.stages.preview_slide import preview_slide

with recorded(snakemake):
    preview_slide(
        slide=snakemake.wildcards.slide,
        slide_path=snakemake.input.slide,
        json_path=snakemake.input.json,
        mask_path=snakemake.input.mask,
        target_path=snakemake.input.target,
        model_dir=snakemake.input.model,
        strip_path=snakemake.output.strip,
        record_path=snakemake.output.record,
        seed=snakemake.params.seed,
        normalize_options=snakemake.params.normalize,
        **snakemake.params.options,
    )
