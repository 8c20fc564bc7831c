"""Turn joules and tokens into joules per token.

INPUT  results/<sweep>/<backend>/verdicts.json and the measurements that it judges
OUTPUT results/<sweep>/<backend>/metrics.json
"""


rule normalise:
    """Normalise every valid or degraded window of a backend."""
    input:
        script=f"{SCRIPTS}/normalise.py",
        modules=modules_behind("normalise.py"),
        verdicts="results/{sweep}/{backend}/verdicts.json",
        measurements=measurements,
    output:
        "results/{sweep}/{backend}/metrics.json",
    log:
        "logs/{sweep}/normalise/{backend}.log",
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
            --verdicts {input.verdicts:q} \
            --jobs {threads:q} \
            --out {output:q} 2>{log:q}
        """
