"""The house keeps its shape: one-way imports, scripts in step with rules, sections with stages."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = REPOSITORY / "scripts"
PACKAGE = SCRIPTS / "stainfuser"
BASE = "base"
# Layer → the layers it may import; base modules lie directly in the package.
MAY_IMPORT = {
    BASE: {BASE},
    "io": {BASE, "io"},
    "stain": {BASE, "stain"},
    "nn": {BASE, "nn"},
    "diffusion": {BASE, "io", "stain", "nn", "diffusion"},
    "provenance": {BASE, "provenance"},
    "stages": {BASE, "io", "stain", "nn", "diffusion", "provenance"},
}
FIELD = re.compile(r"snakemake\.(input|output|params)\.(\w+)")
BEFORE_TRAINING = [
    "make_demo_slide",
    "make_demo_target",
    "check_target",
    "probe_slide",
    "list_slides",
    "accept_slides",
    "mask_tissue",
    "extract_tiles",
    "cluster_stains",
    "plan_pairs",
    "transfer_style",
    "merge_pairs",
    "attach_pairs",
]


def imported_modules(source: str) -> list[str]:
    """Return the dotted names a module imports, wherever in it the import stands."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def layer_of(module: str) -> str:
    """Return the layer of ``stainfuser.x.y``: a folder's name, or base."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else BASE


def import_faults(layer: str, own_name: str, source: str) -> list[str]:
    """Return what a module imports against the direction of the layers."""
    faults = []
    for name in imported_modules(source):
        if name.split(".")[0] == "snakemake":
            faults.append(f"{own_name} imports snakemake")
        if name.split(".")[0] != "stainfuser":
            continue
        if layer_of(name) not in MAY_IMPORT[layer]:
            faults.append(f"{own_name} ({layer}) imports {name}")
    return faults


def rule_blocks(text: str) -> dict[str, dict[str, set[str]]]:
    """Return rule → section → keyword names, read from a snakefmt-formatted file."""
    rules: dict[str, dict[str, set[str]]] = {}
    rule = section = None
    for line in text.splitlines():
        header = re.match(r"\s*(?:rule|checkpoint|use rule (\w+) as) (\w+)(?: with)?:", line)
        if header:
            rule, section, indent = header[2], None, len(line) - len(line.lstrip()) + 4
            rules[rule] = dict(rules[header[1]]) if header[1] else {}
        elif rule and (start := re.match(rf"\s{{{indent}}}(\w+):", line)):
            section = start[1]
            rules[rule][section] = set()
        elif rule and section and (key := re.match(rf"\s{{{indent + 4}}}(\w+)=", line)):
            rules[rule][section].add(key[1])
    return rules


def field_faults(script: str, source: str, rule: dict[str, set[str]] | None) -> list[str]:
    """Return the snakemake.X.Y a script uses and its rule does not have."""
    if rule is None:
        return [f"{script} has no rule of its name"]
    used = FIELD.findall(source)
    return [f"{script}: {a}.{b}" for a, b in used if b != "get" and b not in rule.get(a, set())]


def stage_call(source: str) -> ast.Call:
    """Return the call of the stage in an entry script."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return next(
        call for call in calls if isinstance(call.func, ast.Name) and call.func.id != "recorded"
    )


def is_recorded(source: str) -> bool:
    """Tell whether all of an entry script's work stands inside ``with recorded(snakemake):``."""
    imports = (ast.Import, ast.ImportFrom, ast.Expr)
    body = [node for node in ast.parse(source).body if not isinstance(node, imports)]
    if len(body) != 1 or not isinstance(body[0], ast.With):
        return False
    call = body[0].items[0].context_expr
    return ast.unparse(call).startswith("recorded(snakemake")


def option_names(script_source: str, stage_source: str, stage: str) -> set[str]:
    """Return the stage's parameters that the script fills from the configuration section."""
    passed = {keyword.arg for keyword in stage_call(script_source).keywords if keyword.arg}
    tree = ast.parse(stage_source)
    function = next(
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == stage
    )
    arguments = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return {argument.arg for argument, default in arguments if default is None} - passed


RULES = {
    rule: sections
    for path in sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))
    for rule, sections in rule_blocks(path.read_text()).items()
}
ENTRY_SCRIPTS = sorted(SCRIPTS.glob("*.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))
CONFIG = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
SECTIONS = {key: value for key, value in CONFIG.items() if isinstance(value, dict)}
# A rule that always runs, and whose page has to outlive what Snakemake takes for its failure.
WITHOUT_PRODUCT = {"audit": {"output", "benchmark"}}
# Rules that run another one's script (`use rule`), with other resources.
DERIVED_FROM = {"apply_slow_arm": "apply_arm"}
# Keys a rule passes by name, or that choose between rules.
PASSED_BY_NAME = {
    "pairs": {"attach", "sources_per_target"},
    "operator_head": {"images"},
    "evaluate": {"arms", "max_slides"},
    "export": {"formats"},
    "provenance": {"evaluation", "license"},
    "baselines": {"steps"},
    "ablation": {"centre", "axes", "crossed"},
}
STAGES_OF = {
    "demo": ["make_demo_slide", "make_demo_target"],
    "probe": ["probe_slide"],
    "mask": ["mask_tissue"],
    "tiles": ["extract_tiles"],
    "clusters": ["cluster_stains"],
    "pairs": ["transfer_style"],
    "train": ["train_normalizer"],
    "operator_head": ["train_operator_head"],
    "compact_diffusion": ["train_compact_diffusion"],
    "preview": ["preview_slide"],
    "normalize": ["normalize_slide", "normalize_images"],
    "export": ["export_ome_tiff", "export_dicom"],
    "downstream": ["prepare_downstream", "train_segmenter", "segment_arm"],
    "evaluate": [
        "sample_evaluation_tiles",
        "apply_arm",
        "measure_arm",
        "measure_distribution",
        "summarize_evaluation",
    ],
    "baselines": ["train_baseline"],
    "ablation": ["make_ablation_phantoms", "train_ablation", "summarize_ablation"],
    "studies": ["study_latent_detail", "study_data_diversity", "study_scanner_variation"],
    "report": ["render_report"],
    "provenance": ["record_provenance"],
    "benchmark_slides": ["benchmark_slides"],
    "simulate_cohort": ["simulate_cohort"],
    "benchmark_model": ["benchmark_model"],
}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    relative = path.relative_to(PACKAGE)
    if relative.name == "__init__.py" and len(relative.parts) == 1:
        pytest.skip("offers public names of every layer, each imported when it is first used")
    layer = relative.parts[0] if len(relative.parts) > 1 else BASE
    assert import_faults(layer, str(relative), path.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_stages_do_not_import_stages(path):
    if path.parent.name == "stages":
        names = imported_modules(path.read_text())
        assert [name for name in names if name.startswith("stainfuser.stages")] == []


@pytest.mark.parametrize("path", ENTRY_SCRIPTS, ids=lambda p: p.name)
def test_scripts_use_what_their_rule_has(path):
    assert field_faults(path.stem, path.read_text(), RULES.get(path.stem)) == []


@pytest.mark.parametrize("path", ENTRY_SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_thin(path):
    assert len(path.read_text().splitlines()) <= 35
    assert stage_call(path.read_text()).func.id == path.stem


@pytest.mark.parametrize("path", ENTRY_SCRIPTS, ids=lambda p: p.name)
def test_every_job_is_recorded(path):
    repair = 'from stainfuser.recording import recorded, then "with recorded(snakemake):"'
    assert is_recorded(path.read_text()), f"{path.name} runs its stage without a record: {repair}"


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_has_script_log_and_benchmark(rule):
    sections = {"output", "log", "benchmark", "threads", "resources", "script"}
    assert sections - WITHOUT_PRODUCT.get(rule, set()) <= set(RULES[rule])
    stage = DERIVED_FROM.get(rule, rule)
    assert (SCRIPTS / f"{stage}.py").exists()
    assert (PACKAGE / "stages" / f"{stage}.py").exists()


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_says_what_it_needs_of_a_cluster(rule):
    """Memory and time that `growing` of common.smk returns are larger at every attempt."""
    assert {"mem_mb", "runtime", "disk_mb", "gpu"} <= RULES[rule]["resources"]


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_a_section_has_exactly_its_stages_options(section):
    options: set[str] = set()
    for stage in STAGES_OF[section]:
        script = (SCRIPTS / f"{stage}.py").read_text()
        options |= option_names(script, (PACKAGE / "stages" / f"{stage}.py").read_text(), stage)
    assert options == set(SECTIONS[section]) - PASSED_BY_NAME.get(section, set())


def test_the_schema_knows_exactly_the_keys_of_the_configuration():
    schema = yaml.safe_load((REPOSITORY / "workflow/schemas/config.schema.yaml").read_text())
    assert set(schema["properties"]) == set(CONFIG)
    assert schema["additionalProperties"] is False
    for section, keys in SECTIONS.items():
        part = schema["properties"][section]
        assert set(part["properties"]) == set(keys)
        assert set(part["required"]) == set(keys)
        assert part["additionalProperties"] is False


def test_no_rule_before_training_imports_a_network_library():
    lines = [f"import stainfuser.stages.{stage}" for stage in BEFORE_TRAINING]
    heavy = "{'torch', 'diffusers', 'accelerate', 'torchmetrics'}"
    code = "\n".join(["import sys", *lines, f"print(sorted({heavy} & set(sys.modules)))"])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_the_package_is_light():
    code = (
        "import sys, stainfuser; print(sorted({'torch', 'numpy', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def pinned(name: str) -> list[str]:
    """Return the pins of a file in envs/, lower-case."""
    lines = (REPOSITORY / "envs" / name).read_text().lower().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def everything_imported(modules: list[str]) -> set[str]:
    """Return the names that modules import, and what these import in turn, wherever it stands."""
    seen: set[str] = set()
    left = list(modules)
    while left:
        name = left.pop()
        path = SCRIPTS / name.replace(".", "/")
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in seen or not source.exists() or name == "stainfuser":
            seen.add(name)
            continue
        seen.add(name)
        for found in imported_modules(source.read_text()):
            left += [found, found.rpartition(".")[0]]
    return seen


def test_environments_are_in_step_with_the_pins():
    constraints = pinned("constraints.txt")
    for name in ("requirements.txt", "requirements-dev.txt"):
        assert [line for line in pinned(name) if line not in constraints] == []
    known = {line.split("==")[0] for line in constraints}
    extra = [line for line in pinned("requirements-slurm.txt") if line.split("==")[0] in known]
    assert [line for line in extra if line not in constraints] == []
    assert set(pinned("requirements-slides.txt")) < set(pinned("requirements.txt"))


@pytest.mark.parametrize(
    ("environment", "pins"),
    [("stainfuser.yaml", "requirements.txt"), ("slides.yaml", "requirements-slides.txt")],
)
def test_conda_files_name_the_pins_and_this_python(environment, pins):
    conda = yaml.safe_load((REPOSITORY / "envs" / environment).read_text())
    python, _, packages = conda["dependencies"]
    assert python == "python =3.11" and conda["channels"][0] == "conda-forge"
    assert packages["pip"] == [f"-r {pins}", "-c constraints.txt"]


def test_images_hold_the_pins_and_this_python():
    for name in ("Dockerfile", "stainfuser.def"):
        recipe = (REPOSITORY / "envs" / name).read_text()
        assert "python:3.11-slim" in recipe
        assert "-r envs/requirements.txt -c envs/constraints.txt" in recipe


def test_rules_of_the_small_environment_import_nothing_beside_it():
    names = re.compile(r"(?:rule|checkpoint) (\w+):")
    rules = []
    for path in sorted((REPOSITORY / "workflow" / "rules").glob("*.smk")):
        blocks = re.split(r"(?=\n *(?:rule|checkpoint) \w+:)", "\n" + path.read_text())
        rules += [names.search(block)[1] for block in blocks if "envs/slides.yaml" in block]
    assert {"probe_slide", "mask_tissue", "extract_tiles"} <= set(rules)
    beside = set(pinned("requirements.txt")) - set(pinned("requirements-slides.txt"))
    modules = [f"stainfuser.stages.{rule}" for rule in rules] + ["stainfuser.recording"]
    found = {name.split(".")[0].lower() for name in everything_imported(modules)}
    assert found & {pin.split("==")[0] for pin in beside} == set()


# The checks themselves must be able to fail.


def test_a_wrong_import_is_found():
    assert import_faults("io", "io/x.py", "from stainfuser.stain import tissue")
    assert import_faults("stain", "stain/x.py", "import stainfuser.nn.backbones")
    assert import_faults("base", "x.py", "def f():\n    from stainfuser.stages import probe_slide")
    assert import_faults("nn", "nn/x.py", "import snakemake")
    assert (
        import_faults("stages", "stages/x.py", "from stainfuser.io.slides import SlideReader") == []
    )


def test_a_field_the_rule_lacks_is_found():
    rules = rule_blocks("rule a:\n    input:\n        b=1,\n    output:\n        c=2,\n")
    assert rules == {"a": {"input": {"b"}, "output": {"c"}}}
    derived = "use rule a as d with:\n    output:\n        e=3,\n"
    text = "rule a:\n    input:\n        b=1,\n\n\n" + derived
    assert rule_blocks(text)["d"] == {"input": {"b"}, "output": {"e"}}
    assert field_faults("a", "f(snakemake.input.b, snakemake.output.c)", rules["a"]) == []
    assert field_faults("a", "f(snakemake.input.c)", rules["a"]) == ["a: input.c"]
    assert field_faults("z", "", None)


def test_a_job_without_a_record_is_found():
    assert is_recorded("import x\nwith recorded(snakemake):\n    x.a()")
    assert not is_recorded("import x\nwith logged(snakemake.log[0]):\n    x.a()")
    assert not is_recorded("import x\nx.a()")


def test_an_option_without_a_key_is_found():
    script = "with recorded(snakemake):\n    a(x=1, **snakemake.params.options)"
    stage = "def a(*, x: int, steps: int, workers: int = 1) -> None: ..."
    assert option_names(script, stage, "a") == {"steps"}
