"""What can be measured, each part by itself; see ``benchmarks.__main__`` for their names."""
