"""Record what every row of every table was made from.

INPUT  everything of the sweep up to its tables, data and figures
OUTPUT results/<sweep>/provenance.json
"""


rule provenance:
    """Hash the files of the sweep, and name the cells and workloads behind every row."""
    input:
        script=f"{SCRIPTS}/provenance.py",
        modules=modules_behind("provenance.py"),
        plan="results/{sweep}/plan.json",
        measurements=asked_measurements(),
        results=outputs(rules.aggregate, backend=PLAN.backends),
        tables=rules.tables.output,
        compared=rules.compare.output,
        sameness=rules.sameness.output,
        data=rules.data.output,
        figures=rules.figures.output,
    output:
        "results/{sweep}/provenance.json",
    log:
        "logs/{sweep}/provenance.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    params:
        python=workflow_python,
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --sweep {wildcards.sweep:q} \
            --out {output:q} 2>{log:q}
        """
