"""A finished run as a folder for other tools, loaded again in a fresh process before anyone gets it.

reading  which class of transformers or which formula gives the logits · head  the formula, copied into the folder
weights  the adapter, or the whole model with the adapter merged in · loading  the code that loads the folder
check  that code in a process of its own against the run · card  README.md · push  the upload
folder  all of it, whole or not at all
"""
