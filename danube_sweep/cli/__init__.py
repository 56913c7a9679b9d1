"""The command line: main reads the words, commands carries them out, help explains them."""
