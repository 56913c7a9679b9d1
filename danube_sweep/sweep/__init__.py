"""A sweep: many trials to their end, whatever dies on the way, and a ranking.

folder  the sweep on disk · space  what a search draws from · cells  overrides to checked trials
history  validations of all trials, for samplers and pruners · source  which trial is next
child, pool  a trial in a process of its own · outcome  how it ended · executor  slots, deadline, signals
rank, table  the ranking · sheet  the W&B sweep file · front  what the doors call
"""
