"""Entry point of the rule audit."""

from stainfuser.recording import recorded
from stainfuser.stages.audit import audit

with recorded(snakemake):
    audit(
        artefact=snakemake.params.artefact,
        run_dir=".",
        records_dir=snakemake.params.records,
        given_paths=snakemake.params.given,
        current_params=snakemake.params.current,
        model_dir=snakemake.params.model,
        page_path=snakemake.params.page,
        details_path=snakemake.params.details,
        picture_path=snakemake.params.picture,
        workers=snakemake.threads,
    )
