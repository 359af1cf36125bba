"""Entry point of the rule probe_slide."""

from stainfuser.recording import recorded
from stainfuser.stages.probe_slide import probe_slide

with recorded(snakemake):
    probe_slide(
        slide=snakemake.wildcards.slide,
        slide_path=snakemake.params.slide_path,
        json_path=snakemake.output.json,
        mpp_override=snakemake.params.mpp,
        mpp_default=snakemake.params.mpp_default,
        **snakemake.params.options,
    )
