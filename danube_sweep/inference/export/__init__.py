"""A finished run as a folder for other tools, loaded again in a fresh process before anyone gets it.

how_to_read  the class of transformers or the formula that gives the logits
export_weights  the adapter, or the whole model with the adapter merged in · loading_code  code that loads the folder
check_export  that code in a process of its own against the run · model_card  README.md · push_to_hub  the upload
export_run  all of it, whole or not at all · export_ensemble  the runs of an ensemble · blended  their mean answer
"""
