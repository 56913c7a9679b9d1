"""Data in: files or generated rows become records in three parts, and records become batches of tokens.

records  a row in one form · kinds/  a file for each kind of data · kind  their interface
read_files, table_columns, arena_format  strict files, and reading shared by several kinds
parts, split, size  the three parts, by group and fold · extra_rows  more rows for training
layout, encode, pieces, encoded  tokens, cached
batches  the order of an epoch, padding
"""
