"""What is measured: run from the root of a checkout, results in benchmarks/results/."""
