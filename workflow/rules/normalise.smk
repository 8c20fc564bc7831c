"""Turn joules and tokens into joules per token.

INPUT  results/<sweep>/<backend>/verdicts.json and the measurements that it judges
OUTPUT results/<sweep>/<backend>/metrics.json
"""


rule normalise:
    """Normalise every valid or degraded window of a backend."""
    input:
        script=f"{SCRIPTS}/normalise.py",
        modules=multiext(f"{SCRIPTS}/llm_energy/", "normalise.py", "checks/accounting.py"),
        verdicts="results/{sweep}/{backend}/verdicts.json",
        measurements=measurements,
    output:
        "results/{sweep}/{backend}/metrics.json",
    log:
        "logs/{sweep}/normalise/{backend}.log",
    params:
        python=workflow_python,
    conda:
        environment_file("workflow")
    shell:
        r"""
        {params.python:q} {input.script:q} \
            --verdicts {input.verdicts:q} \
            --out {output:q} 2> {log:q}
        """
