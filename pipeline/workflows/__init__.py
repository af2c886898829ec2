"""Whole commands, from a request to files: ``run_search`` makes a run, ``verify`` replays one."""
