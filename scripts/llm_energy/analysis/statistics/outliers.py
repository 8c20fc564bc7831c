"""Flag repeats that lie far from the others of their cell; none is ever left out for that alone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

FAR = 3.5
NORMAL = 1.4826
LEAST_VALUES = 4


def outlying(values: Mapping[int, float]) -> tuple[int, ...]:
    """Return the repeats whose value is further than 3.5 scaled median deviations from the median.

    The median absolute deviation, times 1.4826 so that it equals the standard deviation of a normal
    distribution, and the bound are those of Iglewicz and Hoaglin (How to Detect and Handle
    Outliers, ASQC, 1993). Of fewer than four values none is flagged: with three, the median
    deviation is the smaller of two distances, and says nothing.

    >>> outlying({1: 10.0, 2: 10.1, 3: 9.9, 4: 10.0, 5: 12.0})
    (5,)
    """
    if len(values) < LEAST_VALUES:
        return ()
    centre = median(values.values())
    spread = NORMAL * median(abs(value - centre) for value in values.values())
    return tuple(k for k, value in values.items() if abs(value - centre) > FAR * spread > 0)
