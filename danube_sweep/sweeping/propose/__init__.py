"""Which trials a sweep has: a grid's cells, a search's draws, and which one is next.

grid_cells  overrides to checked trials · search_space  what a search draws from · fits_device  trials that cannot fit
next_trial  the trials of a folder, one at a time · search  new draws too
samplers  how a point is drawn · pruners  whether a trial ends early (ASHA) · optuna_journal  what both look at
"""
