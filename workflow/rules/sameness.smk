"""Say whether the backends of a sweep did the same work.

INPUT  results/<sweep>/plan.json and the measurements that it names
OUTPUT results/<sweep>/tables/sameness.{csv,md,tex,txt}
"""


rule sameness:
    """Compare prompts, weights, lengths and output ids between backends."""
    input:
        script=f"{SCRIPTS}/sameness.py",
        modules=modules_behind("sameness.py"),
        plan="results/{sweep}/plan.json",
        measurements=asked_measurements(),
    output:
        multiext("results/{sweep}/tables/sameness", ".csv", ".md", ".tex", ".txt"),
    log:
        "logs/{sweep}/sameness.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    params:
        python=workflow_python,
        folder=subpath(output[0], parent=True),
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --plan {input.plan:q} \
            --out-dir {params.folder:q} 2>{log:q}
        """
