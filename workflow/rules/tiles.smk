# In: a usable slide. Out: its tissue mask with a picture of it, and its tiles in HDF5.
rule mask_tissue:
    input:
        slide=slide_file,
        json="results/slides/{slide}.json",
    output:
        mask="results/masks/{slide}.png",
        overlay="results/masks/overlay/{slide}.jpg",
    log:
        "results/logs/mask_tissue/{slide}.log",
    benchmark:
        "results/benchmarks/mask_tissue/{slide}.tsv"
    group:
        "slide_tiles"
    conda:
        "../../envs/slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20, per_gigapixel=1),
        disk_mb=100,
        gpu=0,
    params:
        options=config["mask"],
        failure="results/slides/failed/{slide}.json",
    script:
        "../../scripts/mask_tissue.py"


rule extract_tiles:
    input:
        slide=slide_file,
        json="results/slides/{slide}.json",
        mask="results/masks/{slide}.png",
    output:
        tiles="results/tiles/{slide}.h5",
    log:
        "results/logs/extract_tiles/{slide}.log",
    benchmark:
        "results/benchmarks/extract_tiles/{slide}.tsv"
    group:
        "slide_tiles"
    conda:
        "../../envs/slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30, per_gigapixel=2),
        disk_mb=500,
        gpu=0,
    params:
        options=config["tiles"],
        seed=config["seed"],
        failure="results/slides/failed/{slide}.json",
    script:
        "../../scripts/extract_tiles.py"
