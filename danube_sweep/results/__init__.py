"""The ranking of a sweep folder, running or ended; imports no torch.

trial_results  what the run folders hold · two_sweeps  those of two sweeps · varied_keys  what differs between them
answers, metric_sums, entity_sums  what was answered, and the metrics of it that can be resampled
bootstrap, training_noise, comparison, intervals  how sure a difference is · nothing_learned  against the class prior
rank  the rows, best first · ranking_table, ranking_files  as text, csv and markdown · oof/  all folds together
"""
