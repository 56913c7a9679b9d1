"""A sweep: many trials to their end, whatever dies on the way, and a ranking.

folder  the sweep on disk · space  what a search draws from · cells  overrides to checked trials
history  all validations and results, for samplers and pruners · source, search  which trial is next
child, pool  a trial in a process of its own · outcome  how it ended · slots, executor  many of them
front, ending, dry  plan, run, rank, or only look · ranking/  the table and how sure it is
doors/  Hydra's plugins, the W&B agent, a W&B sweep file · sheet/  that file
"""
