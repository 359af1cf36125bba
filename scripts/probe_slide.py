"""Entry point of the rule probe_slide."""

from stainfuser.logs import logged
from stainfuser.stages.probe_slide import probe_slide

with logged(snakemake.log[0]):
    probe_slide(
        slide=snakemake.wildcards.slide,
        slide_path=snakemake.params.slide_path,
        json_path=snakemake.output.json,
        mpp_override=snakemake.params.mpp,
        mpp_default=snakemake.params.mpp_default,
        **snakemake.params.options,
    )
