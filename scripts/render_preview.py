"""Entry point of the rule render_preview."""

from stainfuser.recording import recorded
from stainfuser.stages.render_preview import render_preview

with recorded(snakemake):
    render_preview(
        record_paths=snakemake.input.record,
        target_paths=snakemake.input.target,
        index_path=snakemake.input.index,
        page_path=snakemake.output.page,
        tiles=snakemake.params.tiles,
    )
