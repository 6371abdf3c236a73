"""Kernel mechanism, named as the kernel names it. No policy, no Corten nouns; the only package with ctypes."""
