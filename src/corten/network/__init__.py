"""Networks: a pure plan, and its execution by netlink."""
