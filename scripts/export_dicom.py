"""Entry point of the rule export_dicom."""

from stainfuser.recording import recorded
from stainfuser.stages.export_dicom import export_dicom

with recorded(snakemake):
    export_dicom(
        slide_path=snakemake.input.slide,
        export_dir=snakemake.output.folder,
    )
