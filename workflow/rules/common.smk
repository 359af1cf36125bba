# In: config.yaml and --config. Out: the checked configuration, the cohort and the targets, and the
# functions by which rules find their inputs. The only file of the workflow with functions.
import os
import sys
from functools import cache
from inspect import signature
from math import ceil
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from snakemake.common import overwrite_function_params
from stainfuser.cluster import cancel_orphans, check_partitions, collect_wanted
from stainfuser.ablation_plan import plan_instances
from stainfuser.configuration import resolve_config, write_resolved
from stainfuser.errors import ConfigError, StainFuserError
from stainfuser.evaluation_arms import arm_named, chosen_arms, slow_arms
from stainfuser.failures import gigapixels_of, late_failures, left_out, read_index
from stainfuser.io.cohort import CohortEntry, resolve_cohort
from stainfuser.io.targets import resolve_targets
from stainfuser.presets import find_model, read_contents, shipped_presets
from stainfuser.run_lock import hold_run_lock

# Threads that wait asleep: on a machine with other work, torch's spinning ones slow each other down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What is kept with the results, and may be passed on; the full one names folders of this machine.
RESOLVED_CONFIG = "results/config.yaml"
FULL_CONFIG = ".snakemake/stainfuser/config.yaml"
# An audit looks at what was written; it writes neither configuration. (Snakemake does not know its
# targets yet when it reads these lines.)
IS_AUDIT = "audit" in sys.argv[1:]
TRAINED = "results/model"
SLIDE_INDEX = "results/slides/index.csv"
FAILED = "results/slides/failed"


def resolve_inputs():
    """Return the cohort (name -> entry), the targets (name -> image) and the jobs (slide, target)."""
    if config["slides"] == "demo":
        entries = [
            CohortEntry(
                name, Path(f"results/demo/slides/{name}.svs"), "slide", site=laboratory
            )
            for name, laboratory in config["demo"]["slides"].items()
        ]
        if config["target"] == "demo":
            return index_cohort(entries, {"demo": Path("results/demo/target.png")})
    else:
        entries = resolve_cohort(config["slides"])
        if config["target"] == "demo":
            remedy = "give your reference image, e.g. target=reference.png"
            raise ConfigError(
                "configuration key target", "demo belongs to slides=demo", remedy
            )
    return index_cohort(entries, resolve_targets(config["target"]))


def index_cohort(entries, targets):
    """Give every slide its targets: those of the configuration, or its own of the table."""
    targets, pairs = dict(targets), []
    for entry in entries:
        own = {}
        if entry.target:
            own = (
                {entry.target: targets[entry.target]}
                if entry.target in targets
                else resolve_targets(entry.target)
            )
        targets.update(own)
        pairs += [(entry.name, target) for target in (own or targets)]
    return {entry.name: entry for entry in entries}, targets, pairs


def model_folder(model):
    """Return the model's folder: the one trained here, a shipped preset's, or the user's."""
    if model == "train":
        return TRAINED
    folder = find_model(model)
    read_contents(folder)
    return str(folder)


try:
    SCHEMA = Path(workflow.basedir) / "workflow/schemas/config.schema.yaml"
    config.update(resolve_config(config, SCHEMA))
    MODEL = model_folder(config["model"])
    COHORT, TARGETS, JOBS = resolve_inputs()
    ABLATION = plan_instances(
        *(config["ablation"][key] for key in ("centre", "axes", "crossed"))
    )
except StainFuserError as error:
    sys.exit(f"Error: {error}")

# Slide -> level-0 pixels / 1e9, as far as probed; `usable` adds what a running probe finds.
GIGAPIXELS = gigapixels_of(read_index(SLIDE_INDEX)) if workflow.is_main_process else {}
# On a cluster a slide's mask, tiles and results are one job, unless training stands between them.
GROUP_OF_RESULTS = "slide_results" if MODEL == TRAINED else "slide_tiles"
# Rendering is worth a GPU, applying an operator is not.
RENDERS = config["normalize"]["mode"] == "render"

if workflow.is_main_process:
    RUN_LOCK = hold_run_lock(Path(".snakemake"))
    if not IS_AUDIT:
        write_resolved(config, RESOLVED_CONFIG, FULL_CONFIG)


wildcard_constraints:
    slide=r"[^/]+",
    target=r"[^/]+",
    pair_target=r"t[0-9]+",
    arm=r"[a-z0-9_]+",


def with_known_parameters(function):
    """Return a function with its parameters noted; Snakemake would look them up for every job."""
    overwrite_function_params(function, signature(function).parameters)
    return function


def growing(base, per_gigapixel=0, per_slide=0, per_measured=0):
    """Return an amount of a resource, which grows with the slide, the cohort and the attempt.

    Of a large cohort not all slides are measured (`evaluate.max_slides`).

    Sizes are the index's; a slide that no probe has seen counts as a usual one of 40x.
    """
    measured = min(len(COHORT), config["evaluate"]["max_slides"])
    fixed = base + per_slide * len(COHORT) + per_measured * measured

    def amount(wildcards, attempt):
        gigapixels = GIGAPIXELS.get(wildcards.get("slide"), 5) if per_gigapixel else 0
        return ceil((fixed + per_gigapixel * gigapixels) * attempt)

    return with_known_parameters(amount)


@with_known_parameters
def slide_file(wildcards):
    """Return a slide's path; nothing if it is missing, so that its probe can say so."""
    return find_slide(wildcards.slide)


@cache
def find_slide(slide):
    """Return a slide's path or nothing; looked up once, as shared storages answer slowly."""
    path = COHORT[slide].path
    return str(path) if config["slides"] == "demo" or os.path.exists(path) else []


@cache
def index_as_of(mtime_ns):
    """Return the rows of the index, read once for every time it was written."""
    index = read_index(SLIDE_INDEX)
    GIGAPIXELS.update(gigapixels_of(index))
    return index


def usable(kind):
    """Return the names of slides that passed the probe and did not fail later."""
    index = index_as_of(os.stat(checkpoints.list_slides.get().output.index).st_mtime_ns)
    late = late_failures(FAILED, os.path.getmtime(RESOLVED_CONFIG))
    return [
        row["slide"]
        for row in index
        if row["verdict"] == "ok" and row["kind"] in kind and row["slide"] not in late
    ]


def tile_stores(wildcards):
    return [f"results/tiles/{slide}.h5" for slide in usable(("slide", "images"))]


def mask_overlays(wildcards):
    return [
        f"results/masks/overlay/{slide}.jpg" for slide in usable(("slide", "images"))
    ]


def target_images(wildcards):
    return [f"results/targets/{target}.png" for target in TARGETS]


def normalized_slides(wildcards):
    slides = set(usable(("slide",)))
    return [
        f"results/normalized/{target}/{slide}.svs"
        for slide, target in JOBS
        if slide in slides
    ]


def slide_previews(wildcards):
    slides = set(usable(("slide", "images")))
    return [
        f"results/preview/{target}/{slide}.json"
        for slide, target in JOBS
        if slide in slides
    ]


def slide_records(wildcards):
    return [
        str(Path(path).with_suffix(".json")) for path in normalized_slides(wildcards)
    ]


def exported_slides(wildcards):
    """Return the exports the configuration asks for, of every slide in every target's stain."""
    endings = {"ome_tiff": ".ome.tif", "dicom": ""}
    slides = normalized_slides(wildcards) if config["export"]["formats"] else []
    return [
        f"results/exported/{form}/{'/'.join(Path(slide).parts[-2:])[:-4]}{endings[form]}"
        for form in config["export"]["formats"]
        for slide in slides
    ]


def normalized_image_folders(wildcards):
    entries = set(usable(("images",)))
    return [
        f"results/normalized/{target}/{entry}"
        for entry, target in JOBS
        if entry in entries
    ]


def normalized_outputs(wildcards):
    return normalized_slides(wildcards) + normalized_image_folders(wildcards)


def is_truth_known():
    """Tell whether the truth is known: it is the demo's; slides from elsewhere have none."""
    return config["slides"] == "demo" and config["target"] == "demo"


def if_truth_known(inputs):
    """Return files of the demo's truth as inputs, or nothing."""
    return inputs if is_truth_known() else []


EVALUATED_ARMS = chosen_arms(config["evaluate"]["arms"], is_truth_known())
SLOW_ARMS = "|".join(slow_arms())


def evaluated_slides(kind):
    """Return the usable slides that are measured: of a large cohort every so manieth."""
    slides = usable(kind)
    count = min(len(slides), config["evaluate"]["max_slides"])
    return [slides[row * len(slides) // count] for row in range(count)]


def evaluation_samples(wildcards):
    slides = evaluated_slides(("slide", "images"))
    return [f"results/evaluation/sample/{slide}.h5" for slide in slides]


def evaluated_tiles(wildcards):
    slides = evaluated_slides(("slide", "images"))
    return [f"results/tiles/{slide}.h5" for slide in slides]


def consistency_reports(wildcards):
    """Return what is found on every measured slide, where delivered slides are evaluated."""
    if "delivered" not in EVALUATED_ARMS:
        return []
    slides = set(evaluated_slides(("slide", "images"))) & set(usable(("slide",)))
    return [
        f"results/evaluation/consistency/{target}/{slide}.json"
        for slide, target in JOBS
        if slide in slides
    ]


def if_all_arms_or_present(path):
    """Return a file that takes long to make where all arms are measured, or if it is there."""
    wanted = config["evaluate"]["arms"] == "all"
    return path if wanted or os.path.exists(path) else []


def arm_records(wildcards):
    return [f"results/evaluation/arms/{arm}.json" for arm in EVALUATED_ARMS]


def baseline_folders(wildcards):
    """Return what a baseline arm was trained to, a folder per target."""
    return [f"results/baselines/{target}/{wildcards.arm}" for target in TARGETS]


def if_arm_needs(need, inputs, otherwise=[]):
    """Return an input function: `inputs` of arms that have this need, `otherwise` of the others."""

    def needed(wildcards):
        if need not in arm_named(wildcards.arm).needs:
            return otherwise
        return inputs(wildcards) if callable(inputs) else inputs

    return needed


# The arms of the downstream task: those that work on tiles, and the tiles in the training stain.
DOWNSTREAM_ARMS = [
    arm for arm in EVALUATED_ARMS if arm not in ("delivered", "truth")
] + ["training_stain"]


def downstream_files():
    """Return the files of the downstream task's data set; phantoms have none."""
    folder = config["downstream"]["dataset"]
    if folder == "phantoms":
        return []
    if not os.path.isdir(folder):
        where = "configuration key downstream.dataset"
        sys.exit(
            f"Error: {ConfigError(where, f'there is no folder {folder}', 'check it')}"
        )
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


def downstream_baselines(wildcards):
    """Return the baseline that was trained for the demo's target; other targets have no truth."""
    return [f"results/baselines/demo/{wildcards.arm}"]


def downstream_products(suffix):
    """Return what every arm of the downstream task made, of one kind."""
    folder = "results/evaluation/downstream/arms"
    return [f"{folder}/{arm}{suffix}" for arm in DOWNSTREAM_ARMS]


def planned_shards(folder, suffix):
    """Return an input function: one file per training target of the pair plan."""

    def shards(wildcards):
        if config["pairs"]["attach"]:
            return []
        with open(checkpoints.plan_pairs.get().output.plan, encoding="utf-8") as plan:
            names = sorted(
                {line.rstrip("\n").rsplit(",", 1)[1] for line in list(plan)[1:]}
            )
        return [f"{folder}/{name}{suffix}" for name in names]

    return shards


def newest_file(folder):
    """Return the newest file of a model: if it changes, what was made with it is made anew."""
    suffixes = (".json", ".safetensors")
    files = [path for path in Path(folder).rglob("*") if path.suffix in suffixes]
    return str(max(files, key=lambda path: (path.stat().st_mtime_ns, str(path))))


def model_files():
    """Return the newest file of the model that normalises, if it is not trained here."""
    return [] if MODEL == TRAINED else newest_file(MODEL)


def initial_model_files():
    """Return the newest file of the model that training goes on from, if there is one."""
    name = config["train"]["initial_model"]
    try:
        return newest_file(find_model(name)) if name else []
    except StainFuserError:
        return []  # training says what is wrong with it


def is_training():
    """Tell whether a model is trained here; the demo trains one beside a shipped model."""
    return MODEL == TRAINED or (
        is_truth_known() and config["model"] in shipped_presets()
    )


def if_trained(inputs):
    """Return training products as inputs, or nothing where no model is trained."""
    return inputs if is_training() else []


def if_trained_beside(inputs):
    """Return products of a model that is trained here and not the one that normalises."""
    return inputs if is_training() and MODEL != TRAINED else []


def if_pairs_made(inputs):
    """Return products of the own pairs as inputs, or nothing where none are made."""
    return [] if config["pairs"]["attach"] else if_trained(inputs)


def recorded_reports(inputs):
    """Return what the record of a run waits for beside the normalised slides."""
    return inputs if config["provenance"]["evaluation"] else []


def given_paths():
    """Return every path that the configuration names: slides, targets, models and the like."""

    def texts(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            return [text for item in value for text in texts(item)]
        return [value] if isinstance(value, str) and os.path.isabs(value) else []

    paths = [entry.path for entry in COHORT.values()] + list(TARGETS.values())
    if MODEL != TRAINED:
        paths += [MODEL, *Path(MODEL).rglob("*")]
    return [str(path) for path in paths] + texts(config)


def current_params():
    """Return rule -> parameters that do not depend on the job, for comparison with records."""
    return {
        one.name: {
            name: value for name, value in one.params.items() if not callable(value)
        }
        for one in workflow.rules
    }


def prepare_cluster():
    """Stop on partitions that Slurm lacks, and cancel what a killed run left in its queue."""
    if workflow.executor_plugin.name != "slurm" or not workflow.is_main_process:
        return
    try:
        jobs = (job for job in workflow.dag.needrun_jobs() if not job.is_local)
        check_partitions(collect_wanted(map(asked_of_slurm, jobs)))
        if RUN_LOCK is not None:
            orphans = cancel_orphans(os.getcwd())
            if orphans:
                print(
                    f"cancelled jobs of a killed run: {', '.join(orphans)}",
                    file=sys.stderr,
                )
    except StainFuserError as error:
        sys.exit(f"Error: {error}")


def asked_of_slurm(job):
    """Return a job's rule, partition and GPUs."""
    resources = job.resources
    return job.rule.name, resources.get("slurm_partition"), resources.get("gpu", 0)


def print_outcome():
    """Print which slides were left out, in plain words, as the last thing of a run."""
    if IS_AUDIT:
        return
    failures = left_out(SLIDE_INDEX, FAILED, os.path.getmtime(RESOLVED_CONFIG))
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    if os.path.exists("results/report/index.html"):
        print("report: results/report/index.html", file=sys.stderr)
