# In: the products of every stage. Out: one HTML file that shows what ran and how well.
rule render_report:
    input:
        config=RESOLVED_CONFIG,
        index=SLIDE_INDEX,
        record=slide_records,
        normalized=normalized_slides,
        images=normalized_image_folders,
        overlay=mask_overlays,
        target=target_images,
        montage=if_pairs_made(
            [
                "results/clusters/tissue_montage.png",
                "results/clusters/stain_montage.png",
            ]
        ),
        sheet=if_pairs_made(planned_shards("results/pairs/sheets", ".jpg")),
        scores=if_pairs_made("results/pairs/scores.csv"),
        losses=if_trained("results/train/losses.csv"),
        training=if_trained(["results/train/curves.png", "results/train/samples.png"]),
        validation=if_trained("results/train/validation.json"),
        summary="results/evaluation/summary.csv",
        evaluation=[
            "results/evaluation/overview.png",
            "results/evaluation/examples.png",
        ],
        arm=arm_records,
        consistency=consistency_reports,
        downstream=if_all_arms_or_present("results/evaluation/downstream/summary.csv"),
    output:
        report=report(
            "results/report/index.html",
            caption="../report/index.rst",
            category="Report",
        ),
    log:
        "results/logs/render_report.log",
    benchmark:
        "results/benchmarks/render_report.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000, per_slide=0.5),
        runtime=growing(60),
        disk_mb=growing(500),
        gpu=0,
    params:
        options=config["report"],
        benchmarks="results/benchmarks",
        failed=FAILED,
        slide=lambda wildcards: {
            name: str(entry.path) for name, entry in COHORT.items()
        },
    script:
        "../../scripts/render_report.py"
