"""The benchmark: ``./run-bench.sh``. What each part measures is in README.en.md, section Performance."""
