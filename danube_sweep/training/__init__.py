"""A trial or a pack from its config to its result.

run.py                  a run from start to end: trials in, results out
setup.py                its beginning: the folder taken, data read, files begun · assemble.py  the model
lightning_loop.py       a step of the pack, inside Lightning's loop · pack/  its forward pass
trial.py                one trial: its step · step_plan.py  the rows of each step
journal.py              its reports · resume.py  its checkpoints
best_and_patience.py    its best step, and the end of waiting for a better one
evaluate.py, metrics.py its validation
finish.py               its end: weights, predictions, result · failure.py  the record of a bad end
out_of_memory.py, signals.py, checks.py   reasons to end early
device.py, environment.py, forecast.py    its device, its versions, its predicted memory and time
probe.py                the measured speed of the device, in a child (measure_rates.py)
"""
