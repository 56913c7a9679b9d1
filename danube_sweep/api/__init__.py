"""The Python functions: `import danube_sweep as ds`. The package itself offers what is public.

functions      compose, plan, train, sweep and load: the command line's code in the caller's process and its children
handles        Run and Sweep: a folder of results, to ask
call_words     the overrides of a call, checked · data_argument  data=, a path or a DataFrame
html_tables    how a Run and a Sweep look in a notebook
"""
