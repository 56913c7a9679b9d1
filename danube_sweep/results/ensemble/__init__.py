"""Several finished models that answer together.

members     finished runs that can be blended: same rows, same labels, same classes
selection   temperatures and weights: greedy selection with replacement
held_out    its score on unseen rows
ensemble_folder  the folder that it is kept in
"""
