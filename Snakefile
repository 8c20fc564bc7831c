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


# So it does in a workflow that uses this one as a module and hands on its own config as it is.
if workflow.overwrite_configfiles and config is workflow.modifier_stack[0].globals["config"]:
    config = workflow.config_settings.overwrite_config


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
include: "workflow/rules/phases.smk"
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
OWN = {rule.name for rule in workflow.modifier.rules}
workflow.localrules(*OWN.difference(SUBMITTED))


onstart:
    start()


onsuccess:
    tell_found()


onerror:
    tell_failure()
