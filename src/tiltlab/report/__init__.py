"""Run folders -> tables, plots, one HTML page. Imports no torch: a report renders on a laptop.

load.py     a run folder as plain values
tables.py   records -> rows of figures with intervals
styles.py   a colour, a dash and a symbol for each arm;  names.py puts names beside points
figures.py  rows and curves -> Plotly figures;  headline.py and frontier.py: those of the first screen
lead.py     what a study says, in one sentence a task
text.py     figures as text
html.py     templates and Plotly figures -> one page without network
page.py     all of it -> report.html;  terminal.py prints the same tables
"""
