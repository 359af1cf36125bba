"""Entry point of the rule export_ome_tiff."""

from stainfuser.recording import recorded
from stainfuser.stages.export_ome_tiff import export_ome_tiff

with recorded(snakemake):
    export_ome_tiff(
        slide_path=snakemake.input.slide,
        export_path=snakemake.output.file,
    )
