"""Fetch or convert each model once, and make its prompts' token ids once.

INPUT  the model's entry in the config, results/<sweep>/prompts/<model>.request.json
OUTPUT results/models/<model>/{files/,manifest.json}, results/<sweep>/prompts/<model>.json
       results/models/<model>/{files-int8/,manifest-int8.json}, where a cell needs them
"""


rule model:
    """Fetch or convert a model and hash its files."""
    output:
        files=directory("results/models/{model}/files"),
        manifest="results/models/{model}/manifest.json",
    log:
        "logs/models/{model}.log",
    conda:
        environment_file(PREPARING)
    container:
        image(PREPARING)
    params:
        python=preparing_python,
        model=model_entry,
        script=f"{SCRIPTS}/models.py",
    shell:
        r"""
        {params.python:q} {params.script:q} \
            --model {params.model:q} \
            --folder {output.files:q} \
            --manifest {output.manifest:q} 2>{log:q} \
            || {{ status=$?; echo "exit status $status" >>{log:q}; exit $status; }}
        """


rule quantise:
    """Quantise a model to 8 bits for the engines that can't while they load it."""
    input:
        files="results/models/{model}/files",
        manifest="results/models/{model}/manifest.json",
    output:
        files=directory("results/models/{model}/files-int8"),
        manifest="results/models/{model}/manifest-int8.json",
    log:
        "logs/models/{model}-int8.log",
    conda:
        environment_file(PREPARING)
    container:
        image(PREPARING)
    params:
        python=preparing_python,
        script=f"{SCRIPTS}/quantise.py",
    shell:
        r"""
        {params.python:q} {params.script:q} \
            --files {input.files:q} \
            --manifest {input.manifest:q} \
            --folder {output.files:q} \
            --out {output.manifest:q} 2>{log:q} \
            || {{ status=$?; echo "exit status $status" >>{log:q}; exit $status; }}
        """


rule prompts:
    """Tokenise the prompts of a model's workloads; every backend gets these ids."""
    input:
        request=unless(is_settled, "results/{sweep}/prompts/{model}.request.json"),
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
        script=f"{SCRIPTS}/prompts.py",
    shell:
        r"""
        {params.python:q} {params.script:q} \
            --request {input.request:q} \
            --model-folder {input.files:q} \
            --manifest {input.manifest:q} \
            --out {output:q} 2>{log:q} \
            || {{ status=$?; echo "exit status $status" >>{log:q}; exit $status; }}
        """
