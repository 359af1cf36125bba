# StainFuser: slides in, normalised slides and a report out.
# The stages are included in data order; the target rules are at the end.
from snakemake.utils import min_version

min_version("9.0")


configfile: f"{workflow.basedir}/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/demo.smk"
include: "workflow/rules/slides.smk"
include: "workflow/rules/tiles.smk"
include: "workflow/rules/clusters.smk"
include: "workflow/rules/pairs.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/compact.smk"
include: "workflow/rules/preview.smk"
include: "workflow/rules/normalize.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/baselines.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/downstream.smk"
include: "workflow/rules/ablation.smk"
include: "workflow/rules/studies.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/provenance.smk"


localrules:
    all,
    tiles,
    clusters,
    pairs,
    train,
    train_compact,
    preview,
    normalize,
    evaluate,
    downstream,
    baselines,
    ablation,
    studies,
    report,
    audit,


# Everything: normalised slides, their evaluation, the report and the record of it all.
rule all:
    default_target: True
    input:
        normalized_outputs,
        exported_slides,
        "results/evaluation/summary.csv",
        "results/report/index.html",
        "results/slides/accepted.txt",
        "results/provenance/ro-crate-metadata.json",


# Tissue masks and tiles of every usable slide.
rule tiles:
    input:
        tile_stores,
        "results/slides/accepted.txt",


# Tissue and stain clusters, with their montages.
rule clusters:
    input:
        "results/clusters/assignments.csv",
        "results/slides/accepted.txt",


# The merged training pairs.
rule pairs:
    input:
        "results/pairs/pairs.h5",
        "results/slides/accepted.txt",


# The trained model.
rule train:
    input:
        TRAINED,
        "results/slides/accepted.txt",


# The preset compact, head and diffusion part, trained on real images; needs operator_head.images.
rule train_compact:
    input:
        "results/compact/operator_head",
        "results/compact/model_index.json",


# A few tiles and a thumbnail of every slide in every target's stain, in minutes.
rule preview:
    input:
        "results/preview/index.html",
        "results/slides/accepted.txt",


# Every usable slide in every target's stain.
rule normalize:
    input:
        normalized_outputs,
        exported_slides,
        "results/slides/accepted.txt",


# The metric tables and figures, what was found on every slide, and the report that shows them.
rule evaluate:
    input:
        "results/evaluation/summary.csv",
        consistency_reports,
        "results/evaluation/downstream/summary.csv",
        "results/report/index.html",
        "results/slides/accepted.txt",


# Nuclei segmented and classified in other stains, raw and after every arm.
rule downstream:
    input:
        "results/evaluation/downstream/summary.csv",


# The baselines of the literature, trained small for every target.
rule baselines:
    input:
        expand(
            "results/baselines/{target}/{baseline}",
            target=TARGETS,
            baseline=config["baselines"]["steps"],
        ),


# One small training per choice of the model's design, on phantoms; needs no slides.
rule ablation:
    input:
        "results/ablation/summary.csv",


# A written answer to each of three open questions, with its numbers.
rule studies:
    input:
        expand(
            "results/studies/{study}.md",
            study=("latent_detail", "data_diversity", "scanner_variation"),
        ),


# The self-contained report.
rule report:
    input:
        "results/report/index.html",
        "results/slides/accepted.txt",


onstart:
    prepare_cluster()


onsuccess:
    print_outcome()


onerror:
    print_outcome()
