"""Freeze what every repeat needs to know, each time the workflow is parsed.

INPUT  the config
OUTPUT results/<sweep>/config.json, plan.json, specs/<cell>/<repeat>.json, prompts/<model>.request.json

Not a rule: Snakemake does not ask whether a spec changed while the job that writes it is still to
run, so a changed parameter would be measured one run late. Only files whose content changes are
written, so that a new cell leaves the specs of all others, and their measurements, as they are. A
sweep that has results is put back as it was when no job starts: after a dry run, say.
"""

if workflow.is_main_process:
    or_exit(freeze)
    print(plan.describe(PLAN), file=sys.stderr)
