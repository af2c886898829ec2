"""Benchmarks: every figure is a ratio of two things that are measured alternately in one run.

make bench                     every section, with made examples
python -m benchmarks --help    parts of it, and real examples
"""
