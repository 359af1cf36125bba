# In: the user's slides and target images. Out: a verdict per slide, the index of all, checked targets.
rule check_target:
    input:
        source=lambda wildcards: str(TARGETS[wildcards.target]),
    output:
        image="results/targets/{target}.png",
    log:
        "results/logs/check_target/{target}.log",
    benchmark:
        "results/benchmarks/check_target/{target}.tsv"
    conda:
        "../../envs/slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
        disk_mb=100,
        gpu=0,
    script:
        "../../scripts/check_target.py"


rule probe_slide:
    input:
        slide=slide_file,
    output:
        json="results/slides/{slide}.json",
    log:
        "results/logs/probe_slide/{slide}.log",
    benchmark:
        "results/benchmarks/probe_slide/{slide}.tsv"
    group:
        "slide_input"
    conda:
        "../../envs/slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
        disk_mb=100,
        gpu=0,
    params:
        slide_path=lambda wildcards: str(COHORT[wildcards.slide].path),
        mpp=lambda wildcards: COHORT[wildcards.slide].mpp,
        mpp_default=config["mpp"],
        options=config["probe"],
    script:
        "../../scripts/probe_slide.py"


checkpoint list_slides:
    input:
        json=expand("results/slides/{slide}.json", slide=COHORT),
    output:
        index=SLIDE_INDEX,
    log:
        "results/logs/list_slides.log",
    benchmark:
        "results/benchmarks/list_slides.tsv"
    conda:
        "../../envs/slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000, per_slide=0.02),
        runtime=growing(10, per_slide=0.002),
        disk_mb=growing(100, per_slide=0.01),
        gpu=0,
    script:
        "../../scripts/list_slides.py"


rule accept_slides:
    input:
        index=SLIDE_INDEX,
        config=RESOLVED_CONFIG,
    output:
        accepted="results/slides/accepted.txt",
    log:
        "results/logs/accept_slides.log",
    benchmark:
        "results/benchmarks/accept_slides.tsv"
    priority: -10
    conda:
        "../../envs/slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(500, per_slide=0.02),
        runtime=growing(5),
        disk_mb=10,
        gpu=0,
    params:
        failed=FAILED,
        allow_failed_slides=config["allow_failed_slides"],
    script:
        "../../scripts/accept_slides.py"
