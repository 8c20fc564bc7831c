"""Make the token ids of each model's prompts once, so that all engines get the same.

INPUT  results/<sweep>/prompts/<model>.request.json (part of the plan), the model's files
OUTPUT results/<sweep>/prompts/<model>.json
"""


rule prompts:
    """Tokenise the prompts of a model's workloads; every backend gets these ids."""
    input:
        plan=unless(is_settled, "results/{sweep}/plan.json"),
        files=unless(is_fetched, "results/models/{model}/files"),
        manifest=unless(is_fetched, "results/models/{model}/manifest.json"),
    output:
        "results/{sweep}/prompts/{model}.json",
    log:
        "logs/{sweep}/prompts/{model}.log",
    conda:
        environment_file(PREPARING)
    container:
        image(PREPARING)
    params:
        python=preparing_python,
        script=script("prompts"),
        request="results/{sweep}/prompts/{model}.request.json",
    shell:
        r"""
        {params.python:q} {params.script:q} \
            --request {params.request:q} \
            --model-folder {input.files:q} \
            --manifest {input.manifest:q} \
            --out {output:q} 2>{log:q} \
            || {{ status=$?; echo "exit status $status" >>{log:q}; exit $status; }}
        """
