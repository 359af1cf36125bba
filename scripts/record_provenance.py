"""Entry point of the rule record_provenance."""

from stainfuser.recording import recorded
from stainfuser.stages.record_provenance import record_provenance

with recorded(snakemake):
    record_provenance(
        records_dir=snakemake.params.records,
        run_dir=".",
        crate_path=snakemake.output.crate,
        page_path=snakemake.output.page,
        picture_path=snakemake.output.picture,
        workflow_dir=snakemake.output.workflow,
        license=snakemake.params.license,
    )
