"""Path data sets, read and written: run folders, and the file formats of the field.

path_data.py   the content that all formats share: examples, each with the verdicts on its programs
run_rows.py    a run folder
polar.py       PoLar's and RE-PoLar's ``merged_mcts_samples.json``
drllm.py       the results JSON of Dr.LLM's data generation
questions.py   the questions of a file that names them by id alone
"""
