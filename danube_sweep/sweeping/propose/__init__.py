"""The trials of a sweep: a grid's cells, a search's draws, and the order in which they train.

grid_cells  overrides to checked trials · search_space  the distributions of a search · fits_device  trials that fit
next_trial  the trials of a folder, one at a time · search  new draws too
samplers  new points of a search · optuna_journal  the memory of samplers · pruners  a rule's verdict at a validation
pause_policy  which trials pause and which continue · early_stopping  the same over a folder
"""
