# In: a slide (or a folder of plain images), its mask, a target and the model. Out: the same in the
# target's stain, with a record of how it was made.
rule normalize_slide:
    input:
        slide=slide_file,
        json="results/slides/{slide}.json",
        mask="results/masks/{slide}.png",
        target="results/targets/{target}.png",
        model=MODEL,
        model_files=model_files(),
    output:
        slide="results/normalized/{target}/{slide}.svs",
        record="results/normalized/{target}/{slide}.json",
    log:
        "results/logs/normalize_slide/{target}/{slide}.log",
    benchmark:
        "results/benchmarks/normalize_slide/{target}/{slide}.tsv"
    group:
        GROUP_OF_RESULTS
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(60, per_gigapixel=60 if RENDERS else 10),
        disk_mb=growing(500, per_gigapixel=1500),
        gpu=int(RENDERS),
    params:
        options=config["normalize"],
        seed=config["seed"],
        work="results/work/normalize_slide/{target}/{slide}",
        failure="results/slides/failed/{slide}.json",
    script:
        "../../scripts/normalize_slide.py"


rule normalize_images:
    input:
        slide=slide_file,
        json="results/slides/{slide}.json",
        target="results/targets/{target}.png",
        model=MODEL,
        model_files=model_files(),
    output:
        folder=directory("results/normalized/{target}/{slide}"),
    log:
        "results/logs/normalize_images/{target}/{slide}.log",
    benchmark:
        "results/benchmarks/normalize_images/{target}/{slide}.tsv"
    wildcard_constraints:
        # A folder of images, not the slide or the record that normalize_slide makes.
        slide=r"[^/]+(?<!\.svs)(?<!\.json)",
    conda:
        "../../envs/stainfuser.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(480),
        disk_mb=growing(5000),
        gpu=int(RENDERS),
    params:
        options=config["normalize"],
        seed=config["seed"],
        work="results/work/normalize_images/{target}/{slide}",
        failure="results/slides/failed/{slide}.json",
    script:
        "../../scripts/normalize_images.py"
