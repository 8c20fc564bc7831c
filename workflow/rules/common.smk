"""Check the config, plan the sweep, and answer what rules ask: the only rule file with functions.

INPUT  the config as Snakemake merged it; or, with `--config measured=<sweep>`, that sweep's plan.json
OUTPUT PLAN, PLANNING, and the functions that rules use for inputs, parameters and environments
"""

import atexit
import json
import os
import re
import sys
import tempfile
from functools import cache
from pathlib import Path

# A workflow may use this one as a module: its own folder is then not this project's.
IS_MODULE = not workflow.modifier.is_main_snakefile()


def project_folder():
    """Return the project's folder, cloned below `.snakemake` where Snakemake reads it from git.

    Snakemake fetches rule files one by one; the stages need the whole commit, and its name.
    """
    rules_folder = workflow.current_basedir
    if isinstance(rules_folder, os.PathLike):
        return Path(rules_folder).parents[1]
    import git

    hosted = getattr(rules_folder, "hosted_repo", None)
    source = hosted.repo if hosted else git.Repo(rules_folder.repo_path)
    commit = source.commit(rules_folder.ref).hexsha
    folder = Path(".snakemake", "llm-energy-source", commit).absolute()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            clone = source.clone(f"{place}/clone", no_checkout=True)
            clone.git.checkout(commit)
            clone.close()
            os.rename(f"{place}/clone", folder)
    return folder


ROOT = project_folder()
SCRIPTS = f"{ROOT}/scripts"
sys.path.insert(0, SCRIPTS)

from llm_energy.publish.provenance import archive
from llm_energy.publish import closing, tables
from llm_energy.environments import registry, tools
from llm_energy.analysis.evidence import failures
from llm_energy.plan import freeze, plan, summary
from llm_energy.core import locks, terminal
from llm_energy.core.cli import escape_what_lacks
from llm_energy.plan.config.load import load_sweep
from llm_energy.core.errors import LlmEnergyError
from llm_energy.core.files import require_folder, require_room
from llm_energy.plan.imports import modules_behind
from llm_energy.records import read_plan
from llm_energy.records.files import paths
from llm_energy.records.plan import cell_id
from llm_energy.records.registry.order import block_rank
from llm_energy.records.registry.precisions import CHECKPOINTS

# With conda or containers Snakemake provides the environments, else they are the venvs that
# `make envs` builds.
PROVIDERS = sorted(str(method) for method in workflow.deployment_settings.deployment_method)
PROVIDED = bool(PROVIDERS)
# The sweep whose measurements are there already: nothing is planned, prepared or measured.
MEASURED = config.get("measured")

if "conda" in PROVIDERS:
    registry.let_pip_add_nothing()


def or_exit(function, *arguments):
    """Call a function; a mistake of the user's ends in one message and exit 1."""
    try:
        return function(*arguments)
    except LlmEnergyError as error:
        # A WorkflowError would print where in this file it was raised, which helps nobody.
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def check_folder():
    """Check that the project lies where Snakemake can name its files, which keep their names."""
    if set("{}") & set(SCRIPTS):
        raise LlmEnergyError(
            f"{ROOT}: the path of the project has a brace, which is a wildcard to "
            "Snakemake; move or rename the folder"
        )
    if IS_MODULE and (
        workflow.modifier.modify_rulename("all") != "all"
        or workflow.modifier.path_modifier.replace_prefix("results", None) != "results"
    ):
        raise LlmEnergyError(
            f"module {__name__}: its rules and files keep their names; leave out `prefix:` and "
            f"`as`: use rule * from {__name__}"
        )


def planned_sweep():
    """Check the config and plan the sweep, or read the plan of one that is measured."""
    if MEASURED:
        return None, None, read_plan(MEASURED)
    tools.require(PROVIDERS)
    sweep = load_sweep(config, workflow.overwrite_configfiles or workflow.configfiles)
    require_folder(Path(paths.sweep_folder(sweep.name)))
    sweep = plan.with_device(sweep, None if workflow.is_main_process else Path())
    engine = plan.installed_engine(ROOT, sweep.device, PROVIDED)
    made = plan.make_plan(sweep, engine)
    return sweep, made, made.plan


def require_stages():
    """Check that the environment is there in which all stages but measuring run."""
    if not PROVIDED and not registry.interpreter(ROOT, "workflow").exists():
        raise LlmEnergyError(
            f"{ROOT / '.venvs'}: no environments; build them with `{registry.make_envs()}`, or let "
            "conda do it: --sdm conda"
        )


def check_executor():
    """Check that the programs are there with which jobs are submitted."""
    or_exit(tools.require, [workflow.executor_plugin.name])


def say_steps():
    """Say one line of each step; measuring jobs of this host say their own, with the time left."""
    local = workflow.executor_plugin.name == "local"
    terminal.one_line_a_step(logger.handlers, ["measure"] if local else [])


def interpreter(environment):
    """Return the Python that runs in an environment."""
    return "python" if PROVIDED else str(registry.interpreter(ROOT, environment))


def environment_file(environment):
    """Return the conda environment's file."""
    return f"{ROOT}/envs/{environment}.yaml"


def image(environment):
    """Return the image of an environment, or None: then its rules run outside of containers."""
    return SWEEP.containers.get(environment) if SWEEP else None


def backend_image(wildcards):
    """Return the image of a backend."""
    return image(ENVIRONMENTS[wildcards.backend])


def backend_environment(wildcards):
    """Return the environment's file of a backend."""
    return environment_file(ENVIRONMENTS[wildcards.backend])


# Where a Python lies invalidates no result. Snakemake leaves a parameter out of what makes a job run
# again when the parameter's function takes `resources`.
def backend_python(wildcards, resources):
    """Return the Python of a backend's environment."""
    return interpreter(ENVIRONMENTS[wildcards.backend])


def preparing_python(wildcards, resources):
    """Return the Python that converts models and tokenises prompts."""
    return interpreter(PREPARING)


def workflow_python(wildcards, resources):
    """Return the Python of the stages that need no engine."""
    return interpreter("workflow")


def script(name):
    """Return the parameter that is a script's path, for what an edited script must not make again."""
    return lambda wildcards, resources: f"{SCRIPTS}/{name}.py"


def cell_of(wildcards):
    """Return the cell that a job is of."""
    return cell_id(wildcards.model, wildcards.backend, wildcards.precision)


def spec_of(wildcards):
    """Return the spec of a job's repeat, or of the cell's first."""
    repeat = wildcards.get("repeat", paths.repeat_name(1))
    return PLANNING.specs[str(paths.spec(PLAN.folder, cell_of(wildcards), repeat))]


def measuring_priority(wildcards):
    """Order measurements: block after block, each in its own seeded random order."""
    return -block_rank(SWEEP.order_seed, wildcards.repeat, cell_of(wildcards))


def outputs(rule, **wildcards):
    """Return a rule's outputs with some wildcards filled in.

    Where a profile puts results into a bucket, a path of a rule has become one of the local copy,
    which `expand` refuses: the path in the bucket is taken then.
    """
    prefix = workflow.storage_settings.default_storage_prefix
    paths = [
        (
            path.flags["storage_object"].query.removeprefix(prefix).lstrip("/")
            if "storage_object" in path.flags
            else path
        )
        for path in rule.output
    ]
    return expand(paths, allow_missing=True, **wildcards)


def gpus(wildcards):
    """Return how many GPUs a repeat of a cell occupies."""
    return plan.gpus_needed(spec_of(wildcards))


def model_entry(wildcards):
    """Return a model's entry of the config as JSON."""
    return json.dumps(PLANNING.models[wildcards.model], sort_keys=True)


def checkpoint_entry(wildcards):
    """Return the entry of a model's quantised checkpoint as JSON."""
    return json.dumps(PLANNING.checkpoints[wildcards.model, wildcards.checkpoint], sort_keys=True)


def quantised_manifest(wildcards):
    """Return the manifest of a model's files quantised before where a cell reads them, else nothing."""
    reads = spec_of(wildcards).quantised_before
    return str(paths.quantised_manifest(PLAN.folder, wildcards.model, reads)) if reads else []


def start(log=None):
    """Do what comes before the first job."""
    check_executor()
    say_steps()
    if not MEASURED:
        or_exit(begin)


def tell_found(log=None):
    """Tell what was found last of all, after Snakemake's own last lines.

    Of a sweep that is measured, scripts/paper.py tells it: only that knows where it was called from.
    """
    if not MEASURED:
        atexit.register(print, closing.closing_message(PLAN.sweep, PLAN.backends))


def tell_failure(log=None):
    """Make what can be made after a failure, and tell it last of all."""
    atexit.register(print, after_failure())


@cache
def take_hooks():
    """Have Snakemake call this module's hooks too, which it leaves out, before the main workflow's."""
    for name, hook in {"onstart": start, "onsuccess": tell_found, "onerror": tell_failure}.items():
        own = workflow.globals.get(name, bool)
        getattr(workflow, name)(lambda log, hook=hook, own=own: (hook(log), own()))


def begin():
    """Write the plan where there is room, and put right what a clock that was ahead would spoil."""
    require_room(PLAN.folder)
    models = [paths.model_files(PLAN.folder, model).parent for model in PLANNING.models]
    if count := freeze.bring_back([Path(SCRIPTS), PLAN.folder, *models]):
        print(f"{count} files were dated in the future and have the present time now.")
    PENDING.write()


def due(wildcards):
    """Force the plan's rule where any result waits for a new plan; it has no input.

    Snakemake calls this when it asks what to do, and only then is known what the command is. A run
    takes the sweep here, before Snakemake's own lock.
    """
    settings = workflow.execution_settings
    if workflow.is_main_process and settings and not workflow.dryrun:
        if settings.lock and (line := or_exit(locks.hold_sweep, PLAN.sweep)):
            print(line, file=sys.stderr)
        or_exit(require_stages)
        if settings.no_hooks:  # no `onstart` comes
            or_exit(begin)
        elif IS_MODULE:
            take_hooks()
    if PENDING.needed:
        workflow.dag.forcerules.add(workflow.get_rule("plan"))
    return []


def unless(holds, path):
    """Return an input that is no reason to run a job again where what the job makes holds.

    Where the user forces jobs nothing holds: what is in their outputs is about to change.
    """

    def found(wildcards):
        given = path(wildcards) if callable(path) else path.format(**wildcards)
        asked = workflow.dag_settings
        forced = asked.forceall or asked.forcetargets or asked.forcerun
        return ancient(given) if given and holds(wildcards) and not forced else given

    return found


def is_not_stale(wildcards):
    """Tell whether no measurement stands for a repeat that is to be taken anew."""
    cell = cell_of(wildcards)
    path = str(paths.measurement(PLAN.folder, wildcards.backend, cell, wildcards.repeat))
    return path not in PENDING.stale and path not in PENDING.again


def is_fetched(wildcards):
    """Tell whether a model's files are what the config asks."""
    return wildcards.model in PENDING.fetched


def is_settled(wildcards):
    """Tell whether a model's files and prompts are what the config asks."""
    return wildcards.model in PENDING.settled


def arrivals(wildcards):
    """Return the file of the arrivals where a workload has timed traffic, else nothing."""
    return str(paths.arrivals(PLAN.folder)) if PLANNING.arrivals.timed else []


def asked_measurements(backend=None):
    """Return the measurements of a backend, or of all, that the plan asks for.

    Of a sweep that is measured they are those that are there; those that are not become rows.
    """
    asked = PLAN.measurements(backend)
    return [path for path in asked if not MEASURED or Path(path).is_file()]


def measurements(wildcards):
    """Return the measurements of a backend that the plan asks for."""
    return asked_measurements(wildcards.backend)


def failed_jobs():
    """Return the rule and the log of each job that failed."""
    jobs = [one for job in workflow.scheduler.failed for one in getattr(job, "jobs", [job])]
    return sorted((job.rule.name, next(map(str, job.log), None)) for job in jobs)


def unmade_measurements():
    """Return the measurements that this run was to make, and of which a job failed before."""
    failed = [one for job in workflow.scheduler.failed for one in getattr(job, "jobs", [job])]
    jobs = (*failed, *workflow.scheduler.remaining_jobs)
    return {str(path) for job in jobs if job.rule.name == "measure" for path in job.output}


def after_failure():
    """Make all that what is there allows, keep why the rest is not, and return the last lines."""
    if MEASURED:
        return closing.stages_message(failed_jobs())
    if workflow.scheduler.running or workflow.scheduler.open_jobs:  # interrupted
        return closing.stopped_message(PLAN)
    # Results in a bucket are not below this folder.
    unmade = set() if workflow.storage_settings.default_storage_prefix else unmade_measurements()
    failures.record_failures(PLAN, PLANNING.specs, unmade)
    if unmade:
        print("Making the tables of what was measured.", file=sys.stderr)
        provided = ["--software-deployment-method", "conda"] if "conda" in PROVIDERS else []
        options = ("--nolock", "--forcerun", "audit", "--quiet", "all", *provided)
        archive.make_paper(PLAN.sweep, Path(), *options)
    batch_logs = "logs/slurm" if workflow.executor_plugin.name == "slurm" else None
    return closing.closing_message(PLAN.sweep, PLAN.backends, failed_jobs(), batch_logs)


def any_of(names):
    """Return the pattern that matches one of the names and nothing else."""
    return "|".join(re.escape(name) for name in sorted(set(names)))


escape_what_lacks()
or_exit(check_folder)
SWEEP, PLANNING, PLAN = or_exit(planned_sweep)
# What a run would write of the plan, and which measurements it takes anew.
PENDING = freeze.Pending(PLAN.sweep)
if SWEEP and workflow.is_main_process:
    PENDING = freeze.pending(PLANNING, config, Path(), SWEEP.policy.measure_again)
TABLES = list(tables.TABLES)
ENVIRONMENTS, PREPARING = {}, None
if SWEEP:
    ENVIRONMENTS = {
        backend.id: registry.environment_name(
            backend.engine, registry.variant(SWEEP.device, backend.environment)
        )
        for backend in SWEEP.backends
        if any(cell.backend == backend.id for cell in PLAN.planned)
    }
    # Models are converted and prompts tokenised with the default backend's packages; simulated ones
    # need none.
    PREPARING = registry.preparing_name([b.engine for b in SWEEP.backends], SWEEP.device)

if SWEEP and PROVIDERS == ["apptainer"]:
    or_exit(
        registry.require_images,
        SWEEP.containers,
        ["workflow", PREPARING, *ENVIRONMENTS.values()],
    )

# The profile of a cluster joins the jobs of one group into one allocation.
BLOCK = "block_{repeat}" if SWEEP and SWEEP.policy.same_node_per_block else None


wildcard_constraints:
    sweep=re.escape(PLAN.sweep),
    model=any_of(cell.model for cell in PLAN.cells),
    backend=any_of(cell.backend for cell in PLAN.cells),
    precision=any_of(cell.precision for cell in PLAN.cells),
    checkpoint=any_of(CHECKPOINTS),
    repeat=r"r\d+",
