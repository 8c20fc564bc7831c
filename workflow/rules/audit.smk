"""Audit the measurements of a backend by their own files.

INPUT  results/<sweep>/plan.json, results/<sweep>/<backend>/measurements/
OUTPUT results/<sweep>/<backend>/audit.json
"""


rule audit:
    """Hash and integrate power traces anew, add up what repeats are made of, and compare them."""
    input:
        script=f"{SCRIPTS}/audit.py",
        modules=modules_behind("audit.py"),
        plan="results/{sweep}/plan.json",
        measurements=asked_measurements(),
    output:
        "results/{sweep}/{backend}/audit.json",
    log:
        "logs/{sweep}/audit/{backend}.log",
    conda:
        environment_file("workflow")
    container:
        image("workflow")
    threads: 16
    params:
        python=workflow_python,
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --sweep {wildcards.sweep:q} \
            --backend {wildcards.backend:q} \
            --plan {input.plan:q} \
            --jobs {threads:q} \
            --out {output:q} 2>{log:q}
        """
