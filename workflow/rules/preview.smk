# In: what normalize_slide takes. Out: a thumbnail and a few tiles of every slide in every target's
# stain, before a long run.
rule preview_slide:
    input:
        slide=slide_file,
        json="results/slides/{slide}.json",
        mask="results/masks/{slide}.png",
        target="results/targets/{target}.png",
        model=MODEL,
    output:
        strip="results/preview/{target}/{slide}.jpg",
        record="results/preview/{target}/{slide}.json",
    log:
        "results/logs/preview_slide/{target}/{slide}.log",
    benchmark:
        "results/benchmarks/preview_slide/{target}/{slide}.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(20, per_gigapixel=1),
        disk_mb=100,
        gpu=int(RENDERS),
    params:
        options=config["preview"],
        normalize=config["normalize"],
        seed=config["seed"],
        failure="results/slides/failed/{slide}.json",
    script:
        "../../scripts/preview_slide.py"


rule render_preview:
    input:
        record=slide_previews,
        target=target_images,
        index=SLIDE_INDEX,
    output:
        page="results/preview/index.html",
    log:
        "results/logs/render_preview.log",
    benchmark:
        "results/benchmarks/render_preview.tsv"
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000, per_slide=0.5),
        runtime=growing(30),
        disk_mb=growing(100, per_slide=0.5),
        gpu=0,
    params:
        tiles=config["preview"]["tiles"],
    script:
        "../../scripts/render_preview.py"
