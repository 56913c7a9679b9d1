"""Trials of several W&B agents of one machine in one executor, which packs them.

meeting_place  the socket's folder and its checks · lines  JSON over the socket, from this user alone
handed_source  what the executor trains: the trials that are handed to it · serve  the executor's process
executor_settings  what of a sweep's settings it follows
shared_trial  a trial of an agent: handed over, followed by its files, logged as its own W&B run
agents  `danube-sweep agent`: several stock agents · agent_command  what it shares with their trials and the executor
"""
