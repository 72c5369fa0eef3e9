"""Research benchmarks: they compare designs, and are not part of the package."""
