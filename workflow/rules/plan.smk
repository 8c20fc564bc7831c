"""Freeze what every repeat needs to know, when a run begins.

INPUT  the config
OUTPUT results/<sweep>/config.json, plan.json, specs/<cell>/<repeat>.json, prompts/<model>.request.json,
       arrivals.json

Reading the workflow makes the plan and compares it with what is there; it writes nothing. The hook
`onstart`, which runs once Snakemake holds its lock, writes what changed, so that a new cell leaves the
specs of all others as they are. What stages wait for it leaves to the rule, as <name>.new. The rule is
forced where anything that is there is of another plan, and measurements that are not current follow it.
"""


rule plan:
    """Put the new plan in the place of the old one."""
    input:
        due,
    output:
        update(PENDING.outputs()),
    log:
        f"logs/{PLAN.sweep}/plan.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    shell:
        r"""
        exec 2>{log:q}
        for file in {output:q}; do
            [ ! -e "$file.new" ] || mv "$file.new" "$file"
            touch "$file"
        done
        """


if workflow.is_main_process:
    if line := PENDING.describe():
        print(line, file=sys.stderr)
    print(summary.describe(PLANNING), file=sys.stderr)
