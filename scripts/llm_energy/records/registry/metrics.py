"""Name every number that a window is turned into: its words, its unit and how it is summarised.

Tables, figures, the report and comparisons take their words from here, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

COMPONENTS = {"gpu": "GPU", "cpu": "CPU", "dram": "memory"}

GROSS = "energy_per_output_token_j"
NET = "net_energy_per_output_token_j"
STEADY_STATE = "steady_state_energy_per_output_token_j"
FACILITY = "facility_energy_per_output_token_j"
PER_TOTAL_TOKEN = "energy_per_total_token_j"
PER_REQUEST = "energy_per_request_j"
PER_BYTE = "energy_per_utf8_byte_j"
SPEED = "output_tokens_per_s"
QUALITY, GPU_MEMORY, WEIGHTS = "perplexity", "gpu_memory_gb", "weights_gb"
ACCEPTED_DRAFTS = "accepted_draft_share"
TTFT, SERVICE_TTFT = "ttft_s", "service_ttft_s"
OF_COMPONENT = {name: f"{name}_{GROSS}" for name in COMPONENTS}
DENOMINATORS = (GROSS, PER_TOTAL_TOKEN, PER_REQUEST, PER_BYTE, NET)

Kind = Literal["gross", "net", "steady_state", "component", "plain", "window"]


@dataclass(frozen=True)
class Metric:
    """One quantity of a window, a field of ``Metrics``.

    ``label`` stands in sentences and at axes, ``short`` over columns. ``kind`` says from which
    joules it follows; what is ``plain`` follows from none, and what is of the ``window`` alone is
    not summarised over repeats.
    """

    name: str
    label: str
    short: str
    unit: str
    kind: Kind = "plain"
    better: Literal["less", "more"] | None = None

    @property
    def axis(self) -> str:
        """Return the label with its unit.

        >>> METRICS["ttft_s"].axis, METRICS[GROSS].axis
        ('time to first token (s)', 'J per output token')
        """
        return self._with_unit(self.label)

    @property
    def head(self) -> str:
        """Return the short label with its unit.

        >>> METRICS["ttft_s"].head, METRICS[GROSS].head
        ('TTFT (s)', 'J/output token')
        """
        return self._with_unit(self.short)

    @property
    def energy(self) -> bool:
        """Return whether it is of joules, so that it is known as its components are."""
        return self.kind in ("gross", "net", "steady_state", "component")

    @property
    def per_token(self) -> bool:
        """Return whether it counts tokens, which two tokenizers cut differently."""
        return "token" in self.unit

    @property
    def verb(self) -> str:
        """Return what a cell does with it."""
        return "uses" if self.energy else "gives"

    def _with_unit(self, text: str) -> str:
        """Add a plain unit; that of a quotient, such as J/request, is in the text itself."""
        return f"{text} ({self.unit})" if self.unit and "/" not in self.unit else text


def ttft_of(traffic: str | None) -> str:
    """Return which time to first token says how fast a cell answers.

    Where all requests are there at the start, that from the begin of service: the other is the
    place in the queue. Where they come at their times, that from when they were due.
    """
    return SERVICE_TTFT if traffic is None else TTFT


def _per_output_token(name: str, kind: Kind, word: str = "") -> Metric:
    before = f"{word} " if word else ""
    words = f"{before}J per output token", f"{before}J/output token"
    return Metric(name, *words, "J/output token", kind, "less")


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _per_output_token(GROSS, "gross"),
        Metric(
            PER_TOTAL_TOKEN, "J per total token", "J/total token", "J/total token", "gross", "less"
        ),
        Metric(PER_REQUEST, "J per request", "J/request", "J/request", "gross", "less"),
        Metric(PER_BYTE, "J per UTF-8 byte", "J/UTF-8 byte", "J/UTF-8 byte", "gross", "less"),
        _per_output_token(FACILITY, "gross", "facility"),
        Metric(
            "co2e_g_per_output_token",
            *("g CO2e per output token", "g CO2e/output token", "g/output token", "gross", "less"),
        ),
        Metric("gross_energy_j", "gross energy", "gross", "J", "gross"),
        Metric("mean_power_w", "mean power", "power", "W", "gross"),
        _per_output_token(NET, "net", "net"),
        Metric("net_energy_j", "net energy", "net", "J", "net"),
        _per_output_token(STEADY_STATE, "steady_state", "steady-state"),
        *(
            _per_output_token(OF_COMPONENT[name], "component", word)
            for name, word in COMPONENTS.items()
        ),
        Metric("loaded_idle_power_w", "loaded-idle power", "loaded idle", "W"),
        Metric("duration_s", "length of the window", "length", "s"),
        Metric(SPEED, "output tokens/s", "tok/s", "output tokens/s", better="more"),
        Metric("requests_per_s", "served requests/s", "served/s", "requests/s", better="more"),
        Metric("requested_rate_per_s", "requested arrivals/s", "requested/s", "requests/s"),
        Metric("arrival_rate_per_s", "arriving requests/s", "arrivals/s", "requests/s"),
        Metric("achieved_rate_per_s", "started requests/s", "started/s", "requests/s"),
        Metric("ttft_s", "time to first token", "TTFT", "s", better="less"),
        Metric(
            SERVICE_TTFT,
            *("time from the begin of service to the first token", "service TTFT", "s"),
            better="less",
        ),
        Metric("queueing_s", "time in the queue", "queueing", "s", better="less"),
        Metric("tpot_s", "time per output token", "TPOT", "s", better="less"),
        Metric("e2e_latency_s", "end-to-end latency", "end-to-end", "s", better="less"),
        Metric("nll_per_token", "NLL per token", "NLL per token", "nat", better="less"),
        Metric("perplexity", "perplexity", "perplexity", "", better="less"),
        Metric(
            "agreement_with_float32",
            *("agreement with float32", "agreement with float32", ""),
            better="more",
        ),
        Metric(
            ACCEPTED_DRAFTS,
            "accepted share of drafted tokens",
            "drafts accepted",
            "",
            better="more",
        ),
        Metric(GPU_MEMORY, "GPU memory in use", "GPU memory", "GB", better="less"),
        Metric(WEIGHTS, "weights in memory", "weights", "GB", better="less"),
        _per_output_token("floor_energy_per_output_token_j", "window", "floor"),
        _per_output_token("roofline_energy_per_output_token_j", "window", "roofline"),
        _per_output_token("limited_energy_per_output_token_j", "window", "GPU"),
        Metric("mbu", "model bandwidth utilisation", "MBU", "", "window", "more"),
        Metric("mfu", "model FLOP/s utilisation", "MFU", "", "window", "more"),
        Metric("gap_cv", "variation of the gaps between arrivals", "gaps' CV", "", "window"),
        Metric(
            "gross_energy_standard_uncertainty_j",
            *("standard uncertainty of gross energy", "u(gross)", "J", "window"),
        ),
        Metric(
            "net_energy_standard_uncertainty_j",
            *("standard uncertainty of net energy", "u(net)", "J", "window"),
        ),
        Metric("counter_lag_j", "lag of the counters", "lag", "J", "window"),
        Metric("loaded_idle_drift_w", "drift of loaded-idle power", "drift", "W", "window"),
        Metric("bias_bound_percent", "largest bias of gross energy", "bias", "%", "window"),
        Metric("attributed_energy_j", "energy attributed to requests", "attributed", "J", "window"),
        Metric(
            "attributed_idle_energy_j",
            *("energy while no step ran", "attributed idle", "J", "window"),
        ),
        Metric("loaded_idle_excess_w", "excess of warm idle power", "excess", "W", "window"),
    )
}
SUMMARISED = tuple(name for name, metric in METRICS.items() if metric.kind != "window")
