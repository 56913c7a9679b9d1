"""The ranking of a sweep folder, running or ended; imports no torch.

trial_results  what the run folders hold · varied_keys  what differs between them
example_losses, bootstrap  how sure a difference is
rank  the rows, best first · ranking_table  as text, csv and markdown · oof/  predictions of all folds together
"""
