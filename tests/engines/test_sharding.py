"""Two real ranks on this host: the same tokens as one, each counted once, and no hang."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

import pytest
from support.subject import PROMPT, Subject

from llm_energy.backends import base
from llm_energy.backends.distributed import replicas
from llm_energy.backends.distributed.ranks import RankFailure
from llm_energy.core.errors import Unsupported
from llm_energy.records import Sharding

pytestmark = pytest.mark.engine

MIXED = [PROMPT[:3], PROMPT, PROMPT[:1], PROMPT[4:9], PROMPT[2:8], PROMPT[1:7]]


def sharded(backend, strategy, count=2):
    """Return the tested engine spread over ``count`` ranks, without a model yet."""
    subject = Subject(backend.name, backend.capabilities, backend.folder, None)
    subject.sharding = Sharding(strategy, count)
    spec = subject.spec()
    forget_binding()
    apart = replicas.needs_processes(spec)
    subject.engine = replicas.Spread(spec) if apart else base.create(backend.name)
    return subject


def forget_binding():
    """Let vLLM read anew to which processors it is bound, after an engine of another size."""
    os.environ.pop("VLLM_CPU_OMP_THREADS_BIND", None)
    if environment := sys.modules.get("vllm.envs"):
        environment.disable_envs_cache()


def processes(subject):
    """Return the ids of the processes that hold the weights."""
    if isinstance(subject.engine, replicas.Spread):
        return subject.engine.pids
    return [worker.proc.pid for worker in subject.engine._engine.model_executor.workers]


def is_gone(pid):
    """Return whether a process has ended; one that nobody has waited for yet has."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(scope="module")
def alone(backend):
    """Return the score and the weights of one rank, asked before another engine takes its group."""
    backend.needs("ranks")
    return backend.engine.score([PROMPT])[0], backend.effective["weight_bytes"]


@pytest.fixture(scope="module", params=["tensor_parallel", "data_parallel"])
def two(backend, alone, request):
    """Return the tested engine on two ranks, by each strategy."""
    subject = sharded(backend, request.param).load()
    yield subject
    subject.engine.close()


def test_two_ranks_give_the_greedy_ids_of_one_in_float32(two, reference, eos):
    ids = two.ids(MIXED, batch_size=2, max_output_tokens=12)

    assert [list(one) for one in ids] == [reference(p, 12, banned=eos) for p in MIXED]


def test_every_request_is_answered_once_and_in_order(two):
    completions = two.serve(MIXED, batch_size=2)

    assert [c.request_id for c in completions] == [f"r{k}" for k in range(len(MIXED))]
    assert [c.prompt_tokens for c in completions] == [len(prompt) for prompt in MIXED]


def test_the_weights_are_shared_out_or_copied(two, alone):
    _, whole = alone
    assert len(processes(two)) == 2
    assert (
        whole <= two.effective["weight_bytes"] < 1.3 * whole
    )  # of ranks each holds half, and the same norms


def test_ranks_score_as_one_does(two, alone):
    score, _ = alone

    assert two.engine.score([PROMPT])[0] == pytest.approx(score, rel=1e-4, abs=1e-4)


def test_a_killed_rank_is_an_error_and_no_process_stays(two):
    pids = processes(two)
    two.prepare(MIXED, batch_size=2)
    os.kill(pids[1], signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(RankFailure, match=f"process {pids[1]} was killed"):
            two.engine.generate()
    two.engine.close()

    assert all(map(is_gone, pids))


# what cannot be


def test_heads_that_cannot_be_shared_out_are_named(backend):
    backend.needs("ranks")
    subject = sharded(backend, "tensor_parallel", 3)
    try:
        with pytest.raises(Unsupported, match=r"heads"):
            subject.load()
    finally:
        subject.engine.close()


def test_a_model_that_was_not_split_is_not_computed_twice(backend):
    if backend.name != "pytorch":
        pytest.skip("only Transformers needs a plan in the model")
    from llm_energy.backends.pytorch.placement import check_spread

    spec = sharded(backend, "tensor_parallel").spec()
    with pytest.raises(Unsupported, match="no tensor-parallel plan for LlamaForCausalLM"):
        check_spread(backend.engine.model, [], spec)


def test_a_rank_alone_refuses_to_be_one_of_several(backend):
    if backend.name != "pytorch":
        pytest.skip("the engine starts its own ranks")
    subject = sharded(backend, "tensor_parallel")
    alone = replace(subject, engine=base.create("pytorch"))
    with pytest.raises(Unsupported, match="a process for each rank, and this is one alone"):
        alone.load()
