"""Labels from probabilities and numbers: the best rule for a metric, and its score on unseen rows.

rules      the rules and their decisions · counts  the metrics of decisions, with weights for the rows
fit_rules  the best rule on some rows, one number of it at a time · judge_rules  its worth, by cross-fitting
decide_command  `danube-sweep decide`
"""
