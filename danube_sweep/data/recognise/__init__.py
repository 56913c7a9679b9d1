"""From a file to guesses: its kind of data, head and columns, each guess with its reason.

guess  a guess, and the overrides that replace guesses · comparisons  two answers · labelled_words  a label per word
text_and_label  a text and a label, or texts alone · recognise_file  the entry: which of them a file is
"""
