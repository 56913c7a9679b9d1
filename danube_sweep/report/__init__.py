"""A sweep folder as one page: which configuration to use, and how certain that is. Imports no torch.

collect      folders -> page_data.Report: learning_curves, row_predictions, validation_rows, slot_times,
             factor_effects, verdict, importance, comparability
page         page_data.Report -> HTML: sections/ and pictures/ (inline SVG), static/ (style, script), markup (escaping)
in_terminal  the same in the terminal · sweep_progress, watch  a running sweep
"""
