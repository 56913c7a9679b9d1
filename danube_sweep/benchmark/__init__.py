"""General ability, scored by EleutherAI's lm-evaluation-harness over a loaded backbone. It needs the package lm_eval.

pinned_tasks.py      the six benchmarks of the post: the harness's names, shots and metrics
published.py         published results of the models
asked_model.py       the models that can be asked
find_tasks.py        names in, the harness's tasks out, their data included
harness_model.py     a backbone as the harness's language model
scored_parts.py      the part of a task's data that is scored, from its YAML alone
score_task.py        one task over one model: scores with standard errors, and a score per item
score_folder.py      the folder that holds them, task by task, and what it is resumed by
score_model.py       all tasks over one model, into such a folder
forgetting.py        the difference of two scores on the same items, with its interval
isolated.py          a function in a process of its own: out of memory, a kill or a timeout ends that process alone
"""
