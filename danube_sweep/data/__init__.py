"""Data in: files or generated rows become records in three parts, and records become batches of tokens.

records  a row in one form · kinds/  a file for each kind of data · kind  what each of them does
read_files, table_columns, arena_format  strict files and what several kinds read alike
parts, split, size  the three parts, by group and fold · layout, encode, pieces, encoded  tokens, cached
batches  the order of an epoch, padding
"""
