"""A simulated world: real replicas, Redis and Coze in one event loop, virtual time, faults from a seed.

``python -m tests.simulation --help`` says how it is run. Importing this package changes nothing;
``clock.install`` puts virtual clocks in the place of ``time``'s, for the whole process: only worker processes
call it.
"""
