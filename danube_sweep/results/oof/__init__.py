"""Out-of-fold predictions: the answers of finished folds to every row, joined, scored and written.

fold_groups  trials that differ only in fold and seed · join_folds  their predictions as one part
joined_ensemble  an ensemble's, joined already · scored  either, with its scores
write_oof  a file of them · oof_command  the table, the names of missing folds, and the file
"""
