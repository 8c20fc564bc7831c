"""Judge every window of a backend.

INPUT  results/<sweep>/plan.json, results/<sweep>/<backend>/{audit.json,measurements/}
OUTPUT results/<sweep>/<backend>/verdicts.json
"""


rule validate:
    """Check a backend's measurements against their schema and the catalogue of faults."""
    input:
        script=f"{SCRIPTS}/validate.py",
        modules=modules_behind("validate.py"),
        plan="results/{sweep}/plan.json",
        audit="results/{sweep}/{backend}/audit.json",
        measurements=measurements,
    output:
        "results/{sweep}/{backend}/verdicts.json",
    log:
        "logs/{sweep}/validate/{backend}.log",
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
            --audit {input.audit:q} \
            --jobs {threads:q} \
            --out {output:q} 2>{log:q}
        """
