"""Means, intervals, paired ratios, outliers, and the digits that these support."""
