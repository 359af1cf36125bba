# In: what a run made, and the record that every job left of it. Out: one record of the whole run in
# a standard form with a page to read, and, when asked, an audit of it.
rule record_provenance:
    input:
        normalized_outputs,
        exported_slides,
        recorded_reports(
            ["results/evaluation/summary.csv", "results/report/index.html"]
        ),
        accepted="results/slides/accepted.txt",
        config=RESOLVED_CONFIG,
    output:
        crate="results/provenance/ro-crate-metadata.json",
        page="results/provenance/ro-crate-preview.html",
        picture="results/provenance/lineage.svg",
        workflow=directory("results/provenance/workflow"),
    log:
        "results/logs/record_provenance.log",
    benchmark:
        "results/benchmarks/record_provenance.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000, per_slide=1),
        runtime=growing(10, per_slide=0.01),
        disk_mb=growing(100, per_slide=0.1),
        gpu=0,
    params:
        records="results/provenance/jobs",
        license=config["provenance"]["license"],
    script:
        "../../scripts/record_provenance.py"


# It declares no output: an audit always runs, and its page stays where it finds something wrong.
rule audit:
    log:
        "results/logs/audit.log",
    conda:
        "../../envs/stainfuser.yaml"
    threads: workflow.cores or 1
    resources:
        mem_mb=growing(1000, per_slide=1),
        runtime=growing(60, per_slide=1),
        disk_mb=100,
        gpu=0,
    params:
        artefact=config["audit"],
        records="results/provenance/jobs",
        given=lambda wildcards: given_paths(),
        current=lambda wildcards: current_params(),
        model=None if MODEL == TRAINED else MODEL,
        page="results/provenance/audit.md",
        details="results/provenance/audit.json",
        picture="results/provenance/audit.svg",
    script:
        "../../scripts/audit.py"
