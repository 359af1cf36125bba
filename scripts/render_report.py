"""Entry point of the rule render_report."""

from stainfuser.recording import recorded
from stainfuser.stages.render_report import render_report

with recorded(snakemake):
    render_report(
        config_path=snakemake.input.config,
        index_path=snakemake.input.index,
        failed_dir=snakemake.params.failed,
        record_paths=[
            *snakemake.input.record,
            *(f"{folder}.json" for folder in snakemake.input.images),
        ],
        normalized_paths=snakemake.input.normalized,
        slide_paths=snakemake.params.slide,
        overlay_paths=snakemake.input.overlay,
        target_paths=snakemake.input.target,
        montage_paths=snakemake.input.montage,
        sheet_paths=snakemake.input.sheet,
        scores_path=snakemake.input.scores or None,
        losses_path=snakemake.input.losses or None,
        training_pictures=snakemake.input.training,
        validation_path=snakemake.input.validation or None,
        summary_path=snakemake.input.summary,
        evaluation_pictures=snakemake.input.evaluation,
        arm_record_paths=snakemake.input.arm,
        consistency_paths=snakemake.input.consistency,
        downstream_path=snakemake.input.downstream or None,
        benchmarks_dir=snakemake.params.benchmarks,
        report_path=snakemake.output.report,
        **snakemake.params.options,
    )
