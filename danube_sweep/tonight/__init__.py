"""`danube-sweep tonight`: one command from a file to a submission, in the hours that it is given.

`asked`, the words of the command; `whole_files`, every row read before it; `night_folder`, what is kept on disk;
`backbones`, the models and their trials; `searched_keys` and `space_of_trial`, what may be tried; `next_round`, what is
tried next; `costs`, seconds; `stages`, each command that it runs; `run_night`, from the first to the last;
`shown_plan`, the table before it.
"""
