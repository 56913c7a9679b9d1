"""A sweep folder as one page that answers: what should I use, and how sure am I? Imports no torch.

gather   folder -> model.Report: curves, predictions, slots, answer, importance, compared, published
page     model.Report -> HTML: sections/ and pictures/ (inline SVG), static/ (its style and script), html (escaping)
terminal the same in the terminal · standing, watch  a running sweep
"""
