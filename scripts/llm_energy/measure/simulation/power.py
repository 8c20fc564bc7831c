"""Power as a function of time, in closed form: what a simulated device draws is known exactly."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

WAVES = 8


class Fluctuation:
    """A relative power with mean 1: correlated Gaussian noise and a slow drift, both seeded.

    The noise is a sum of waves with Gaussian amplitudes and Cauchy-distributed frequencies, so that
    its covariance tends to ``sd**2 * exp(-|t| / time_s)``, as of an Ornstein-Uhlenbeck process
    (random Fourier features, Rahimi and Recht, NIPS 2007). Unlike a random walk it has an integral
    in closed form, and a value at any time, in any order.
    """

    def __init__(self, random: Random, sd: float, time_s: float, drift_per_s: float = 0.0):
        self._drift_per_s = drift_per_s
        self._waves = []
        for _ in range(WAVES if sd else 0):
            rate = abs(math.tan(math.pi * (random.random() - 0.5)))
            # Slower waves would be an offset, faster ones nothing that a sensor could see.
            omega = min(max(rate, 0.01), 100.0) / time_s
            in_phase, quadrature = random.gauss(0, 1), random.gauss(0, 1)
            amplitude = sd / math.sqrt(WAVES) * math.hypot(in_phase, quadrature)
            self._waves.append((omega, math.atan2(quadrature, in_phase), amplitude))

    def at(self, time_s: float) -> float:
        """Return the relative power at one instant."""
        noise = 0.0
        for omega, phase, amplitude in self._waves:
            noise += amplitude * math.sin(omega * time_s + phase)
        return 1 + self._drift_per_s * time_s + noise

    def integral(self, time_s: float) -> float:
        """Return an antiderivative, in s: its differences are exact integrals."""
        noise = 0.0
        for omega, phase, amplitude in self._waves:
            noise += amplitude / omega * math.cos(omega * time_s + phase)
        return time_s + self._drift_per_s * time_s * time_s / 2 - noise


@dataclass(frozen=True)
class Cooling:
    """How warm a device gets: it follows its power with one time constant (first order)."""

    ambient_c: float = 28.0
    resistance_c_per_w: float = 0.055
    time_s: float = 15.0

    def steady_c(self, level_w: float) -> float:
        """Return the temperature that a device of this power ends at."""
        return self.ambient_c + self.resistance_c_per_w * level_w


class _Piece(NamedTuple):
    start_s: float
    level_w: float
    integral_s: float
    energy_j: float
    leak_j: float
    temperature_c: float
    cooling: Cooling
    state: Any


class History:
    """The power of one device: pieces, each with a level about which the power fluctuates.

    To that comes what it leaks, ``slope_w_per_c`` for each degree above that which the level
    ``leakless_w`` ends at. What leaks does not warm it further.
    ``state`` is whatever the owner wants to remember of a piece. Times only grow in ``set``; every
    question may be about any time since the start.
    """

    def __init__(
        self,
        fluctuation: Fluctuation,
        cooling: Cooling,
        start_s: float,
        level_w: float,
        state: Any,
        slope_w_per_c: float = 0.0,
        leakless_w: float = 0.0,
    ):
        self._fluctuation = fluctuation
        self._slope_w_per_c, self._leakless_c = slope_w_per_c, cooling.steady_c(leakless_w)
        integral_s, steady_c = fluctuation.integral(start_s), cooling.steady_c(level_w)
        self._pieces = [_Piece(start_s, level_w, integral_s, 0.0, 0.0, steady_c, cooling, state)]
        self._starts = [start_s]

    def set(self, time_s: float, level_w: float, state: Any) -> None:
        """Let the level be ``level_w`` from ``time_s`` on."""
        last = self._pieces[-1]
        if (last.level_w, last.state) != (level_w, state):
            self._begin(time_s, level_w, last.cooling, state)

    def cool(self, time_s: float, cooling: Cooling) -> None:
        """Let it be cooled otherwise from ``time_s`` on."""
        last = self._pieces[-1]
        if last.cooling != cooling:
            self._begin(time_s, last.level_w, cooling, last.state)

    def _begin(self, time_s: float, level_w: float, cooling: Cooling, state: Any) -> None:
        last = self._pieces[-1]
        integral_s = self._fluctuation.integral(time_s)
        piece = _Piece(
            time_s,
            level_w,
            integral_s,
            last.energy_j + last.level_w * (integral_s - last.integral_s),
            self._leak_j(last, time_s),
            self._temperature_c(last, time_s),
            cooling,
            state,
        )
        if time_s == last.start_s:
            self._pieces[-1] = piece
        else:
            self._pieces.append(piece)
            self._starts.append(time_s)

    def power_w(self, time_s: float) -> float:
        """Return the power at one instant."""
        piece = self._at(time_s)
        leak_w = self._slope_w_per_c * (self._temperature_c(piece, time_s) - self._leakless_c)
        return piece.level_w * self._fluctuation.at(time_s) + leak_w

    def energy_j(self, time_s: float) -> float:
        """Return the energy since the start."""
        piece = self._at(time_s)
        lasted_s = self._fluctuation.integral(time_s) - piece.integral_s
        return piece.energy_j + piece.level_w * lasted_s + self._leak_j(piece, time_s)

    def mean_power_w(self, begin_s: float, end_s: float) -> float:
        """Return the mean power between two times."""
        piece = self._at(end_s)
        if begin_s < piece.start_s:
            return (self.energy_j(end_s) - self.energy_j(begin_s)) / (end_s - begin_s)
        return self.energy_at_level_j(piece.level_w, begin_s, end_s) / (end_s - begin_s)

    def energy_at_level_j(self, level_w: float, begin_s: float, end_s: float) -> float:
        """Return what it would have used at one level, as warm and fluctuating as it was."""
        lasted_s = self._fluctuation.integral(end_s) - self._fluctuation.integral(begin_s)
        first, last = self._at(begin_s), self._at(end_s)
        leaked_j = self._leak_j(last, end_s) - self._leak_j(first, begin_s)
        return level_w * lasted_s + leaked_j

    def temperature_c(self, time_s: float) -> float:
        """Return the temperature at one instant."""
        return self._temperature_c(self._at(time_s), time_s)

    def state(self, time_s: float) -> Any:
        """Return what was remembered of that time."""
        return self._at(time_s).state

    def _at(self, time_s: float) -> _Piece:
        return self._pieces[max(0, bisect_right(self._starts, time_s) - 1)]

    def _leak_j(self, piece: _Piece, time_s: float) -> float:
        """Return what has leaked since the start."""
        end_c = piece.cooling.steady_c(piece.level_w)
        begin_c, lasted_s = piece.temperature_c, time_s - piece.start_s
        warmed = -math.expm1(-lasted_s / piece.cooling.time_s) * piece.cooling.time_s
        degree_s = (end_c - self._leakless_c) * lasted_s + (begin_c - end_c) * warmed
        return piece.leak_j + self._slope_w_per_c * degree_s

    def _temperature_c(self, piece: _Piece, time_s: float) -> float:
        end_c = piece.cooling.steady_c(piece.level_w)
        left = math.exp(-(time_s - piece.start_s) / piece.cooling.time_s)
        return end_c + (piece.temperature_c - end_c) * left
