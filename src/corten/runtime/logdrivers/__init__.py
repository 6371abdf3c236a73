"""Where a container's output goes besides its clients: one file a driver, `container_log.py` puts them together.

A driver takes runs of lines (spec/log_lines.py) and never blocks: it is called in the monitor's loop. What it needs beyond the
monitor's own imports it imports when it is made.
"""
