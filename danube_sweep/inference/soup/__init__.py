"""A soup: one adapter and head, the average of several trials (Wortsman et al. 2022, arXiv:2203.05482).

ingredients  the trials that can be averaged, and why others cannot · average  the mean of their weights, and its cut
validated    many averages on the validation rows in one pass · choose_soup  which trials, and the worth on unseen rows
write_soup   the folder of a run · soup_command  `danube-sweep soup`
"""
