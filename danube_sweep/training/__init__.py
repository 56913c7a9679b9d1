"""A trial or a pack from its config to its result.

run.py                  the story of a run: trials in, results out
setup.py                its beginning: the folder taken, data read, files begun · assemble.py  the model
lightning_loop.py       a step of the pack, inside Lightning's loop · pack/  its forward pass
trial.py                one trial: its step · step_plan.py  which rows it reads when
journal.py              what it tells · resume.py  its checkpoints
best_and_patience.py    its best step, and when it has waited long enough for a better one
evaluate.py, metrics.py its validation
finish.py               its end: product, predictions, result · failure.py  the record of a bad end
out_of_memory.py, signals.py, checks.py   what may end it early
device.py, environment.py, forecast.py    where it runs, with what, and what was expected
probe.py                how fast the device is, measured in a child (measure_rates.py)
"""
