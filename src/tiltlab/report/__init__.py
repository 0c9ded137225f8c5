"""Run folders -> tables, plots, one HTML page. Imports no torch: a report renders on a laptop.

load.py     a run folder as plain values
tables.py   records -> rows of figures with intervals
figures.py  rows and curves -> Plotly figures
text.py     figures as text
html.py     templates and Plotly figures -> one page without network
page.py     all of it -> report.html;  terminal.py prints the same tables
"""
