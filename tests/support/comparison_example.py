"""A small, complete and plausible record of the compare stage, for tests of what shows it."""

from __future__ import annotations

from typing import Any

from llm_energy.records import SCHEMA_VERSION
from llm_energy.records.comparison import (
    Comparison,
    Comparisons,
    Crossover,
    CrossoverPoint,
    Difference,
    Family,
    HeldFixed,
    LeftOut,
    Limits,
    ParetoFront,
    ParetoPoint,
    RankChange,
    RankedRow,
    Ranking,
    Side,
)
from llm_energy.records.recommendation import Candidate, Lowest, Recommendation

GROSS = "energy_per_output_token_j"
SCOPE = {"energy_status": "measured", "components": ("gpu",)}
FLOAT, INT4 = "m--pytorch--float32", "m--pytorch--int4"


def side(precision: str = "float32", workload: str = "b1", **changes: Any) -> Side:
    """Return one side with five repeats."""
    backend = changes.get("backend", "pytorch")
    healthy = {
        "cell": f"m--{backend}--{precision}",
        "model": "m",
        "backend": backend,
        "precision": precision,
        "workload": workload,
        "batch_size": int(workload[1:]),
        "n": 5,
        "mean": 0.5,
    }
    return Side(**(healthy | changes))


def comparison(**changes: Any) -> Comparison:
    """Return a precision that saves 18 %, from five pairs."""
    healthy = {
        "contrast": "precision",
        "family": f"precision/pytorch/m/{GROSS}/measured/gpu",
        "metric": GROSS,
        **SCOPE,
        "reference": side(),
        "other": side("int4", mean=0.41),
        "outcome": "less",
        "verdict": "int4 uses 18 % less than float32, 95 % CI 12 to 23 %",
        "n": 5,
        "blocks": (1, 2, 3, 4, 5),
        "left_out": (),
        "differs": (),
        "ratio": 0.82,
        "ci_low": 0.77,
        "ci_high": 0.88,
        "p": 0.0004,
        "p_adjusted": 0.0008,
        "smallest_detectable_percent": 5.1,
        "log_sd": 0.021,
        "degrees_of_freedom": 12.5,
        "notes": (),
    }
    return Comparison(**(healthy | changes))


def lowest(**changes: Any) -> Lowest:
    """Return int4 as the lowest of two precisions."""
    healthy = {
        "backend": "pytorch",
        "model": "m",
        **SCOPE,
        "work": "128 output tokens a request, greedy",
        "cell": INT4,
        "workload": "b1",
        "rows": 2,
        "ties": (),
        "not_comparable": (),
        "refused": (),
        "against_next": "int4 uses 18 % less than float32",
        "against_first": None,
        "statement": "On pytorch, int4 at b1 has the lowest energy for m: 0.41 J per output token",
    }
    return Lowest(**(healthy | changes))


def undecided(**changes: Any) -> dict[str, Any]:
    """Return the changes that leave a comparison without a number."""
    names = ("ratio", "ci_low", "ci_high", "p", "p_adjusted", "smallest_detectable_percent")
    empty = dict.fromkeys((*names, "log_sd", "degrees_of_freedom"))
    return empty | {"n": 0, "blocks": ()} | changes


def example() -> Comparisons:
    """Return a sweep of two precisions at two batch sizes on pytorch, and one of vllm beside it."""
    vllm = side(backend="vllm", mean=0.3)
    return Comparisons(
        schema_version=SCHEMA_VERSION,
        sweep="test",
        simulated=False,
        findings=(
            "On pytorch, int4 at b8 uses the least energy of m: 0.110 J per output token.",
            "On pytorch at b1, int4 uses 18 % less than float32, 95 % CI 12 to 23 %.",
        ),
        held_fixed=(
            HeldFixed("prompts", "prompt token ids", ("1f3a",)),
            HeldFixed("boards", "boards", ("GPU-1", "GPU-2")),
        ),
        families=(
            Family(
                id=f"precision/pytorch/m/{GROSS}/measured/gpu",
                contrast="precision",
                title="Joules per output token between precisions of m on pytorch",
                metric=GROSS,
                **SCOPE,
                comparisons=2,
                found=1,
                noise_percent=2.1,
                noise_degrees_of_freedom=8.5,
            ),
        ),
        comparisons=(
            comparison(),
            comparison(
                reference=side(workload="b8", mean=0.112),
                other=side("int4", "b8", mean=0.110),
                outcome="not_distinguishable",
                verdict="int4 and float32 are not distinguishable at n = 4 (ratio 0.98, 95 % CI "
                "0.95 to 1.01); a difference of 6 % would have been seen",
                n=4,
                blocks=(1, 2, 3, 5),
                left_out=(LeftOut(4, "GPUs differ: GPU-1 and GPU-2"),),
                ratio=0.98,
                ci_low=0.95,
                ci_high=1.01,
                p=0.15,
                p_adjusted=0.15,
            ),
            comparison(
                contrast="backend",
                family=f"backend/m/{GROSS}/measured/gpu",
                other=vllm,
                outcome="not_comparable",
                verdict="vllm and pytorch are not comparable: power_limit_w differs",
                differs=(Difference("power_limit_w", "300", "400"),),
                **undecided(),
            ),
            comparison(
                contrast="batch_size",
                family=f"batch_size/pytorch/m/{GROSS}/measured/gpu",
                other=side(workload="b8", n=1),
                outcome="too_few_pairs",
                verdict="b8 and b1 have 1 pair; an interval takes 2",
                **undecided(n=1, blocks=(1,), ratio=0.22),
                notes=("1 of 2 repeats is degraded (H05)",),
            ),
            comparison(
                metric="output_tokens_per_s",
                family="precision/pytorch/m/output_tokens_per_s",
                energy_status=None,
                components=(),
                outcome="more",
                verdict="int4 gives 12 % more tokens/s than float32, 95 % CI 9 to 15 %",
                ratio=1.12,
                ci_low=1.09,
                ci_high=1.15,
            ),
        ),
        crossovers=(
            Crossover(
                model="m",
                backend="pytorch",
                reference_precision="float32",
                precision="int4",
                metric=GROSS,
                **SCOPE,
                points=(
                    CrossoverPoint(1, "b1", 5, 0.82, 0.77, 0.88, "less"),
                    CrossoverPoint(8, "b8", 4, 1.06, 1.02, 1.11, "more"),
                ),
                kind="stops_saving",
                batch_size=4.9,
                ci_low=3.6,
                ci_high=None,
                statement="int4 saves up to a batch size of about 4.9, 95 % CI 3.6 to beyond 8",
            ),
        ),
        rankings=(
            Ranking(
                backend="pytorch",
                **SCOPE,
                metrics=(GROSS, "energy_per_request_j"),
                rows=(
                    RankedRow(
                        INT4,
                        "b1",
                        {GROSS: 0.41, "energy_per_request_j": 4.1},
                        {GROSS: 1, "energy_per_request_j": 2},
                    ),
                    RankedRow(
                        FLOAT,
                        "b1",
                        {GROSS: 0.5, "energy_per_request_j": 4.0},
                        {GROSS: 2, "energy_per_request_j": 1},
                    ),
                ),
                changes=(
                    RankChange(
                        "energy_per_request_j",
                        (INT4, "b1"),
                        (FLOAT, "b1"),
                        f"{INT4} at b1 comes before {FLOAT} at b1 by J per output token, and after "
                        "it by J per request",
                    ),
                ),
                changes_total=1,
            ),
        ),
        pareto=(
            ParetoFront(
                backend="pytorch",
                model="m",
                **SCOPE,
                work="128 output tokens a request, greedy",
                against="tpot_s",
                better="less",
                points=(
                    ParetoPoint(
                        FLOAT, "b1", "float32", 1, 0.5, 0.49, 0.51, 0.02, 0.01, 0.03, (INT4, "b1")
                    ),
                    ParetoPoint(INT4, "b1", "int4", 1, 0.41, None, None, 0.015, None, None, None),
                ),
            ),
        ),
        limits=(
            Limits(
                cell=FLOAT,
                workload="b1",
                n=5,
                energy_j=0.5,
                floor_j=0.1,
                roofline_j=0.35,
                times_floor=5.0,
                times_roofline=1.43,
                mbu=0.66,
                mfu=0.02,
                rates="NVIDIA H100 Tensor Core GPU, data sheets, 2022 and 2024",
                reason=None,
                fault=None,
            ),
            Limits(
                cell=INT4,
                workload="b1",
                n=5,
                energy_j=None,
                floor_j=None,
                roofline_j=None,
                times_floor=None,
                times_roofline=None,
                mbu=None,
                mfu=None,
                rates=None,
                reason="GPU 'NVIDIA X' is not in the table of data sheets",
                fault=None,
            ),
        ),
        recommendations=(
            Recommendation(
                backend="pytorch",
                model="m",
                **SCOPE,
                work="128 output tokens a request, greedy",
                bounds={"max_quality_drop_percent": 1.0, "tpot_s": 0.05},
                best=(FLOAT, "b1"),
                ties=(),
                statement="float32 at b1: 0.50 J per output token",
                reasons=("It uses the least energy of the 1 of 2 that keep the bounds.",),
                candidates=(
                    Candidate(FLOAT, "b1", 0.5, 0.49, 0.51, 0.0, {"tpot_s": 0.02}, (), None),
                    Candidate(
                        cell=INT4,
                        workload="b1",
                        energy_j=0.41,
                        energy_ci_low_j=0.38,
                        energy_ci_high_j=0.44,
                        quality_drop_percent=3.2,
                        latency_s={"tpot_s": 0.015},
                        refused=("quality drop of 3.2 % is above 1 %",),
                        against_best="int4 uses 18 % less than float32, 95 % CI 12 to 23 %",
                    ),
                ),
            ),
        ),
        lowest=(
            lowest(
                ties=((FLOAT, "b8"),),
                not_comparable=((INT4, "b8"),),
                refused=("quality drop of 3.2 % is above 1 %",),
            ),
        ),
    )
