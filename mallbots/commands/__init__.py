"""The commands that `mallbots` is made of: the options of each, and what it prints.

They import the work only when it is asked for, so that `--help` is quick.
"""
