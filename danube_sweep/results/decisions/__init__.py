"""Labels from probabilities and numbers: the rule that is best for a metric, and its worth on unseen rows.

rules      what a rule is, and what it decides · counts  the metrics of decisions, with weights for the rows
fit_rules  the best rule on some rows, one number of it at a time · judge_rules  its worth, by cross-fitting
decide_command  `danube-sweep decide`
"""
