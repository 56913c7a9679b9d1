"""The ranking of a sweep folder, running or ended; imports no torch.

trial_results  the trials in run folders · two_sweeps  those of two sweeps · varied_keys  the keys that differ
answers, metric_sums, entity_sums  answers to validation rows, and the metrics of them that can be resampled
bootstrap, training_noise, comparison, intervals  the error of a difference · nothing_learned  against the class prior
rank  the rows, best first · early_rows  those that ended early · oof/  all folds together
ranking_table, ranking_files  as text, csv and markdown
"""
