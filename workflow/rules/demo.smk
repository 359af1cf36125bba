# In: the configuration alone. Out: the synthetic cohort of demo laboratories, its truth and target.
rule make_demo_slide:
    output:
        slide="results/demo/slides/{slide}.svs",
        truth="results/demo/truth/{slide}.svs",
        nuclei="results/demo/nuclei/{slide}.png",
    log:
        "results/logs/make_demo_slide/{slide}.log",
    benchmark:
        "results/benchmarks/make_demo_slide/{slide}.tsv"
    conda:
        "../../envs/slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(20),
        disk_mb=500,
        gpu=0,
    params:
        options=config["demo"],
        seed=config["seed"],
    script:
        "../../scripts/make_demo_slide.py"


rule make_demo_target:
    output:
        image="results/demo/target.png",
    log:
        "results/logs/make_demo_target.log",
    benchmark:
        "results/benchmarks/make_demo_target.tsv"
    conda:
        "../../envs/slides.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
        disk_mb=100,
        gpu=0,
    params:
        options=config["demo"],
        seed=config["seed"],
    script:
        "../../scripts/make_demo_target.py"
