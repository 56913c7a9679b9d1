"""Out-of-fold predictions: what finished folds say of every row, joined, scored and written.

fold_groups  trials that differ only in fold and seed · join_folds  their predictions as one part
joined_ensemble  an ensemble's, joined already · scored  either, and what it is worth
write_oof  a file of them · oof_command  the table, the names of what is missing, and the file
"""
