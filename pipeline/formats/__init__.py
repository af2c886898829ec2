"""The field's files and ours: path data sets in, path data sets out.

questions.py   what they have in common: questions, each with programs and verdicts
runs.py        a run folder
polar.py       PoLar's and RE-PoLar's ``merged_mcts_samples.json``
drllm.py       the results JSON of Dr.LLM's data generation
"""
