"""Freeze what every repeat needs to know.

INPUT  the config, checked when the workflow is parsed
OUTPUT results/<sweep>/plan.json, specs/<cell>/<repeat>.json, prompts/<model>.request.json
"""


rule plan:
    """Write the expected grid, one spec per cell and repeat, and the prompts that are needed."""
    output:
        plan=f"results/{PLAN.sweep}/plan.json",
        specs=[
            plan.spec_path(PLAN.sweep, cell.id, repeat)
            for cell in PLAN.planned
            for repeat in cell.specs
        ],
        requests=expand(
            "results/{sweep}/prompts/{model}.request.json",
            sweep=PLAN.sweep,
            model=PLAN.prompt_requests,
        ),
    log:
        f"logs/{PLAN.sweep}/plan.log",
    params:
        python=workflow_python,
        config=json.dumps(config, sort_keys=True),
        digest=plan.digest(PLAN),
        provided="--environments-provided" if PROVIDED else "",
        script=f"{SCRIPTS}/plan.py",
    conda:
        environment_file("workflow")
    shell:
        r"""
        {params.python:q} {params.script:q} \
            --config {params.config:q} \
            {params.provided} 2> {log:q}
        """
