"""The floor, the roofline and the utilisations against figures worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy.analysis.energy import published, roofline

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
PARAMETERS, WEIGHT_BYTES = 8_030_261_248, 16_060_522_496
TABLE = 4096 * 128256
H100 = roofline.gpu_named("NVIDIA H100 80GB HBM3")


def demand(parameters=PARAMETERS, weight_bytes=WEIGHT_BYTES, **changes) -> roofline.Demand | None:
    return roofline.demand(LLAMA_8B | changes, parameters, weight_bytes, 2, 2)


class TestGpus:
    def test_unknown_gpus_have_no_bound(self):
        for name in (None, "", "NVIDIA H100", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"):
            assert roofline.gpu_named(name) is None

    def test_the_name_counts_with_and_without_its_maker(self):
        assert roofline.gpu_named("H200") is roofline.gpu_named("NVIDIA H200")

    def test_quantised_weights_only_raise_the_peak(self):
        fast = roofline.gpu_named("NVIDIA H200", quantised=True)
        plain = roofline.gpu_named("NVIDIA H200")
        assert fast.peak_flop_per_s == 4 * plain.peak_flop_per_s
        assert fast.bandwidth_bytes_per_s == plain.bandwidth_bytes_per_s

    @pytest.mark.parametrize("name", sorted(roofline.GPUS))
    def test_each_gpu_is_plausible_and_has_its_source(self, name):
        # A slip of a unit would be a factor of a thousand.
        gpu = roofline.GPUS[name]
        assert 1e11 < gpu.bandwidth_bytes_per_s < 1e13
        assert 0.3e-12 < gpu.power_w / gpu.peak_flop_per_s < 3e-12
        assert "NVIDIA" in gpu.source


class TestDemand:
    def test_of_a_dense_model(self):
        found = demand()
        assert found.weight_bytes == WEIGHT_BYTES - 2 * TABLE  # rows of the input embedding only
        assert found.body_parameters == PARAMETERS - 2 * TABLE
        assert found.head_parameters == TABLE
        assert found.kv_bytes == 131072  # 2 x 32 layers x 8 heads x 128 x 2 bytes

    def test_a_tied_embedding_is_read_whole(self):
        found = demand(tie_word_embeddings=True)
        assert found.weight_bytes == WEIGHT_BYTES
        assert found.body_parameters == PARAMETERS - TABLE

    @pytest.mark.parametrize("changes", [{"sliding_window": 4096}, {"model_type": "jamba"}])
    def test_a_cache_that_may_be_smaller_does_not_count(self, changes):
        assert demand(**changes).kv_bytes == 0

    @pytest.mark.parametrize("name", ["hidden_size", "vocab_size", "num_hidden_layers"])
    def test_an_incomplete_description_gives_none(self, name):
        assert demand(**{name: None}) is None

    def test_an_unknown_tie_gives_none(self):
        without = {k: v for k, v in LLAMA_8B.items() if k != "tie_word_embeddings"}
        assert roofline.demand(without, PARAMETERS, WEIGHT_BYTES, 2, 2) is None

    def test_of_experts_only_those_in_use_count(self):
        # Mixtral 8x7B: 46.7e9 parameters, of which a token uses 12.9e9.
        mixtral = LLAMA_8B | {
            "model_type": "mixtral",
            "vocab_size": 32000,
            "intermediate_size": 14336,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        }
        found = roofline.demand(mixtral, 46_702_792_704, 93_405_585_408, 2, 2)
        active = found.body_parameters + 2 * found.head_parameters
        assert active == pytest.approx(12.88e9, rel=1e-3)
        assert found.weight_bytes == pytest.approx(2 * (active - found.head_parameters), rel=1e-3)

    def test_experts_of_unknown_size_give_none(self):
        assert demand(num_experts=64) is None


class TestFloor:
    # Eight requests at once, 1,000 tokens each, after prompts of 200.
    work = roofline.Work(
        requests=8,
        batch_size=8,
        prompt_tokens=1600,
        output_tokens=8000,
        context_tokens=8 * (999 * 200 + 999 * 1000 // 2),
    )

    def test_steps_and_bytes(self):
        assert self.work.steps == 999
        read = roofline.read_bytes(demand(), self.work, 1)
        weights = WEIGHT_BYTES - 2 * TABLE - roofline.CACHE_BYTES
        assert read == 999 * weights + 131072 * self.work.context_tokens

    def test_joules_per_output_token(self):
        # Per token: 1.86 GB of weights and 0.09 GB of keys and values at 31.4 mJ/GB, and 15.0 GFLOP
        # at 0.71 pJ each.
        read = roofline.read_bytes(demand(), self.work, 1)
        flop = roofline.decode_flop(demand(), self.work)
        floor_j = roofline.floor_j(read, flop, [H100], 700.0)
        assert floor_j / self.work.output_tokens == pytest.approx(0.0717, rel=1e-3)

    def test_a_power_limit_lowers_the_floor_of_the_arithmetic_only(self):
        assert roofline.floor_j(0.0, 1e15, [H100], 350.0) == pytest.approx(350e3 / 989.4)
        assert roofline.floor_j(0.0, 1e15, [H100], 9999.0) == pytest.approx(700e3 / 989.4)
        assert roofline.floor_j(1e12, 0.0, [H100], 350.0) == pytest.approx(31.36)

    def test_the_roofline_takes_the_longer_of_both_times(self):
        assert roofline.roofline_j(3350e9, 0.0, [H100], 700.0) == pytest.approx(700.0)
        assert roofline.roofline_j(3350e9, 2 * 989.4e12, [H100], 500.0) == pytest.approx(1000.0)

    def test_gpus_share_the_work(self):
        assert roofline.memory_use(3350e9, 1.0, [H100, H100]) == pytest.approx(0.5)
        assert roofline.compute_use(989.4e12, 2.0, [H100]) == pytest.approx(0.5)

    def test_a_model_that_fits_into_the_cache_reads_no_weights(self):
        small = demand(weight_bytes=2 * TABLE + 1000, model_type="other")
        assert roofline.read_bytes(small, self.work, 1) == 0

    @given(
        batch_size=st.integers(1, 512),
        output_tokens=st.integers(1, 4096),
        prompt_tokens=st.integers(1, 4096),
    )
    def test_it_lies_below_the_roofline(self, batch_size, output_tokens, prompt_tokens):
        """Each byte and each operation costs less than the GPU's whole power in its time."""
        decoded = output_tokens - 1
        work = roofline.Work(
            batch_size,
            batch_size,
            batch_size * prompt_tokens,
            batch_size * output_tokens,
            batch_size * (decoded * prompt_tokens + decoded * output_tokens // 2),
        )
        read, flop = roofline.read_bytes(demand(), work, 1), roofline.decode_flop(demand(), work)
        limit_w = H100.power_w
        memory_j = roofline.floor_j(read, 0.0, [H100], limit_w)
        compute_j = roofline.floor_j(0.0, flop, [H100], limit_w)
        roofline_j = roofline.roofline_j(read, flop, [H100], limit_w)
        assert max(memory_j, compute_j) <= roofline_j * (1 + 1e-12)
        assert roofline.floor_j(read, flop, [H100], limit_w) == pytest.approx(memory_j + compute_j)
        assert roofline.prefill_flop(demand(), work) >= 0


class TestAnchors:
    def test_between_two_batch_sizes(self):
        anchor = published.anchor_of(published.H100, 1, WEIGHT_BYTES)
        assert anchor.model == "Llama 3.1 8B"
        assert published.at_batch_size(anchor, 512) == pytest.approx(0.070)
        # Half-way between the logarithms.
        assert published.at_batch_size(anchor, 64) == pytest.approx((0.165 * 0.095) ** 0.5)

    @pytest.mark.parametrize("batch_size", [1, 7, 513])
    def test_none_outside(self, batch_size):
        assert published.at_batch_size(published.ANCHORS[0], batch_size) is None

    @pytest.mark.parametrize(
        "cell",
        [
            (published.H100, 2, WEIGHT_BYTES),
            (published.H100, 1, WEIGHT_BYTES / 2),
            ("NVIDIA L4", 1, WEIGHT_BYTES),
        ],
    )
    def test_none_for_another_cell(self, cell):
        assert published.anchor_of(*cell) is None

    @pytest.mark.parametrize("anchor", published.ANCHORS, ids=lambda a: f"{a.model} {a.gpu}")
    def test_a_larger_batch_takes_less(self, anchor):
        points = [value for _, value in sorted(anchor.energy_per_output_token_j.items())]
        assert points == sorted(points, reverse=True)
