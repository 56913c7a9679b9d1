"""Which trials a sweep has: a grid's cells, a search's draws, and which one is next.

grid_cells  overrides to checked trials · search_space  what a search draws from · fits_device  trials that cannot fit
next_trial  the trials of a folder, one at a time · search  new draws too
samplers  how a point is drawn · optuna_journal  what they learn from · pruners  what a rule says at a validation
pause_policy  who pauses and who goes on · early_stopping  the same over a folder
"""
