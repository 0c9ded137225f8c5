"""Pairs of models of which it is known what the gain is made of.

Left out on purpose: real models. Every distribution here is known, and so is what must be found.
"""
