# Measure what inference of language models costs in energy.
#
# results/models/<model>/                       weights and tokenizer, shared by all sweeps
# results/<sweep>/plan.json                     every expected cell; specs/ beside it, one a repeat
# results/<sweep>/prompts/<model>.json          the token ids that every backend gets
# results/<sweep>/arrivals.json                 when requests come, where traffic is timed
# results/<sweep>/<backend>/measurements/       raw measurements, <cell>/<repeat>.json
# results/<sweep>/<backend>/{audit,verdicts,metrics,aggregate}.json
# results/<sweep>/{tables,figures}/             what a paper prints
# results/<sweep>/data/                         the same as tidy tables
# results/<sweep>/report.html                   all of it on one page
#
# A cell is model--backend--precision. results/README.md says more.

from snakemake.utils import min_version

min_version("9.0")


# A config given on the command line stands alone: what it leaves out takes the schema's default,
# never this default sweep's value. `make paper` names a sweep that is measured and needs no config.
if not (workflow.overwrite_configfiles or "measured" in config):

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


# Where the measurements are there, no rule can plan, prepare or measure anything.
if not MEASURED:

    include: "workflow/rules/plan.smk"
    include: "workflow/rules/models.smk"
    include: "workflow/rules/quantise.smk"
    include: "workflow/rules/prompts.smk"
    include: "workflow/rules/measure.smk"


include: "workflow/rules/audit.smk"
include: "workflow/rules/validate.smk"
include: "workflow/rules/normalise.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/load_curve.smk"
include: "workflow/rules/sameness.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/provenance.smk"


rule paper:
    """Make what a paper prints, and what leads back from there to the measurements."""
    input:
        outputs(rules.tables, sweep=PLAN.sweep),
        outputs(rules.compare, sweep=PLAN.sweep),
        outputs(rules.data, sweep=PLAN.sweep),
        outputs(rules.provenance, sweep=PLAN.sweep),
        outputs(rules.figures, sweep=PLAN.sweep),
        outputs(rules.report, sweep=PLAN.sweep),
        outputs(rules.sameness, sweep=PLAN.sweep),


# The measurements are named too: Snakemake does not miss a deleted file between two that are there.
rule all:
    """Make all results of the sweep."""
    default_target: True
    input:
        rules.paper.input,
        asked_measurements(),


# On a cluster only these are submitted. All else takes seconds, and nodes may not reach the hub that
# `models` fetches from: it runs beside Snakemake.
SUBMITTED = ("measure", "quantise")
workflow.localrules(*(rule.name for rule in workflow.rules if rule.name not in SUBMITTED))


onstart:
    check_executor()
    say_steps()
    if not MEASURED:
        or_exit(begin)


# What was found is told last of all, after Snakemake's own last lines.
# Of a sweep that is measured, scripts/paper.py tells it: only that knows where it was called from.
onsuccess:
    if not MEASURED:
        atexit.register(print, closing.closing_message(PLAN.sweep, PLAN.backends))


onerror:
    atexit.register(print, after_failure())
