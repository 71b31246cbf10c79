"""Looking into runs that were trained: the commands of Report.py, and the page that shows all runs in one file."""
