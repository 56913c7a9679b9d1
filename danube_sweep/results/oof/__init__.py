"""Out-of-fold predictions: what finished folds say of every row, joined, scored and written.

groups  trials that differ only in fold and seed · joined  their predictions as one part · write  a file of them
command  the table, the names of what is missing, and the file
"""
