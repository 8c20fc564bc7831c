# Build the isolated environments, and run the demo, the tests and the linters in them.

# The backends of the default sweep, and the build of their environments: auto, cpu or cuda.
BACKENDS ?= pytorch vllm
VARIANT ?= auto
PYTHON ?= python3
MODEL ?= results/models/smollm2-135m/files
# How often `make torture` kills a sweep, and how many examples it draws a reader.
KILLS ?= 100
FUZZ ?= 20000
# The Python that has TensorRT-LLM, around which .venvs/tensorrt is made.
TENSORRT_PYTHON ?= python3
# What tests need of the system beside Python (tests/support/system_tools.py).
TEST_TOOLS = latex chromium slurm

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help demo paper audit verify export doctor report envs test lint format bench torture locks audit-locks pictures clean tools \
        test-envs test-tools test-whole test-parts test-workflows test-engines test-sweeps test-units

DEV = .venvs/dev/bin
UV = .venvs/uv/bin/uv
SNAKEFILES = Snakefile workflow

# Prints the stamps of the backends' environments.
STAMPS = PYTHONPATH=scripts $(PYTHON) -m llm_energy.environments.registry --variant $(VARIANT)

# On CPU, PyTorch's CPU build is taken: from the folder that pip is told of, where there is one (uv
# reads no pip configuration), else from PyTorch's own index. Its version is the lock's with `+cpu`.
comma := ,
space := $() $()
CPU_LINKS := $(subst $(space),$(comma),$(strip $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))))
CPU_BUILD = $(if $(CPU_LINKS),--find-links $(CPU_LINKS),--torch-backend cpu)
unexport UV_FIND_LINKS

# Engines take ten seconds longer to import without bytecode. So it is written, whatever the shell
# says, and once at the build: else the first repeat's start would differ from all others.
unexport PYTHONDONTWRITEBYTECODE
IMPORTS_workflow = import snakemake.cli, scipy.stats, jsonschema, jinja2, altair, matplotlib, pyarrow.parquet
IMPORTS_pytorch = import torch, accelerate, bitsandbytes, codecarbon, gguf; \
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
IMPORTS_openai = import aiohttp, codecarbon, fastapi, openai, psutil, tokenizers, uvicorn
IMPORTS_vllm = import codecarbon; from vllm import EngineArgs, LLMEngine, SamplingParams; \
    import vllm.v1.worker.gpu_worker, vllm.model_executor.models.llama, vllm_bnb_plugin

help: ## print this list
	@echo "make TARGET [BACKENDS='$(BACKENDS)'] [VARIANT=auto|cpu|cuda] [PYTHON=$(PYTHON)]"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST)

demo: envs ## run the default sweep end to end and print its table
	@.venvs/workflow/bin/snakemake --cores 1

paper: .venvs/workflow/.installed ## tables and figures from measurements alone: SWEEP=name or ARCHIVE=path
	@.venvs/workflow/bin/python scripts/paper.py \
	  $(if $(ARCHIVE),--archive "$$ARCHIVE",--sweep '$(or $(SWEEP),demo)')

verify: .venvs/workflow/.installed ## verify that nothing which the tables of SWEEP rest on has changed
	@.venvs/workflow/bin/python scripts/lineage.py 'results/$(or $(SWEEP),demo)' --verify

audit: .venvs/workflow/.installed ## prove from the files alone that nothing was changed or lost: SWEEP=name or ARCHIVE=path
	@.venvs/workflow/bin/python scripts/audit.py \
	  $(if $(ARCHIVE),--archive "$$ARCHIVE",--sweep '$(or $(SWEEP),demo)')

export: .venvs/workflow/.installed ## pack SWEEP as an RO-Crate zip file (EXPORT='--author ... --license ...')
	@.venvs/workflow/bin/python scripts/export.py 'results/$(or $(SWEEP),demo)' $(EXPORT)

doctor: envs ## say what can be measured on this host, how well, and what would mend the rest
	@set -- $$($(STAMPS) $(BACKENDS)); $${1%/.installed}/bin/python scripts/doctor.py

report: envs .venvs/pytest/.installed ## collect what an issue about BACKENDS needs, into report-*.zip
	@for backend in $(BACKENDS); do $(PYTHON) tests/support/collect_report.py $$backend || exit 1; done

# Two jobs at once, unless make was started with a number of its own.
TWO = $(if $(filter -j%,$(MAKEFLAGS)),,-j2)

envs: .venvs/uv/.installed ## build the environments of the workflow and of BACKENDS
	@stamps=$$($(STAMPS) $(BACKENDS)) && \
	$(MAKE) --silent --no-print-directory $(TWO) .venvs/workflow/.installed $$stamps

# An engine of vLLM that is closed takes down the process groups of another in its process, and one that
# drafts leaves numba behind, over which the next one stumbles while it looks through all modules.
ALONE = $(patsubst %,tests/engines/test_%.py,drafting sharding timed_traffic)

# What needs an engine's packages runs inside that engine's environment. Whatever measures takes turns on
# a host, so whole sweeps come after simulated ones, and beside both, one after the other, what leaves
# them a processor; what measures nothing has a lower priority.
test: ## run the tests (PYTEST='-k name' chooses some of those without an engine)
	@$(MAKE) --no-print-directory $(TWO) envs test-envs test-tools
	@$(MAKE) --no-print-directory --output-sync=target $(TWO) test-whole test-parts

test-whole:
	@$(MAKE) --no-print-directory test-workflows
	@$(MAKE) --no-print-directory test-sweeps

test-parts:
	@$(MAKE) --no-print-directory test-engines
	@$(MAKE) --no-print-directory test-units

# Of pytest's exit statuses 5 says that none was chosen.
CHOSEN = -m 'not engine' $(PYTEST)
NONE_CHOSEN = $(if $(PYTEST),|| [ $$? -eq 5 ])

# The files that take longest come first.
LONGEST = $(wildcard tests/workflow/test_s*.py)
test-workflows:
	$(DEV)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(CHOSEN) \
	  $(LONGEST) $(filter-out $(LONGEST),$(wildcard tests/workflow/test_*.py)) $(NONE_CHOSEN)

test-units:
	nice $(DEV)/python -m pytest -q -n 2 --dist loadfile --ignore tests/engines --ignore tests/workflow \
	  $(CHOSEN) $(NONE_CHOSEN)

LONGEST_SWEEPS = $(patsubst %,tests/workflow/test_%.py,workflow variants served_pipeline traffic_pipeline)
test-sweeps:
	$(DEV)/python -m pytest -q -m engine -n 2 --dist loadfile --no-loadscope-reorder \
	  $(LONGEST_SWEEPS) $(filter-out $(LONGEST_SWEEPS),$(wildcard tests/workflow/test_*.py))

test-engines:
	@for stamp in $$($(STAMPS) $(BACKENDS)); do \
	  place=$${stamp%/.installed}; \
	  $(PYTHON) tests/support/in_environment.py $$place -q tests/engines $(ALONE:%=--ignore %) \
	    tests/meter/test_meter.py tests/meter/test_estimates.py tests/inputs/prompts/test_sets.py || exit 1; \
	  for file in $(ALONE); do $(PYTHON) tests/support/in_environment.py $$place -q $$file || exit 1; done; \
	done

# snakefmt looks for its shell formatter on the PATH.
lint format: export PATH := $(CURDIR)/$(DEV):$(PATH)

lint: tools ## check style, imports and the workflow, and change nothing
	ruff check .
	ruff format --check .
	snakefmt --check $(SNAKEFILES)
	snakemake --lint
	PYTHONPATH=scripts lint-imports --no-cache --no-logo
	python scripts/docs.py --check

format: tools ## put the code into the project's style
	ruff check --fix .
	ruff format .
	snakefmt $(SNAKEFILES)

# overhead_slurm.py starts a cluster of one node, which takes root and what test-tools installs.
bench: envs tools ## measure what the pipeline itself costs (after make demo, on MODEL)
	@test -d $(MODEL) || { echo "error: no folder $(MODEL): run make demo first" >&2; exit 1; }
	@missed=; \
	bench() { echo "== $$2 $$3"; "$$1" "tests/benchmarks/$$2.py" $$3 $$4 || missed="$$missed $$2"; }; \
	for name in comparison_coverage coverage traffic_coverage latency_coverage load_coverage phases_coverage scale report_opening one_load overhead_slurm; do \
	  bench $(DEV)/python $$name; \
	done; \
	bench $(DEV)/python agreement $(MODEL); \
	for stamp in $$($(STAMPS) $(BACKENDS)); do \
	  place=$${stamp%/.installed}; backend=$$(basename $${place%-cpu}); \
	  bench $$place/bin/python meter_cost; \
	  bench $$place/bin/python overhead_$$backend $(MODEL); \
	  [ $$backend != pytorch ] || bench $$place/bin/python batching $(MODEL); \
	  bench $$place/bin/python traffic_cost $$backend $(MODEL); \
	  bench $$place/bin/python steps_cost $$backend $(MODEL); \
	done; \
	test -z "$$missed" || { echo "missed a floor, or failed:$$missed" >&2; exit 1; }

# A real sweep is disturbed a tenth as often as a simulated one; file systems of their own take root.
torture: envs tools test-envs ## count what kills lose and what hostile input gets through (hours; KILLS=100 FUZZ=20000)
	@missed=; \
	try() { echo "== $${*#*/bin/python }"; "$$@" || missed=yes; }; \
	export FUZZ=$(FUZZ); \
	try $(DEV)/python tests/torture/hostile.py; \
	try $(DEV)/python -m pytest -q tests/torture/test_fuzz.py --hypothesis-show-statistics; \
	for stamp in $$($(STAMPS) pytorch); do \
	  place=$${stamp%/.installed}; \
	  try $$place/bin/python tests/torture/hostile.py --into gguf; \
	  try $(PYTHON) tests/support/in_environment.py $$place -q tests/engines/test_gguf_reader.py \
	    --hypothesis-show-statistics; \
	done; \
	try $(DEV)/python tests/torture/kills.py --kills $(KILLS); \
	try $(DEV)/python tests/torture/kills.py --kills $$(($(KILLS) / 10)) --engine pytorch --ways; \
	test -z "$$missed"

locks: .venvs/uv/.installed ## make envs/*.txt and envs/*.yaml anew from envs/*.in
	@UV_FIND_LINKS=$(CPU_LINKS) $(PYTHON) scripts/lock.py --uv $(UV)

audit-locks: .venvs/audit/.installed ## ask which pins have known vulnerabilities, and which licences are there
	@$(PYTHON) scripts/audit_locks.py --tools .venvs/audit/bin --service $(or $(SERVICE),osv)

PICTURED = h100-llama-3.1-8b-vllm
pictures: tools test-tools ## make the pictures of the README again, from an archived sweep
	@$(MAKE) --no-print-directory paper ARCHIVE=docs/measurements/$(PICTURED).tar.gz
	@$(DEV)/python tests/support/pictures.py paper/$(PICTURED)/results/*

clean: ## remove the environments and caches; results/ is never touched
	rm -rf .venvs .pytest_cache .ruff_cache .hypothesis
	find scripts tests -name __pycache__ -prune -exec rm -rf {} +

tools: .venvs/dev/.installed
test-envs: .venvs/dev/.installed .venvs/pytest/.installed .venvs/executors/.installed .venvs/openai/.installed \
           .venvs/publishing/.installed .venvs/audit/.installed
test-tools:
	@$(PYTHON) tests/support/system_tools.py $(TEST_TOOLS)

# An environment is made anew only when the content of its lock changes: its stamp, written last,
# holds the lock's SHA-256. Nothing is resolved, since the lock is complete, and every file is hashed.
# Its Python is the 3.11 that the lock is for.
.venvs/%/.installed: envs/%.txt | .venvs/uv/.installed
	@lock=$$(sha256sum < $< | cut -d ' ' -f 1); \
	if [ "$$lock" = "$$(cat $@ 2> /dev/null)" ]; then touch $@; exit; fi; \
	echo "Building the environment .venvs/$* ..."; rm -f $@; \
	$(UV) venv --quiet --allow-existing --python 3.11 .venvs/$* && \
	sed '$(if $(filter %-cpu,$*),s/^torch==[0-9.]*/&+cpu/)' $< | \
	$(UV) pip sync --quiet --require-hashes --python .venvs/$* $(if $(filter %-cpu,$*),$(CPU_BUILD)) - && \
	{ .venvs/$*/bin/python -c '$(IMPORTS_$(*:%-cpu=%))' > .venvs/$*/import.log 2>&1 || \
	  echo "warning: its engine does not import here; see .venvs/$*/import.log" >&2; } && \
	echo $$lock > $@

# NVIDIA's own index serves this engine, so it is not installed here but found (environments/external.py).
.venvs/tensorrt/.installed: envs/tensorrt.txt | .venvs/uv/.installed
	@PYTHONPATH=scripts $(PYTHON) -m llm_energy.environments.external tensorrt --python $(TENSORRT_PYTHON) --uv $(UV)

.venvs/uv/.installed: envs/uv.txt
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || \
	{ echo "error: $(PYTHON) must be Python 3.11 or newer with its venv module" \
	       "(Debian: apt-get install python3-venv), or name another: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv .venvs/uv && \
	.venvs/uv/bin/python -m pip install -qq --require-hashes -r $<
	@$(UV) python find 3.11 > /dev/null 2>&1 || $(UV) python install --quiet 3.11 2> /dev/null || \
	{ echo "error: there is no Python 3.11 here, for which the environments are locked, and uv cannot" \
	       "download one: install it (Debian: apt-get install python3.11), then run make again" >&2; exit 1; }
	@sha256sum < $< | cut -d ' ' -f 1 > $@
