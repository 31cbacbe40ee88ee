"""The benchmark: ``./run-bench.sh``. What each part measures is in docs/en/benchmarks.md."""
