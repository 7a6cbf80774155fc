"""Medians and their spread."""

import statistics


class Sample:
    """The values of repeated runs; runs that failed are counted, not averaged."""

    def __init__(self, values, failed=0):
        self.values, self.failed = sorted(values), failed

    @classmethod
    def of(cls, values):
        good = [value for value in values if value is not None]
        return cls(good, len(values) - len(good))

    def plain(self):
        """As JSON; `median` is None when every run failed."""
        if not self.values:
            return {"median": None, "low": None, "high": None, "runs": 0, "failed": self.failed}
        return {
            "median": statistics.median(self.values),
            "low": self.values[0],
            "high": self.values[-1],
            "runs": len(self.values),
            "failed": self.failed,
        }


def percentile(values, share):
    """The value below which `share` of them lie, the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]
